"""The command ``espnet-layerskip <verb>``. Verbs import what they need when they run."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence

from espnet_layerskip._late_imports import start_sooner
from espnet_layerskip.files import open_streams
from espnet_layerskip.verbs import (
    benchmark,
    calibrate,
    compare,
    export,
    report,
    retrofit,
    transcribe,
    try_model,
)
from espnet_layerskip.verbs.command_line import (
    Parser,
    Version,
    check_inputs,
    completion,
    examples,
)


def get_parser() -> Parser:
    """Return the parser of all verbs; builds without loading ESPnet."""
    parser = Parser(
        prog="espnet-layerskip",
        description="CTC blank triggered dynamic layer-skipping for ESPnet. "
        "espnet-layerskip VERB --help has the options and examples of a verb.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action=Version, help="print versions and exit")
    parser.add_argument(
        "--completion",
        action="store_true",
        help="print a script that completes verbs and options in bash and zsh, and exit",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, (module, about, lines) in VERBS.items():
        verb = verbs.add_parser(
            name, help=about, epilog=examples(lines, MORE_STATUSES.get(name, ""))
        )
        module.add_options(verb)
    return parser


EPILOG = """\
examples:
  espnet-layerskip transcribe --model exp/asr_x a.wav b.flac
  espnet-layerskip try --model exp/asr_x --data dump/raw/test
  eval "$(espnet-layerskip --completion)"    # now the Tab key completes verbs and options

Training and decoding with ESPnet's arguments: python -m espnet_layerskip.bin.asr_train,
python -m espnet_layerskip.bin.asr_inference.
"""

# Of each verb: the module with its ``add_options(parser)`` and ``run(args)``; its line in --help;
# examples.
VERBS = {
    "transcribe": (
        transcribe,
        "audio files to text",
        """
espnet-layerskip transcribe --model exp/asr_x a.wav b.flac
espnet-layerskip transcribe --model model.zip --format srt talk.mp3 > talk.srt
espnet-layerskip transcribe --model model.zip --format vtt --output-dir subtitles *.mp3
espnet-layerskip transcribe --model exp/asr_x --wav-scp test/wav.scp --batch-size 8 --times test.ctm
sox a.wav -t wav - | espnet-layerskip transcribe --model asr.onnx --format json -
""",
    ),
    "try": (
        try_model,
        "what a trained model gains, without training",
        "espnet-layerskip try --model exp/asr_conformer --data dump/raw/test",
    ),
    "retrofit": (
        retrofit,
        "a trained model with gates, trained for them in short",
        """
espnet-layerskip retrofit --model exp/asr_conformer --data dump/raw/train --output exp/asr_gated
espnet-layerskip retrofit --model model.zip --data train --labels none --output exp/asr_gated
""",
    ),
    "export": (
        export,
        "a trained model as ONNX graphs, with their runtime",
        """
espnet-layerskip export --model exp/asr_x --output asr.onnx
espnet-layerskip transcribe --model asr.onnx a.wav
""",
    ),
    "calibrate": (
        calibrate,
        "choose the skipping setting for an error budget",
        """
espnet-layerskip calibrate --exp exp/asr_x --data dump/raw/dev2 --max-wer-increase 10 --dry-run
espnet-layerskip calibrate --exp exp/asr_x --data dump/raw/dev2 --max-wer-increase 10
""",
    ),
    "compare": (
        compare,
        "experiments and their settings side by side",
        """
espnet-layerskip compare --exp a=exp/asr_a b=exp/asr_b --data dump/raw/test --output compare
espnet-layerskip compare --exp exp/asr_x --data dump/raw/test --seconds 3 10 20 --output compare
""",
    ),
    "report": (
        report,
        "figures and a page about an experiment",
        """
espnet-layerskip report --exp exp/asr_x --data dump/raw/test --output report
espnet-layerskip report --exp exp/asr_x --times-from compare/compare.json --output report
""",
    ),
    "benchmark": (
        benchmark,
        "speed and accuracy against ESPnet's own classes",
        """
espnet-layerskip benchmark --model exp/asr_x --wav-scp test/wav.scp --text test/text --output b.json
""",
    ),
}


MORE_STATUSES = {
    "calibrate": "3 if no setting is shown to keep the budget: off is stored",
    "retrofit": "4 if no setting keeps the budget: what was made is in OUTPUT/rejected",
}
"""What other exit statuses of a verb mean."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: Arguments after the program's name; None means those of the command line.

    Returns:
        Exit status: 0; 1 if an input failed; 2 if the call, the model or the output cannot be
        used; others as the verb's --help says.
    """
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.completion:
        print(completion(parser), end="")
        return 0
    if args.verb is None:
        parser.error(f"a VERB is needed: {', '.join(VERBS)}")
    args.argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if args.verb != "transcribe":  # which goes on where one of several inputs is missing
            check_inputs(args)
        status: int = VERBS[args.verb][0].run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _give_up_stdout()
        return _failed(args, "the program that reads the output has ended, and so does this one", 1)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            _give_up_stdout()
            whole = "; what was written before is whole lines" if args.verb == "transcribe" else ""
            return _failed(args, f"the disk is full: {e}{whole}")
        return _failed(args, str(e))
    except (ValueError, ImportError) as e:
        return _failed(args, str(e))
    except RuntimeError as e:
        if "Symlink loop" not in str(e):  # of pathlib, before Python 3.13
            raise
        return _failed(args, str(e))
    except MemoryError:
        return _failed(args, "there is not enough memory for this")


def _failed(args: argparse.Namespace, message: str, status: int = 2) -> int:
    print(f"espnet-layerskip {args.verb}: error: {message}", file=sys.stderr)
    return status


def _give_up_stdout() -> None:
    """Let nothing more be written to stdout: Python would try it again when it ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no file of the system, in a test
        return


GRACE_SECONDS = 5.0
_ending: list[float] = []


def _end(number: int, _: object) -> None:
    """End by a signal: what is open is closed, temporary folders and other processes go.

    More signals do not disturb that; if it takes more than `GRACE_SECONDS`, the next ends at once.
    """
    if _ending:
        if time.monotonic() > _ending[0] + GRACE_SECONDS:
            os._exit(128 + number)
        return
    _ending.append(time.monotonic())
    said = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    with contextlib.suppress(OSError):  # its terminal may be gone
        os.write(2, f"espnet-layerskip: {said}\n".encode())
    sys.exit(128 + number)


def command() -> None:
    """Run as the console command, in a process of its own."""
    closed = sys.stdout is None
    open_streams()
    if closed:
        print("espnet-layerskip: error: standard output is closed", file=sys.stderr)
        sys.exit(2)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores a hangup
            signal.signal(number, _end)
    start_sooner(check_types=False)
    if not sys.warnoptions:  # those of other packages are of no use to those who run a command
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module=r"espnet_layerskip")
    sys.exit(main())


if __name__ == "__main__":
    command()
