#!/usr/bin/env python3
"""Time the encoder of an experiment in several forms, interleaved, on real speech.

::

    python -m espnet_layerskip.bin.bench_encoder --exp exp/asr_ours --data dump/raw/test \\
        --twin stock=exp/asr_stock --output exp/bench/encoder.json

Rows: skipping on, skipping off, ESPnet's own class with the same weights, the same in int8,
stopped at each gate layer, and the twins. Writes the JSON file and a table beside it (.md).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_layerskip.bench.commands import bench_encoder
from espnet_layerskip.bench.report import MAX_WER_INCREASE
from espnet_layerskip.recipe.tables import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="bench_encoder", description="Time the encoder of an experiment in several forms"
    )
    parser.add_argument("--exp", required=True, help="Experiment folder, with a gate")
    parser.add_argument("--data", type=Path, required=True, help="wav.scp, text and utt2spk")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; a .md goes beside")
    parser.add_argument(
        "--twin",
        nargs="+",
        default=[],
        metavar="[LABEL=]EXPDIR",
        help="Other experiments at full depth: the stock twin, a shallower one",
    )
    parser.add_argument(
        "--skip",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="How to skip: threshold=P|auto, extension=L,R, context=C; default: as trained",
    )
    parser.add_argument("--model_file", help="Checkpoint name in each experiment")
    parser.add_argument("--seconds", type=float, nargs="+", default=[3.0, 10.0, 30.0])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--num_threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--num_inputs", type=int, default=8, help="Different inputs per length")
    parser.add_argument("--repeats", type=int, default=7, help="Timed passes, at least 5")
    parser.add_argument(
        "--max_wer_increase",
        type=float,
        default=MAX_WER_INCREASE,
        help="Points over skipping off above which a row counts as failed",
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the benchmark; ``cmd`` stands in for the command line's arguments."""
    logging.getLogger().setLevel(logging.WARNING)  # ESPnet logs whole models
    argv = list(sys.argv[1:] if cmd is None else cmd)
    bench_encoder(get_parser().parse_args(argv), argv)


if __name__ == "__main__":
    run_main(main)
