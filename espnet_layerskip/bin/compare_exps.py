#!/usr/bin/env python3
"""Compare experiments on a test set: accuracy, skip ratio, encoder time and FLOPs.

::

    python -m espnet_layerskip.bin.compare_exps --data dump/raw/test --output exp/compare \\
        --exp stock=exp/asr_stock,exp/asr_stock_seed2 --exp ours=exp/asr_ours,exp/asr_ours_seed2 \\
        --row "ours, extension 0" exp/asr_ours,exp/asr_ours_seed2 extension=0,0

An experiment with a gate gives rows for skipping off, skipping on and stopped at each gate
layer. Writes ``compare.md`` and ``compare.json`` into the output folder; decodings are kept in
its ``cache`` (or ``--cache``) and only new ones are computed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_layerskip.evaluation.tables import MAX_WER_INCREASE
from espnet_layerskip.files import run_main
from espnet_layerskip.verbs.compare import compare_exps


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="compare_exps", description="Compare experiments on a test set"
    )
    parser.add_argument("--data", type=Path, required=True, help="wav.scp, text and utt2spk")
    parser.add_argument("--output", type=Path, required=True, help="Folder to write into")
    parser.add_argument(
        "--exp",
        nargs="+",
        action="append",
        default=[],
        metavar="[LABEL=]EXPDIR[,EXPDIR...]",
        help="Experiment with its standard rows; several folders are training seeds",
    )
    parser.add_argument(
        "--row",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME EXPDIR[,EXPDIR...] KEY=VALUE",
        help="One row: threshold=P|off|auto, extension=L,R, context=C, exit=K, repeats=P|off",
    )
    parser.add_argument("--model_file", help="Checkpoint name in each experiment")
    parser.add_argument("--cache", type=Path, help="Folder of decodings [OUTPUT/cache]")
    parser.add_argument("--repeats", type=int, default=5, help="Timed passes, 0 = no timing")
    parser.add_argument(
        "--max_timed",
        type=int,
        metavar="N",
        help="Utterances of a timed pass, spread over the durations [the whole set]",
    )
    parser.add_argument("--num_threads", type=int, default=1, help="Threads while timing")
    parser.add_argument(
        "--max_wer_increase",
        type=float,
        default=MAX_WER_INCREASE,
        help="Points over full depth above which a row counts as failed",
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the comparison; ``cmd`` stands in for the command line's arguments."""
    logging.getLogger().setLevel(logging.WARNING)  # ESPnet logs whole models
    argv = list(sys.argv[1:] if cmd is None else cmd)
    compare_exps(get_parser().parse_args(argv), argv)


if __name__ == "__main__":
    run_main(main)
