"""Dropping blank frames before a search, so that no repeated token is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from espnet_layerskip.decoding.hypothesis import to_numpy
from espnet_layerskip.method.settings import BLANK

if TYPE_CHECKING:
    from espnet_layerskip.decoding.hypothesis import Frames

# As ESPnet's log of zero: sums of it stay finite where -inf would turn into NaN.
LOG_ZERO = -1.0e10
DROP_NOTHING = 1.0


def clean_log_probs(log_probs: Any) -> Any:
    """Return log-posteriors in which a frame of zeros (all -inf) is blank.

    Args:
        log_probs: (..., T, V), float, blank at index 0; a tensor, on whatever device, or an
            array. The result is of the same kind.

    Raises:
        ValueError: For a frame with NaN or +inf.
    """
    array = isinstance(log_probs, np.ndarray)
    top = log_probs.max(-1) if array else log_probs.amax(-1)
    check_finite(to_numpy(top))
    nothing = top == -np.inf
    if bool(nothing.any()):
        log_probs = log_probs.copy() if array else log_probs.clone()
        log_probs[..., BLANK][nothing] = 0.0
    return log_probs


def check_finite(top: np.ndarray) -> None:
    """Refuse posteriors that are no numbers, of which any transcript would be an invention.

    Args:
        top: The largest log-posterior of each frame (..., T), which is NaN where any is.

    Raises:
        ValueError: For NaN or +inf; -inf is a probability of zero.
    """
    bad = np.isnan(top) | (top == np.inf)
    if bad.any():
        raise ValueError(
            f"the CTC posteriors of {int(bad.sum())} of {bad.size} frames are not finite, the "
            f"first is frame {int(np.argwhere(bad)[0][-1])}: the audio, the weights or the "
            "precision of the model overflow"
        )


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
    log_probs: Any, threshold: float, keep_mask: Frames | None = None
) -> tuple[Any, np.ndarray]:
    """Merge each run of frames that are surely blank into one frame.

    A frame is dropped where p(blank) > ``threshold``, or where it skipped layers and blank
    is its best token. The frame that stands for a run of dropped frames has the product of
    their blank probabilities and no label. So

    - between two equal labels at least one blank stays: "aa" does not become "a";
    - each label sequence y keeps exactly the mass of its paths that are blank on all
      dropped frames: p(y) falls by at most the sum of 1 - p(blank) over these frames;
    - the best path (greedy) and its score stay as they are.

    Args:
        log_probs: (T, V), float, without NaN, blank at index 0; a tensor or an array.
        threshold: In (0.5, 1]; 1.0 drops nothing, whatever skipped.
        keep_mask: (T,) bool, False = the frame skipped layers; None = none did.

    Returns:
        Log-posteriors (M, V), M <= T, of the kind that came, and the frame (M,) int64 that each
        row starts at.

    Example:
        >>> p = np.array([[0.1, 0.9], [0.99, 0.01], [0.99, 0.01], [0.1, 0.9]])
        >>> rows, first = drop_frames(np.log(p), threshold=0.9)
        >>> first.tolist(), round(float(np.exp(rows[1, 0])), 4)
        ([0, 1, 3], 0.9801)
    """
    if log_probs.ndim != 2 or (keep_mask is not None and keep_mask.shape != log_probs.shape[:1]):
        raise ValueError(
            f"log_probs must be (T, V) and keep_mask (T,), but got {tuple(log_probs.shape)} and "
            f"{None if keep_mask is None else tuple(keep_mask.shape)}"
        )
    frames = np.arange(len(log_probs))
    if threshold >= DROP_NOTHING:
        return log_probs, frames
    rows = to_numpy(log_probs)
    blank = rows[:, BLANK]
    dropped = np.exp(blank) > threshold
    if keep_mask is not None:
        dropped |= ~to_numpy(keep_mask) & (rows.argmax(-1) == BLANK)
    starts = ~dropped
    starts[1:] |= starts[:-1].copy()  # the first of a run
    starts[:1] = True
    row = starts.cumsum() - 1
    first = frames[starts]
    out = rows[first]
    merged = dropped[first]
    runs = np.zeros(len(first))
    np.add.at(runs, row, blank.astype(np.float64))
    out[merged] = LOG_ZERO
    out[merged, BLANK] = runs[merged]
    return (out if rows is log_probs else log_probs.new_tensor(out)), first
