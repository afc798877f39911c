"""Decoders over CTC posteriors. One interface: :class:`~.hypothesis.CTCDecoder`."""

from espnet_layerskip.decoding.beam import PrefixScorer
from espnet_layerskip.decoding.greedy import GreedyDecoder, collapse
from espnet_layerskip.decoding.hypothesis import CTCDecoder, Hypothesis, Word
from espnet_layerskip.decoding.make_decoder import make_decoder
from espnet_layerskip.decoding.prefix_beam import PrefixBeamDecoder

__all__ = [
    "CTCDecoder",
    "GreedyDecoder",
    "Hypothesis",
    "PrefixBeamDecoder",
    "PrefixScorer",
    "Word",
    "collapse",
    "make_decoder",
]
