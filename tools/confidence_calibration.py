#!/usr/bin/env python3
"""How far the confidence of words can be trusted: its calibration error, before and after one
temperature.

    espnet-layerskip transcribe --model M --wav-scp dev/wav.scp --format json \
        --confidence-temperature 1 > dev.json
    espnet-layerskip transcribe --model M --wav-scp test/wav.scp --format json \
        --confidence-temperature 1 > test.json
    python tools/confidence_calibration.py --fit dev.json dev/text --on test.json test/text

What it finds is for ``transcribe --confidence-temperature T``; ``espnet-layerskip calibrate``
finds it too, and stores it with the model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from espnet_layerskip.decoding.confidence import NEAREST, tempered
from espnet_layerskip.evaluation.confidence import calibration_error, fit, log_loss, right_words
from espnet_layerskip.files import read_table


def judged_words(transcripts: Path, text: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence (N,) and whether it is right (N,) of each word that was recognised.

    Args:
        transcripts: Lines of ``transcribe --format json``.
        text: Reference, lines "utt_id words".
    """
    reference = read_table(text, allow_empty_value=True)
    sure: list[float] = []
    right: list[bool] = []
    for line in transcripts.read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        sure += [word["confidence"] for word in found["words"]]
        right += right_words(reference[found["utt_id"]], [w["word"] for w in found["words"]])
    return np.clip(np.array(sure), NEAREST, 1 - NEAREST), np.array(right)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--fit", "--on"):
        parser.add_argument(name, nargs=2, type=Path, required=True, metavar=("JSON", "TEXT"))
    args = parser.parse_args(argv)
    temperature = fit(*judged_words(*args.fit))
    sure, right = judged_words(*args.on)
    print(f"{len(sure)} words, {100 * right.mean():.1f} % right; temperature {temperature:.2f}")
    for name, values in (("as it is", sure), ("tempered", tempered(sure, temperature))):
        error = 100 * calibration_error(values, right)
        mean = 100 * values.mean()
        print(f"{name}: mean {mean:.1f} %, ECE {error:.1f} %, loss {log_loss(values, right):.3f}")


if __name__ == "__main__":
    main()
