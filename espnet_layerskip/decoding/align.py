"""When the tokens of a transcript were said: the best CTC path that gives them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from espnet_layerskip.decoding.greedy import collapse, token_ends
from espnet_layerskip.decoding.hypothesis import to_numpy
from espnet_layerskip.method.settings import BLANK

if TYPE_CHECKING:
    from espnet_layerskip.decoding.hypothesis import Frames


def align(log_probs: Frames, tokens: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the frames at which each token starts and ends (exclusive) on its best path.

    Args:
        log_probs: (T, V), float, without NaN, blank at index 0.
        tokens: Token ids without blank.

    Returns:
        Two lists of the length of ``tokens``, or two empty ones if no path of T frames
        gives these tokens (as an attention decoder may).

    Example:
        >>> p = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
        >>> align(np.log(p), [1, 1])
        ([0, 2], [1, 4])
    """
    rows = to_numpy(log_probs)
    repeats = sum(a == b for a, b in itertools.pairwise(tokens))
    if not tokens or len(tokens) + repeats > len(rows):
        return [], []
    path = best_path(rows, tokens)
    [(aligned, starts)] = collapse(path[None], np.array([len(path)]))
    if aligned != list(tokens):
        return [], []
    return starts, token_ends(path.tolist(), starts)


def best_path(log_probs: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    """Return the best path (T,) through tokens and the blanks around them (Viterbi).

    Args:
        log_probs: (T, V).
        tokens: Token ids, at least one.
    """
    labels = np.full(2 * len(tokens) + 1, BLANK)
    labels[1::2] = tokens
    scores = log_probs[:, labels].astype(np.float64)
    # from one label to the next without a blank, where they differ
    jumps = np.zeros(len(labels), bool)
    jumps[2:] = (labels[2:] != BLANK) & (labels[2:] != labels[:-2])
    total = np.full(len(labels), -np.inf)
    total[:2] = scores[0, :2]
    steps = np.zeros(scores.shape, np.int64)
    ways = np.full((3, len(labels)), -np.inf)  # how far back the path comes from
    places = np.arange(len(labels))
    for t in range(1, len(scores)):
        ways[0], ways[1, 1:] = total, total[:-1]
        ways[2, 2:] = np.where(jumps[2:], total[:-2], -np.inf)
        steps[t] = ways.argmax(0)
        total = ways[steps[t], places] + scores[t]
    place = len(labels) - 1 - int(total[-2] > total[-1])
    path = np.zeros(len(scores), np.int64)
    for t in range(len(scores) - 1, -1, -1):
        path[t] = labels[place]
        place -= steps[t, place]
    return path
