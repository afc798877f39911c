"""The command ``espnet-layerskip <verb>``. Verbs import what they need when they run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from espnet_layerskip.options import DECODER_TYPES, PRECISIONS, SKIP_CONTEXTS


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs; builds without loading ESPnet."""
    parser = argparse.ArgumentParser(
        prog="espnet-layerskip",
        description="CTC blank triggered dynamic layer-skipping for ESPnet.",
        epilog="Training and decoding with ESPnet's arguments: python -m "
        "espnet_layerskip.bin.asr_train, python -m espnet_layerskip.bin.asr_inference.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    add_transcribe(verbs.add_parser("transcribe", help="audio files to text"))
    return parser


def add_transcribe(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``transcribe``."""
    parser.description = (
        "Print 'utt_id text' lines to stdout in input order; everything else goes to stderr. "
        "Audio of another rate is resampled, several channels are averaged. A file that cannot "
        "be used is named on stderr, the others are transcribed, and the exit status is 1."
    )
    add = parser.add_argument
    add("--model", required=True, metavar="EXPDIR_OR_ZIP", help="experiment directory, or zip")
    add("--model-file", metavar="F", help="checkpoint; default: the best averaged one")
    add(
        "--blank-threshold",
        default="auto",
        metavar="auto|off|P",
        help="a frame skips layers where p(blank) > P, in (0, 1]; default: as configured",
    )
    add("--spike-extension", metavar="L,R", help="frames kept around each non-blank frame")
    add("--skip-context", choices=SKIP_CONTEXTS, help="what kept frames see in upper layers")
    add("--precision", choices=PRECISIONS, default="float32", help="of the encoder")
    add("--decoder", choices=DECODER_TYPES, default="greedy", help="default: greedy")
    add("--beam-size", type=int, default=10, metavar="N", help="of --decoder espnet (default: 10)")
    add("--ctc-weight", type=float, metavar="W", help="of --decoder espnet; default: ESPnet's")
    add("--batch-size", type=int, default=1, metavar="N", help="utterances encoded together")
    add("--num-threads", type=int, metavar="N", help="CPU threads; default: PyTorch's choice")
    add("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    add("--stats", metavar="FILE.json", help="write times, RTF and skip ratio")
    add("--wav-scp", metavar="FILE", help="table of lines 'utt_id path'")
    add("audio", nargs="*", metavar="AUDIO", help="audio files; their stem is the utt_id")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: Arguments after the program's name; None means those of the command line.

    Returns:
        Exit status: 0; 1 if an input failed; 2 if the call or the model cannot be used.
    """
    args = get_parser().parse_args(argv)
    from espnet_layerskip import transcribe

    try:
        return transcribe.run(args)
    except (ValueError, FileNotFoundError) as e:
        print(f"espnet-layerskip {args.verb}: error: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
