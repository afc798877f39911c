#!/usr/bin/env python3
"""How far the confidence of words can be trusted: its calibration error, before and after one
temperature.

    espnet-layerskip transcribe --model M --wav-scp dev/wav.scp --format json > dev.json
    espnet-layerskip transcribe --model M --wav-scp test/wav.scp --format json > test.json
    python tools/confidence_calibration.py --fit dev.json dev/text --on test.json test/text

The temperature T makes sigmoid(logit(p) / T) of a confidence p, and is the one with the smallest
negative log-likelihood on ``--fit``. The expected calibration error (ECE) is that of ten bins of
equal width: the mean over the words of |share of right words - mean confidence| of their bin.
What it finds is for ``transcribe --confidence-temperature T``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import jiwer
import numpy as np

from espnet_layerskip.decoding.confidence import NEAREST, tempered
from espnet_layerskip.files import read_table

BINS = 10


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
        words = [word["word"] for word in found["words"]]
        said = reference[found["utt_id"]]
        if not words:
            continue
        hit = [False] * len(words)
        if said.split():
            for chunk in jiwer.process_words(said, " ".join(words)).alignments[0]:
                for place in range(chunk.hyp_start_idx, chunk.hyp_end_idx):
                    hit[place] = chunk.type == "equal"
        sure += [word["confidence"] for word in found["words"]]
        right += hit
    return np.clip(np.array(sure), NEAREST, 1 - NEAREST), np.array(right)


def loss(sure: np.ndarray, right: np.ndarray) -> float:
    """Return the mean negative log-likelihood."""
    return float(-np.log(np.maximum(np.where(right, sure, 1 - sure), NEAREST)).mean())


def calibration_error(sure: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error.

    >>> round(calibration_error(np.array([0.95, 0.95, 0.15]), np.array([True, False, False])), 2)
    0.35
    """
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs(sure[place == b].sum() - right[place == b].sum()) for b in range(BINS)]
    return float(sum(gaps) / len(sure))


def fit(sure: np.ndarray, right: np.ndarray) -> float:
    """Return the temperature."""
    temperatures = np.geomspace(0.2, 20, 400)
    return float(min(temperatures, key=lambda t: loss(tempered(sure, t), right)))


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
        print(f"{name}: mean {mean:.1f} %, ECE {error:.1f} %, loss {loss(values, right):.3f}")


if __name__ == "__main__":
    main()
