"""Dropping blank frames before a search, so that no repeated token is lost."""

from __future__ import annotations

import torch

from espnet_layerskip.method.ctc import BLANK

# As ESPnet's log of zero: sums of it stay finite where -inf would turn into NaN.
LOG_ZERO = -1.0e10
DROP_NOTHING = 1.0


def clean_log_probs(log_probs: torch.Tensor) -> torch.Tensor:
    """Return log-posteriors without NaN: a NaN is probability zero, a frame of zeros is blank.

    Args:
        log_probs: (..., T, V), float, blank at index 0.
    """
    log_probs = torch.where(log_probs.isnan(), -torch.inf, log_probs)
    nothing = log_probs.amax(-1) == -torch.inf
    log_probs[..., BLANK] = log_probs[..., BLANK].masked_fill(nothing, 0.0)
    return log_probs


def check_drop_threshold(value: float | str) -> float:
    """Return the threshold as a number in (0.5, 1]; "off" is 1.0.

    Raises:
        ValueError: For anything else. At 0.5 or less a frame that is rather a label than
            blank could be dropped.
    """
    try:
        threshold = DROP_NOTHING if value == "off" or value is False else float(value)
    except ValueError:
        threshold = float("nan")
    if not 0.5 < threshold <= DROP_NOTHING:
        raise ValueError(f"drop_threshold must be 'off' or in (0.5, 1], but got {value!r}")
    return threshold


def choose_drop_threshold(value: float | str | None, decoder_type: str) -> float:
    """Return the threshold of a decoder; None is 0.99, and off for ESPnet's search."""
    if value is None:
        value = DROP_NOTHING if decoder_type == "espnet" else 0.99
    return check_drop_threshold(value)


def drop_frames(
    log_probs: torch.Tensor, threshold: float, keep_mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge each run of frames that are surely blank into one frame.

    A frame is dropped where p(blank) > ``threshold``, or where it skipped layers and blank
    is its best token. The frame that stands for a run of dropped frames has the product of
    their blank probabilities and no label. So

    - between two equal labels at least one blank stays: "aa" does not become "a";
    - each label sequence y keeps exactly the mass of its paths that are blank on all
      dropped frames: p(y) falls by at most the sum of 1 - p(blank) over these frames;
    - the best path (greedy) and its score stay as they are.

    Args:
        log_probs: (T, V), float, without NaN, blank at index 0.
        threshold: In (0.5, 1]; 1.0 drops nothing, whatever skipped.
        keep_mask: (T,) bool, False = the frame skipped layers; None = none did.

    Returns:
        Log-posteriors (M, V), M <= T, and the frame (M,) int64 that each row starts at.

    Example:
        >>> p = torch.tensor([[0.1, 0.9], [0.99, 0.01], [0.99, 0.01], [0.1, 0.9]])
        >>> rows, first = drop_frames(p.log(), threshold=0.9)
        >>> first.tolist(), round(float(rows[1, 0].exp()), 4)
        ([0, 1, 3], 0.9801)
    """
    if log_probs.dim() != 2 or (keep_mask is not None and keep_mask.shape != log_probs.shape[:1]):
        raise ValueError(
            f"log_probs must be (T, V) and keep_mask (T,), but got {tuple(log_probs.shape)} and "
            f"{None if keep_mask is None else tuple(keep_mask.shape)}"
        )
    frames = torch.arange(log_probs.size(0), device=log_probs.device)
    if threshold >= DROP_NOTHING:
        return log_probs, frames
    blank = log_probs[:, BLANK]
    dropped = blank.exp() > threshold
    if keep_mask is not None:
        dropped |= ~keep_mask & (log_probs.argmax(-1) == BLANK)
    starts = ~dropped
    starts[1:] |= starts[:-1].clone()  # the first of a run
    starts[:1] = True
    row = starts.cumsum(0) - 1
    first = frames[starts]
    out = log_probs[first]
    merged = dropped[first]
    runs = torch.zeros(len(first), dtype=torch.float64, device=out.device)
    runs.index_add_(0, row, blank.double())
    out[merged] = LOG_ZERO
    out[merged, BLANK] = runs[merged].to(out.dtype)
    return out, first
