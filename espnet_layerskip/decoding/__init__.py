"""Decoders over CTC posteriors. One interface: :class:`~.hypothesis.CTCDecoder`."""

from espnet_layerskip.decoding.greedy import GreedyDecoder, collapse
from espnet_layerskip.decoding.hypothesis import CTCDecoder, Hypothesis

__all__ = ["CTCDecoder", "GreedyDecoder", "Hypothesis", "collapse"]
