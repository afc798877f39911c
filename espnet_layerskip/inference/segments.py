"""Long audio in segments that overlap, and their CTC frames put together again.

A segment starts on the encoder's frame grid, so frame ``t`` of a segment that starts at frame
``s`` is frame ``s + t`` of the whole. Where two segments overlap both have scored the same
frames: the seam lies where their best paths agree, so no token is doubled or lost there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from espnet_layerskip.decoding.frame_drop import clean_log_probs
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.settings import BLANK

# In seconds, where none are given: longer segments cost more by the second (attention), shorter
# ones repeat more of the audio and show the encoder less of it.
SEGMENT_SIZE = 15.0
OVERLAP = 1.2
LONGEST = 86_400.0  # seconds of a segment: a day, no setting but a mistake
# Encoder frames: more than the subsampling leaves out at an end, and enough for its shortest input.
MIN_OVERLAP = 8


@dataclass(frozen=True)
class Posteriors:
    """What the CTC head says of the frames of one utterance, or of a part of it.

    Attributes:
        log_probs: (T, V), float, at full length; skipped frames with the gate's decision. This
            and the others are tensors or arrays.
        keep_mask: (T,) bool, False = the frame skipped at a gate; None = no gate decided.
        depth: (T,) int64, layers that each frame ran; None = all.
    """

    log_probs: Any
    keep_mask: Any = None
    depth: Any = None

    def __len__(self) -> int:
        """Return T."""
        return len(self.log_probs)

    def __getitem__(self, frames: slice) -> Posteriors:
        """Return some of the frames."""
        keep_mask = None if self.keep_mask is None else self.keep_mask[frames]
        depth = None if self.depth is None else self.depth[frames]
        return Posteriors(self.log_probs[frames], keep_mask, depth)

    def count(self, num_layers: int) -> SkipCount:
        """Return what was skipped of an encoder with so many layers."""
        if self.depth is None:
            return SkipCount(len(self), 0, len(self) * num_layers, len(self) * num_layers)
        return SkipCount.of(self.depth, num_layers)


@dataclass(frozen=True)
class Segmentation:
    """How long audio is cut, in samples of the model's rate.

    Attributes:
        size: Length of a segment; the last one may be shorter, but is longer than an overlap.
        hop: From the start of a segment to the start of the next; a multiple of ``frame``.
        frame: Length of an encoder frame.
    """

    size: int
    hop: int
    frame: int

    @property
    def longest_whole(self) -> int:
        """Audio of up to two segments is not cut."""
        return 2 * self.size

    def cut(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the segments of audio that comes in blocks; holds one of them at a time.

        Args:
            blocks: Samples (N_i,), one after the other; any lengths.

        Yields:
            Samples of a segment; at least one, which may be empty.
        """
        held = np.zeros(0, np.float32)
        for block in blocks:
            held = np.concatenate((held, block)) if held.size else np.asarray(block)
            while len(held) > self.size:
                yield held[: self.size]
                held = held[self.hop :]
        yield held

    def stitch(self, parts: Iterable[Posteriors]) -> Iterator[Posteriors]:
        """Yield the frames of the whole, once each and in order; holds two segments at a time.

        Args:
            parts: Posteriors of the segments that ``cut`` gave, in order.

        Raises:
            ValueError: If a segment has not the frames that the grid says.
        """
        hop, left, begin = self.hop // self.frame, None, 0
        for right in parts:
            if left is not None:
                if abs(len(left) - self.size // self.frame) >= MIN_OVERLAP:
                    raise ValueError(
                        f"a segment of {self.size} samples gave {len(left)} encoder frames, but "
                        f"frames of {self.frame} samples were expected: this encoder cannot be "
                        "used on segments, set segment_size to off"
                    )
                shared = len(left) - hop
                cut = seam(left.log_probs[hop:], right.log_probs[:shared])
                yield left[begin : hop + cut]
                begin = cut
            left = right
        if left is not None:
            yield left[begin:]


def make_segmentation(
    segment_size: float | str | None,
    hop_size: float | str | None,
    frame: int | None,
    sample_rate: int,
) -> Segmentation | None:
    """Check the options.

    Args:
        segment_size: Length of a segment in seconds; "off" = never cut; None = 15 s, where
            ``frame`` is known.
        hop_size: Seconds from the start of a segment to the start of the next, rounded down
            to whole frames; None = 1.2 s less than a segment, and at least half of it.
        frame: Samples of an encoder frame; None = not known.
        sample_rate: In Hz.

    Returns:
        None if nothing is to be cut.

    Raises:
        ValueError: For sizes that do not fit, or a size for a model whose frames are not known.

    Example:
        >>> make_segmentation("20", 18, frame=640, sample_rate=16000)
        Segmentation(size=320000, hop=288000, frame=640)
    """
    if segment_size == "off" or segment_size is False or (segment_size is None and frame is None):
        return None
    if frame is None:
        raise ValueError(
            "segment_size: the model's frontend or input layer does not say how many samples a "
            "frame has; set it to off"
        )
    size = SEGMENT_SIZE if segment_size is None else _seconds("segment_size", segment_size)
    least = MIN_OVERLAP * frame / sample_rate
    if hop_size is None:
        hop = size - min(size / 2, max(OVERLAP, least))
    else:
        hop = _seconds("hop_size", hop_size)
    plan = Segmentation(
        round(size * sample_rate), int(hop * sample_rate / frame + 1e-6) * frame, frame
    )
    if not plan.size / 2 - frame < plan.hop <= plan.size - MIN_OVERLAP * frame:
        raise ValueError(
            f"hop_size must be at least half of segment_size and at most {least:g} s less than it "
            f"(segments have to overlap), but got segment_size {size:g} s and hop_size {hop:g} s"
        )
    return plan


def _seconds(name: str, value: float | str) -> float:
    try:
        seconds = float(value) if value is not True else math.nan
    except ValueError:
        seconds = math.nan
    except OverflowError:
        seconds = math.inf
    if not 0.0 < seconds <= LONGEST:
        wanted = f"at most {LONGEST:g}" if seconds > LONGEST else "above 0"
        raise ValueError(f"{name} must be a number of seconds {wanted}, but got {value!r:.40}")
    return seconds


def seam(left: Any, right: Any) -> int:
    """Return the frame at which to go over from one segment to the next.

    Only the middle half of the overlap is looked at, so that each side has a quarter of it as
    context beyond the seam. There it lies in the longest run of frames on which both best
    paths agree: on a blank, and as near to the middle of the run as can be. Whatever cut
    within such a run is taken, the path is that of the left side up to its end and that of
    the right side from its start on. Without agreement it is the middle of the overlap.

    Args:
        left: Log-posteriors (S, V) of the overlap by the segment that ends there; a tensor or an
            array.
        right: By the one that starts there, (S, V).

    Returns:
        Number of frames, 0 to S, to take from ``left``.
    """
    num_frames = len(left)
    first, stop = num_frames // 4, num_frames - num_frames // 4
    path, other = (clean_log_probs(side[first:stop]).argmax(-1).tolist() for side in (left, right))
    runs = groupby(range(stop - first), key=lambda i: path[i] == other[i])
    agreed = [list(run) for same, run in runs if same]
    if not agreed:
        return num_frames // 2
    run = max(agreed, key=len)
    blanks = [i for i in run if path[i] == BLANK]
    return first + min(blanks or run, key=lambda i: abs(2 * i - run[0] - run[-1]))
