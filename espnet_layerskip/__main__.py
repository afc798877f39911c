"""Launcher: register layer skipping, then run another module as ``python -m`` would.

::

    python -m espnet_layerskip -m espnet2.bin.asr_align --help
    asr.sh --python "python3 -m espnet_layerskip" ...
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence

USAGE = """\
usage: python -m espnet_layerskip -m MODULE [ARG ...]
       python -m espnet_layerskip SCRIPT.py [ARG ...]
       python -m espnet_layerskip -c CODE [ARG ...]

Registers the encoders and the model of espnet_layerskip with ESPnet, then runs
MODULE (for example espnet2.bin.asr_train), SCRIPT.py or CODE as python would."""


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
    while args[:1] == ["-u"]:  # harmless interpreter option that recipes like to pass
        args.pop(0)
    takes_value = args[:1] in (["-m"], ["-c"])
    if not args or (takes_value and len(args) < 2) or (args[0][:1] == "-" and not takes_value):
        got = " ".join(args) or "no arguments"
        print(
            f"{USAGE}\n\nerror: got {got!r}; -m MODULE, -c CODE or a script is needed",
            file=sys.stderr,
        )
        return 2

    from espnet_layerskip.registry import register

    register()

    if args[0] == "-m":
        sys.argv = args[1:]
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    elif args[0] == "-c":
        sys.argv = ["-c", *args[2:]]
        exec(compile(args[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = args
        runpy.run_path(args[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
