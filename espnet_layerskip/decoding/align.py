"""When the tokens of a transcript were said: the best CTC path that gives them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from espnet_layerskip.decoding.greedy import collapse, token_ends
from espnet_layerskip.method.ctc import BLANK


def align(log_probs: torch.Tensor, tokens: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the frames at which each token starts and ends (exclusive) on its best path.

    Args:
        log_probs: (T, V), float, without NaN, blank at index 0.
        tokens: Token ids without blank.

    Returns:
        Two lists of the length of ``tokens``, or two empty ones if no path of T frames
        gives these tokens (as an attention decoder may).

    Example:
        >>> p = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
        >>> align(p.log(), [1, 1])
        ([0, 2], [1, 4])
    """
    from torchaudio.functional import forced_align

    repeats = sum(a == b for a, b in itertools.pairwise(tokens))
    if not tokens or len(tokens) + repeats > log_probs.size(0):
        return [], []
    targets = torch.tensor([list(tokens)], dtype=torch.long)
    path, _ = forced_align(log_probs.float().cpu()[None], targets, blank=BLANK)
    [(aligned, starts)] = collapse(path, torch.tensor([path.size(1)]))
    if aligned != list(tokens):
        return [], []
    return starts, token_ends(path[0].tolist(), starts)
