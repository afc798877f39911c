"""The command ``espnet-layerskip <verb>``. Verbs import what they need when they run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from espnet_layerskip._late_imports import start_sooner
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


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs; builds without loading ESPnet."""
    parser = argparse.ArgumentParser(
        prog="espnet-layerskip",
        description="CTC blank triggered dynamic layer-skipping for ESPnet.",
        epilog="Training and decoding with ESPnet's arguments: python -m "
        "espnet_layerskip.bin.asr_train, python -m espnet_layerskip.bin.asr_inference.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (module, about) in VERBS.items():
        module.add_options(verbs.add_parser(name, help=about))
    return parser


# Of each verb: the module with its ``add_options(parser)`` and ``run(args)``; its line in --help.
VERBS = {
    "transcribe": (transcribe, "audio files to text"),
    "try": (try_model, "what a trained model gains, without training"),
    "retrofit": (retrofit, "a trained model with gates, trained for them in short"),
    "export": (export, "a trained model as ONNX graphs, with their runtime"),
    "calibrate": (calibrate, "choose the skipping setting for an error budget"),
    "compare": (compare, "experiments and their settings side by side"),
    "report": (report, "figures and a page about an experiment"),
    "benchmark": (benchmark, "speed and accuracy against ESPnet's own classes"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: Arguments after the program's name; None means those of the command line.

    Returns:
        Exit status: 0; 1 if an input failed; 2 if the call or the model cannot be used; others
        as the verb's --help says.
    """
    args = get_parser().parse_args(argv)
    args.argv = list(sys.argv[1:] if argv is None else argv)
    try:
        status: int = VERBS[args.verb][0].run(args)
        return status
    except (ValueError, FileNotFoundError) as e:
        print(f"espnet-layerskip {args.verb}: error: {e}", file=sys.stderr)
        return 2


def command() -> None:
    """Run as the console command, in a process of its own."""
    start_sooner()
    sys.exit(main())


if __name__ == "__main__":
    command()
