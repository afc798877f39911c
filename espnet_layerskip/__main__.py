"""Launcher: register layer skipping, then run another module as ``python -m`` would.

::

    python -m espnet_layerskip -m espnet2.bin.asr_align --help
    asr.sh --python "python3 -m espnet_layerskip" ...
    python -m espnet_layerskip --skip "gates=12 threshold=0.9" -m espnet2.bin.cli transcribe a.wav
"""

from __future__ import annotations

import os
import re
import runpy
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from espnet_layerskip.method.settings import KEYS, SkipSettings

VARIABLE = "ESPNET_LAYERSKIP"
# Run in the place of ESPnet's: a training that was stopped in the middle of a write goes on.
OURS = {"espnet2.bin.asr_train": "espnet_layerskip.bin.asr_train"}
TRUE = ("true", "t", "yes", "y", "1", "on")  # to ESPnet's str2bool
USAGE = f"""\
usage: python -m espnet_layerskip [--skip SETTINGS] -m MODULE [ARG ...]
       python -m espnet_layerskip [--skip SETTINGS] SCRIPT.py [ARG ...]
       python -m espnet_layerskip [--skip SETTINGS] -c CODE [ARG ...]

Registers the encoders and the model of espnet_layerskip with ESPnet, then runs
MODULE (for example espnet2.bin.asr_train), SCRIPT.py or CODE as python would.

--skip SETTINGS   models that ESPnet loads there for inference or alignment skip
                  layers, e.g. --skip "gates=12,15 threshold=0.9 extension=1,1";
                  keys: {", ".join(KEYS)}.
                  Without gates: those of the model, or else the layers that have
                  a trained CTC head (interctc_layer_idx). The environment
                  variable {VARIABLE} does the same."""


def main(argv: Sequence[str] | None = None) -> int:
    """Register and run.

    Args:
        argv: arguments after the program's name; None means those of the command line.

    Returns:
        Exit status: 0, or 2 for a wrong call (the usage is on stderr). An exit of the
        module that is run passes through as its own SystemExit.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if args[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    told = os.environ.get(VARIABLE)
    while args and (args[0] in ("-u", "--skip") or args[0].startswith("--skip=")):
        option, sign, value = args.pop(0).partition("=")
        if option == "--skip":  # -u: harmless, and recipes like to pass it
            told = value if sign or not args else args.pop(0)
    takes_value = args[:1] in (["-m"], ["-c"])
    if not args or (takes_value and len(args) < 2) or (args[0][:1] == "-" and not takes_value):
        got = " ".join(args) or "no arguments"
        print(
            f"{USAGE}\n\nerror: got {got!r}; -m MODULE, -c CODE or a script is needed",
            file=sys.stderr,
        )
        return 2

    try:
        settings = SkipSettings.from_items((told or "").split())
    except ValueError as err:
        print(f"{USAGE}\n\nerror: {err} (--skip or {VARIABLE}: {told!r})", file=sys.stderr)
        return 2

    if problem := _missing(args):
        print(f"error: {problem}", file=sys.stderr)
        return 2

    from espnet_layerskip.registry import register_in_children, register_when_imported

    register_in_children()
    register_when_imported()  # what needs none of ESPnet's tasks (tokenize_text) starts at once
    # the processes that Dask starts from here (ESPnet3's inference) register as well
    os.environ.setdefault("DASK_DISTRIBUTED__WORKER__PRELOAD", "espnet_layerskip")
    if told:
        from espnet_layerskip.inference.when_built import SkipWhenBuilt

        SkipWhenBuilt(settings)

    if args[0] == "-m":
        sys.argv = args[1:]
        with _safe(args[1], args[2:]):
            runpy.run_module(OURS.get(args[1], args[1]), run_name="__main__", alter_sys=True)
    elif args[0] == "-c":
        sys.argv = ["-c", *args[2:]]
        exec(compile(args[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = args
        sys.path.insert(0, os.path.dirname(os.path.abspath(args[0])))
        runpy.run_path(args[0], run_name="__main__")
    return 0


def _missing(args: Sequence[str]) -> str:
    """Return what is wrong with the module or script that is to run; "" if it is there."""
    if args[0] == "-c":
        return ""
    if args[0] != "-m":
        return "" if os.path.exists(args[0]) else f"{args[0]}: no such script"
    try:
        found = find_spec(args[1])
        if found is not None and found.submodule_search_locations is not None:
            found = find_spec(f"{args[1]}.__main__")
    except (ImportError, ValueError):  # its package is not there, or fails
        found = None
    return "" if found is not None else f"no module {args[1]} that can be run (-m MODULE)"


def _safe(module: str, args: Sequence[str]) -> AbstractContextManager[None]:
    """Let ESPnet's other trainings (of a language model) write whole files and go on, too."""
    if not re.fullmatch(r"espnet2\.bin\.\w+_train(_\w+)?", module) or module in OURS:
        return nullcontext()
    from espnet_layerskip.training.resume import going_on

    words = [part for arg in args for part in (arg.split("=", 1) if arg[:2] == "--" else [arg])]
    told = dict(pairwise(words))
    again = told.get("--resume", "").lower() in TRUE and "--output_dir" in told
    return going_on(Path(told["--output_dir"]) if again else None)


if __name__ == "__main__":
    sys.exit(main())
