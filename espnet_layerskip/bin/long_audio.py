#!/usr/bin/env python3
"""Measure what transcribing long files costs: time, memory and errors by their length.

::

    python -m espnet_layerskip.bin.long_audio --exp exp/asr_ours --data dump/raw/test \\
        --seconds 0 10 600 3600 --output exp/long_audio

Writes ``long_audio.md`` and ``long_audio.json`` into the output folder. Other arguments go to
``espnet-layerskip transcribe``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_layerskip.evaluation.environment import typed
from espnet_layerskip.evaluation.long_audio import long_audio_page, measure_long_audio
from espnet_layerskip.files import run_main, write_text


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="long_audio", description="Measure long audio")
    parser.add_argument("--exp", type=Path, required=True, help="Experiment folder, or zip")
    parser.add_argument("--data", type=Path, required=True, help="wav.scp, text and utt2spk")
    parser.add_argument("--output", type=Path, required=True, help="Folder to write into")
    parser.add_argument(
        "--seconds",
        type=float,
        nargs="+",
        default=[0, 10, 600, 3600],
        help="Lengths of the files, 0 = the utterances as they are [%(default)s]",
    )
    parser.add_argument("--repeats", type=int, default=3, help="Passes over all lengths [3]")
    parser.add_argument("--sample_rate", type=int, default=16000, help="Of the test set, in Hz")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Measure and write; ``cmd`` stands in for the command line's arguments."""
    argv = list(sys.argv[1:] if cmd is None else cmd)
    args, options = get_parser().parse_known_args(argv)
    report = measure_long_audio(
        args.exp, args.data, args.seconds, args.repeats, options, args.sample_rate
    )
    report["command"] = typed(["python", "-m", "espnet_layerskip.bin.long_audio", *argv])
    page = long_audio_page(report)
    write_text(args.output / "long_audio.json", json.dumps(report, indent=1) + "\n")
    write_text(args.output / "long_audio.md", page)
    print(page)


if __name__ == "__main__":
    run_main(main)
