"""ESPnet's beam search with the interface and the frame dropping of the other decoders."""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch

from espnet_layerskip.decoding.align import align
from espnet_layerskip.decoding.frame_drop import DROP_NOTHING, clean_log_probs, drop_frames
from espnet_layerskip.decoding.hypothesis import Hypothesis
from espnet_layerskip.inference.posteriors import lock_of
from espnet_layerskip.method.ctc import head_argmax
from espnet_layerskip.method.frames import Encoded

logger = logging.getLogger(__name__)

# It takes audio as a whole, and its time grows with the square: seconds up to which it is tried.
LONGEST = 120.0
TOO_LONG = (
    "is too long for ESPnet's search, which takes audio as a whole: use decoder_type greedy, "
    "prefix_beam or ngram, cut it, or set segment_size to off to search it all the same"
)


class HeadOfCall:
    """Stands in for the CTC head in one search: knows what was skipped, drops blank frames.

    Args:
        ctc: The head.
        encoded: The utterances that are searched; with a threshold one (B = 1).
        threshold: See :func:`~.frame_drop.drop_frames`; 1.0 = drop nothing.
    """

    def __init__(self, ctc: Any, encoded: Encoded, threshold: float = DROP_NOTHING):
        self.num_frames = 0
        """Left of the longest utterance, once the search has asked."""
        self._ctc, self._encoded, self._threshold = ctc, encoded, threshold

    def log_softmax(self, hs_pad: torch.Tensor) -> torch.Tensor:
        """Return log-posteriors (B, M, V) of the utterances, M <= T."""
        log_probs = self._encoded.log_softmax(self._ctc)
        if self._threshold < DROP_NOTHING:
            keep = self._encoded.keep_mask
            keep_mask = None if keep is None else keep[0]
            left = drop_frames(clean_log_probs(log_probs)[0], self._threshold, keep_mask)[0]
            log_probs = left[None]
        self.num_frames = log_probs.size(1)
        return log_probs

    def softmax(self, hs_pad: torch.Tensor) -> torch.Tensor:
        """Return posteriors (B, M, V) of the utterances."""
        return self.log_softmax(hs_pad).exp()

    def argmax(self, hs_pad: torch.Tensor) -> torch.Tensor:
        """Return the most probable tokens (B, M) of the utterances."""
        return self.log_softmax(hs_pad).argmax(-1)


def check_search(beam_search: Any, dropping: bool) -> None:
    """See to it that ESPnet's search does not fail at its first step.

    That keeps ``beam_size`` of as many hypotheses as there are tokens: more are none.

    Raises:
        ValueError: If it is to drop blank frames and has no CTC prefix scorer.
    """
    beam = getattr(beam_search, "beam_size", 0)
    tokens = getattr(beam_search, "n_vocab", beam)
    if beam > tokens:
        logger.warning("beam_size %d is more than the %d tokens: it is %d", beam, tokens, tokens)
        beam_search.beam_size = tokens
    if dropping and not hasattr(getattr(beam_search, "part_scorers", {}).get("ctc"), "ctc"):
        raise ValueError(
            "drop_threshold needs ESPnet's label-synchronous search with a CTC scorer: leave it "
            "off with ctc_weight 0, time_sync and partial_ar"
        )


def search_of_call(beam_search: Any, ctc: Any, head: HeadOfCall, dropping: bool) -> Any:
    """Return a search for one call: ESPnet's, with another head, whose parameters are shared.

    A search that drops frames ends one step after hypotheses of as many tokens as frames are
    left: longer ones are impossible, and ESPnet's scorer fails on them with an index that is
    out of range.

    Args:
        beam_search: ESPnet's search; stays as it is.
        ctc: The head in it.
        head: The one to put in its place.
        dropping: True if ``head`` drops frames.
    """
    search = copy.copy(beam_search)
    scorers: dict[int, Any] = {}  # a scorer stands in several tables

    def replaced(value: Any) -> Any:
        if value is ctc:
            return head
        if getattr(value, "ctc", None) is ctc:
            scorer = scorers.setdefault(id(value), copy.copy(value))
            scorer.__dict__["ctc"] = head
            return scorer
        return value

    for name, value in vars(search).items():
        if isinstance(value, dict):
            search.__dict__[name] = {key: replaced(v) for key, v in value.items()}
        else:
            search.__dict__[name] = replaced(value)
    if dropping:
        post_process = search.post_process

        def bounded(i: int, maxlen: int, *rest: Any) -> Any:
            return post_process(i, min(maxlen, head.num_frames + 1), *rest)

        search.__dict__["post_process"] = bounded
    return search


