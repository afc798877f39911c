"""Consistency of two augmented views of an utterance (CR-CTC, Yao et al., arXiv:2410.05101)."""

from __future__ import annotations

import torch


def two_views(*batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return each tensor (B, ...) twice along the batch, (2 * B, ...)."""
    return tuple(torch.cat((t, t)) for t in batch)


def consistency_loss(log_probs: torch.Tensor, frame_mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of KL(a || b) and KL(b || a) between two views.

    As in the paper each view is the other's teacher, without gradient, and the KL is summed over
    the frames. It is divided by the number of utterances, as the CTC loss is.

    Args:
        log_probs: (2 * B, T, V) of the views: utterance i of the batch is in rows i and B + i.
        frame_mask: (2 * B, T) bool; compared are the frames that are True in both views.

    Returns:
        Scalar float32.
    """
    a, b = log_probs.float().chunk(2)
    both = torch.logical_and(*frame_mask.chunk(2))
    forth = (a.detach().exp() * (a.detach() - b)).sum(-1)
    back = (b.detach().exp() * (b.detach() - a)).sum(-1)
    return 0.5 * ((forth + back) * both).sum() / a.size(0)
