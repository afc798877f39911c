#!/usr/bin/env python3
"""Compare experiments on a test set: the verb ``compare`` for recipes.

::

    python -m espnet_layerskip.bin.compare_exps --data dump/raw/test --output exp/compare \\
        --exp stock=exp/asr_stock,exp/asr_stock_seed2 --exp ours=exp/asr_ours,exp/asr_ours_seed2 \\
        --row "ours, extension 0" exp/asr_ours,exp/asr_ours_seed2 extension=0,0
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from espnet_layerskip._late_imports import start_sooner
from espnet_layerskip.files import run_main
from espnet_layerskip.verbs import compare
from espnet_layerskip.verbs.command_line import check_inputs


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="compare_exps")
    compare.add_options(parser)
    parser.add_argument("--max_wer_increase", type=float, help=argparse.SUPPRESS)  # the old name
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the comparison; ``cmd`` stands in for the command line's arguments."""
    argv = list(sys.argv[1:] if cmd is None else cmd)
    args = get_parser().parse_args(argv)
    check_inputs(args)
    if args.max_wer_increase is not None:
        logging.warning("--max_wer_increase is --max_wer_points now: percent points, as before")
        args.max_wer_points = args.max_wer_increase
    status = compare.compare(args, ["python", "-m", "espnet_layerskip.bin.compare_exps", *argv])
    if status:
        sys.exit(status)


if __name__ == "__main__":
    start_sooner()
    run_main(main)