def can_batch(speech2text: Any) -> bool:
    """Return whether the search takes several utterances at once: that of ESPnet 202611 can.

    With frames dropped, utterances are searched one at a time.
    """
    able = getattr(speech2text, "_can_batch_decode", None)  # not in 202511
    return able is not None and able() and not speech2text.drop_threshold < DROP_NOTHING


def search(
    speech2text: Any, encoded: Encoded, drop_threshold: float
) -> list[tuple[list[Hypothesis], dict[int, list[str]] | None]]:
    """Run ESPnet's search over a batch, on posteriors that know what was skipped.

    Args:
        speech2text: ESPnet's inference object, or ours; stays as it is.
        encoded: The utterances; several only where `can_batch`.
        drop_threshold: See :func:`~.frame_drop.drop_frames`; 1.0 = drop nothing.

    Returns:
        For each utterance the n-best hypotheses, and the tokens of intermediate CTC layers where
        there are any.
    """
    model = speech2text.asr_model
    ctc = getattr(model, "ctc", None)
    call = copy.copy(speech2text)  # ESPnet reads the search from its object
    if speech2text.beam_search is not None and ctc is not None:
        head = HeadOfCall(ctc, encoded, drop_threshold)
        dropping = drop_threshold < DROP_NOTHING
        call.beam_search = search_of_call(speech2text.beam_search, ctc, head, dropping)
    with lock_of(model):
        if len(encoded.lens) == 1:
            found = [call._decode_single_sample(encoded.out[0])]
        else:
            found = _search_batch(call, encoded)
    log_probs = None if ctc is None else encoded.log_softmax(ctc)
    tokens = _intermediate_tokens(model, encoded)
    out = []
    for i, (nbest, length) in enumerate(zip(found, encoded.lens.tolist(), strict=True)):
        probs = None if log_probs is None else clean_log_probs(log_probs[i, :length])
        # ESPnet returns its own hypotheses, with type checks; ours have the times
        out.append(([_ours(hyp, token_int, probs) for _, _, token_int, hyp in nbest], tokens[i]))
    return out


def _search_batch(call: Any, encoded: Encoded) -> list[Any]:
    """Return ESPnet's n-best lists of several utterances, found in one search."""
    decoder = getattr(call.beam_search.nn_dict, "decoder", None)
    for module in () if decoder is None else decoder.modules():
        if hasattr(module, "setup_step"):  # as ESPnet readies an S4Decoder
            module.setup_step()
    found = call.beam_search(
        x=encoded.out,
        x_lengths=encoded.lens,
        maxlenratio=call.maxlenratio,
        minlenratio=call.minlenratio,
    )
    return [call._hyps_to_results(hyps) for hyps in found]


def _intermediate_tokens(model: Any, encoded: Encoded) -> list[dict[int, list[str]] | None]:
    """Return what the CTC heads of intermediate layers say of each utterance, as ESPnet does."""
    if not encoded.intermediates:
        return [None] * len(encoded.lens)
    left_out = {model.blank_id, model.sos, model.eos}
    found: list[dict[int, list[str]] | None] = [{} for _ in encoded.lens]
    for layer_idx, states in encoded.intermediates:
        best = head_argmax(model.ctc, states, layer_idx, None)
        for path, length, tokens in zip(best, encoded.lens.tolist(), found, strict=True):
            ids = path[:length].unique_consecutive().tolist()
            assert tokens is not None
            tokens[layer_idx] = [model.token_list[i] for i in ids if i not in left_out]
    return found


def _ours(found: Any, token_int: list[int], log_probs: torch.Tensor | None) -> Hypothesis:
    """Return ESPnet's hypothesis as ours, with the frames of its best CTC path.

    Args:
        found: ESPnet's; its score is the weighted sum of its scorers.
        token_int: Its token ids.
        log_probs: (T, V) of the utterance; None = the model has no CTC head.
    """
    starts, ends = ([], []) if log_probs is None else align(log_probs, token_int)
    scores = {name: float(score) for name, score in getattr(found, "scores", {}).items()}
    yseq = [int(token) for token in found.yseq]
    return Hypothesis(token_int, starts, ends, float(found.score), scores, yseq)
