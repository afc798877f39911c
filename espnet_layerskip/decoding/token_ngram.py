"""Scores of prefixes by an n-gram over the ASR model's own tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from espnet_layerskip.decoding.ngram import END, ArpaNGram, NGram
from espnet_layerskip.method.settings import BLANK

CACHED_STATES = 20_000


class TokenNGram:
    """An n-gram over tokens as a :class:`~.beam.PrefixScorer`.

    As in ESPnet's own n-gram scorer the weight multiplies log10 p.

    Args:
        ngram: The model; its words are tokens.
        token_list: Tokens by id.
        weight: Of log10 p.
        penalty: Added for each token (ESPnet's name of its length bonus).

    Raises:
        ValueError: If the model knows none of the tokens: it is one over words.
    """

    def __init__(
        self, ngram: NGram, token_list: Sequence[str], weight: float = 0.9, penalty: float = 0.0
    ):
        self.ngram = ngram
        self.token_list = list(token_list)
        self.weight = weight
        self.penalty = penalty
        self._cache: dict[Any, np.ndarray] = {}
        labels = self.token_list[BLANK + 1 :]
        if isinstance(ngram, ArpaNGram) and sum(t in ngram.unigrams for t in labels) < 0.5 * len(
            labels
        ):
            raise ValueError(
                "the n-gram knows less than half of the model's tokens, so it is one over words: "
                "decode with a lexicon, or train it on tokens (stage 9, --ngram_unit token)"
            )

    def start(self) -> Any:
        """Return the state of the empty prefix."""
        return self.ngram.start()

    def scores(self, state: Any) -> np.ndarray:
        """Return what each next token adds (V,)."""
        cached = self._cache.get(state)
        if cached is None:
            if len(self._cache) >= CACHED_STATES:
                self._cache.clear()
            cached = self.weight * self.ngram.vector(state, self.token_list) + self.penalty
            self._cache[state] = cached
        return cached

    def advance(self, state: Any, token: int) -> Any:
        """Return the state after one more token."""
        return self.ngram.score(state, self.token_list[token])[1]

    def final(self, state: Any) -> float:
        """Return what ending here adds: p(</s>)."""
        return self.weight * self.ngram.score(state, END)[0]
