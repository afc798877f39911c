"""ESPnet's beam search with the interface and the frame dropping of the other decoders."""

from __future__ import annotations

from typing import Any

import torch

from espnet_layerskip.decoding.align import align
from espnet_layerskip.decoding.frame_drop import clean_log_probs, drop_frames
from espnet_layerskip.decoding.hypothesis import Hypothesis
from espnet_layerskip.inference.posteriors import kept_frames

# It takes audio as a whole, and its time grows with the square: seconds up to which it is tried.
LONGEST = 120.0
TOO_LONG = (
    "is too long for ESPnet's search, which takes audio as a whole: use decoder_type greedy, "
    "prefix_beam or ngram, cut it, or set segment_size to off to search it all the same"
)


class DroppingCTC:
    """Stands in for the CTC head in ESPnet's prefix scorer: drops its blank frames.

    The attention decoder still sees every frame.

    Args:
        model: ESPnet ASR model.
        threshold: See :func:`~.frame_drop.drop_frames`.
    """

    def __init__(self, model: Any, threshold: float):
        self.model = model
        self.threshold = threshold
        self.num_frames = 0  # left of the utterance

    def log_softmax(self, hs_pad: torch.Tensor) -> torch.Tensor:
        """Return log-posteriors (1, M, V) of hidden states (1, T, D), M <= T."""
        log_probs = clean_log_probs(self.model.ctc.log_softmax(hs_pad))
        kept = kept_frames(self.model)
        keep_mask = None if kept is None else kept[0]
        left = drop_frames(log_probs[0], self.threshold, keep_mask)[0]
        self.num_frames = len(left)
        return left[None]


def drop_in_search(beam_search: Any, model: Any, threshold: float) -> None:
    """Let the CTC scorer of ESPnet's BeamSearch drop blank frames.

    The search ends one step after hypotheses of as many tokens as frames are left: longer ones are
    impossible, and ESPnet's scorer fails on them with an index that is out of range.

    Raises:
        ValueError: If the search has no CTC prefix scorer.
    """
    scorer: Any = getattr(beam_search, "part_scorers", {}).get("ctc")
    if not hasattr(scorer, "ctc"):
        raise ValueError(
            "drop_threshold needs ESPnet's label-synchronous search with a CTC scorer: leave it "
            "off with ctc_weight 0, time_sync and partial_ar"
        )
    scorer.ctc = ctc = DroppingCTC(model, threshold)
    post_process = beam_search.post_process

    def bounded(i: int, maxlen: int, *rest: Any) -> Any:
        return post_process(i, min(maxlen, ctc.num_frames + 1), *rest)

    beam_search.post_process = bounded


def as_hypothesis(found: Any, token_int: list[int], model: Any, enc: torch.Tensor) -> Hypothesis:
    """Return ESPnet's hypothesis as ours, with the frames of its best CTC path.

    Args:
        found: ESPnet's; its score is the weighted sum of its scorers.
        token_int: Its token ids.
        model: ESPnet ASR model; the CTC head must follow the batch that ``enc`` is of.
        enc: Encoder output (T, D).
    """
    starts: list[int] = []
    ends: list[int] = []
    if getattr(model, "ctc", None) is not None:
        starts, ends = align(clean_log_probs(model.ctc.log_softmax(enc[None])[0]), token_int)
    return Hypothesis(token_int, starts, ends, float(found.score))
