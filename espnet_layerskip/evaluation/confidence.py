"""How far the confidence of words can be trusted, and the temperature that corrects it.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jiwer
import numpy as np

from espnet_layerskip.decoding.confidence import NEAREST, tempered

if TYPE_CHECKING:
    from espnet_layerskip.evaluation.inputs import TestSet
    from espnet_layerskip.evaluation.systems import System

BINS = 10
SPREAD = 0.5
"""Of log T around 0 before any word is heard: so few words change little."""


def fit_confidence(system: System, sets: Iterable[TestSet]) -> dict[str, Any]:
    """Return the temperature of a model's confidences, as `Calibration.confidence` holds it.

    Args:
        system: The model with the setting that it will have.
        sets: Speech with transcripts.

    Returns:
        "temperature", "words" that were recognised and how many of them are "right"; {} if
        there are no words, or none with a confidence.
    """
    speech2text = copy.copy(system.speech2text)
    speech2text.confidence_temperature = 1.0
    sure: list[float] = []
    right: list[bool] = []
    for data in sets:
        for speech in data.speech:
            wave = speech2text.preprocess(speech.utt_id, speech.samples)
            words = speech2text.recognize([wave], [speech.utt_id])[0].nbest[0][3].words
            if words and all(word.confidence is not None for word in words):
                sure += [word.confidence for word in words]
                right += right_words(data.text[speech.utt_id], [word.text for word in words])
    if not sure:
        return {}
    temperature = fit(np.array(sure), np.array(right))
    return {"temperature": round(temperature, 3), "words": len(right), "right": sum(right)}


def right_words(said: str, words: Sequence[str]) -> list[bool]:
    """Return for each recognised word whether the alignment to what was said has it as right.

    >>> right_words("GO ON", ["GO", "UP", "ON"])
    [True, False, True]
    """
    right = [False] * len(words)
    if words and said.split():
        for chunk in jiwer.process_words(said, " ".join(words)).alignments[0]:
            for place in range(chunk.hyp_start_idx, chunk.hyp_end_idx):
                right[place] = chunk.type == "equal"
    return right


def fit(sure: np.ndarray, right: np.ndarray) -> float:
    """Return the most probable temperature T, by the words and a prior of log T (0, `SPREAD`).

    Args:
        sure: Confidence of each word (N,), in [0, 1].
        right: Whether it is right (N,).
    """
    temperatures = np.geomspace(0.2, 20, 400)
    costs = len(sure) * np.array([log_loss(tempered(sure, t), right) for t in temperatures])
    return float(temperatures[np.argmin(costs + (np.log(temperatures) / SPREAD) ** 2 / 2)])


def log_loss(sure: np.ndarray, right: np.ndarray) -> float:
    """Return the mean negative log-likelihood of which words are right."""
    return float(-np.log(np.maximum(np.where(right, sure, 1 - sure), NEAREST)).mean())


def calibration_error(sure: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error, of ten bins of equal width.

    That is the mean over the words of |share of right words - mean confidence| of their bin.

    >>> round(calibration_error(np.array([0.95, 0.95, 0.15]), np.array([True, False, False])), 2)
    0.35
    """
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs(sure[place == b].sum() - right[place == b].sum()) for b in range(BINS)]
    return float(sum(gaps) / len(sure))
