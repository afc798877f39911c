"""Decoding to the words of a lexicon, with an n-gram over words or without."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from espnet_layerskip.decoding.ngram import END, ArpaNGram, NGram
from espnet_layerskip.decoding.token_ngram import CACHED_STATES
from espnet_layerskip.files import read_rows
from espnet_layerskip.method.settings import BLANK

SPACE = "<space>"
Spellings = Mapping[str, Sequence[Sequence[int]]]


def read_lexicon(
    path: str | Path, token_list: Sequence[str], spell: Callable[[str], Sequence[str]]
) -> dict[str, list[list[int]]]:
    """Read lines ``WORD TOKEN TOKEN ...``, or only ``WORD`` for the tokenizer's spelling.

    Args:
        path: File; a word may have several lines.
        token_list: Tokens by id.
        spell: Gives the tokens of a word.

    Returns:
        Token ids of each spelling, by word.

    Raises:
        ValueError: For a token that the model does not have, or if there is no word; the message
            names file and line.
    """
    never = (token_list[BLANK], "<sos/eos>")  # a search gives neither
    ids = {token: i for i, token in enumerate(token_list) if token not in never}
    lexicon: dict[str, list[list[int]]] = {}
    for number, word, spelling in read_rows(path):
        tokens = re.split(r"[ \t]+", spelling) if spelling else list(spell(word))
        unknown = [token for token in tokens if token not in ids]
        if unknown or not tokens:
            raise ValueError(
                f"{path}:{number}: the model has no token {' '.join(unknown)} that a word can have"
            )
        lexicon.setdefault(word, []).append([ids[token] for token in tokens])
    if not lexicon:
        raise ValueError(f"{path} holds no word")
    return lexicon


class _Node:
    """A node of the tree of spellings."""

    def __init__(self) -> None:
        self.children: dict[int, _Node] = {}
        self.word: str | None = None
        self.ahead = -np.inf  # the best unigram score of the words below


class LexiconScorer:
    """A lexicon, and an n-gram over its words, as a :class:`~.beam.PrefixScorer`.

    Within a word each token adds the gain in the best unigram score that can still be
    reached (the look-ahead); when the word is complete its true score takes the place of
    that. So the sum over a transcript is the n-gram's, and words that the n-gram does not
    like fall behind early. Words are separated by ``<space>`` where the model has that
    token; otherwise (SentencePiece) a word is complete where the next one starts.

    Args:
        lexicon: Token ids of each spelling, by word.
        token_list: Tokens by id.
        ngram: N-gram over words, or None.
        weight: Of log10 p, as in :class:`~.token_ngram.TokenNGram`.
        penalty: Added for each word.

    Raises:
        ValueError: If two words are spelled alike, if without ``<space>`` a token both
            starts words and goes on with words, so that they cannot be told apart, or if the
            n-gram knows none of the words.
    """

    def __init__(
        self,
        lexicon: Spellings,
        token_list: Sequence[str],
        ngram: NGram | None = None,
        weight: float = 0.9,
        penalty: float = 0.0,
    ):
        self.ngram = ngram
        self.weight = weight
        self.penalty = penalty
        self.vocab_size = len(token_list)
        self.space = list(token_list).index(SPACE) if SPACE in token_list else None
        self.root = _Node()
        self._cache: dict[Any, np.ndarray] = {}
        if isinstance(ngram, ArpaNGram) and not any(word in ngram.unigrams for word in lexicon):
            raise ValueError(
                f"the n-gram knows none of the lexicon's words ({next(iter(lexicon))}, ...): are "
                f"they written alike? It has {', '.join(list(ngram.unigrams)[:5])}, ..."
            )
        for word, spellings in lexicon.items():
            unigram = 0.0 if ngram is None else weight * ngram.unigram(word)
            for tokens in spellings:
                self._insert(word, tokens, unigram)
        self.root.ahead = 0.0
        if self.space is None:
            self._check_starts(lexicon)

    def start(self) -> Any:
        """Return the state of the empty prefix."""
        return self.root, None if self.ngram is None else self.ngram.start()

    def scores(self, state: Any) -> np.ndarray:
        """Return what each next token adds (V,); -inf where no word goes on with it."""
        cached = self._cache.get(state)
        if cached is not None:
            return cached
        node, context = state
        out = np.full(self.vocab_size, -np.inf)
        for token, child in node.children.items():
            out[token] = child.ahead - node.ahead
        if node.word is not None:
            complete = self._word(node, context)[0]
            if self.space is not None:
                out[self.space] = complete
            else:
                for token, child in self.root.children.items():
                    out[token] = complete + child.ahead
        if len(self._cache) >= CACHED_STATES:
            self._cache.clear()
        self._cache[state] = out
        return out

    def advance(self, state: Any, token: int) -> Any:
        """Return the state after one more token."""
        node, context = state
        if token in node.children:
            return node.children[token], context
        context = self._word(node, context)[1]
        return (self.root if token == self.space else self.root.children[token]), context

    def final(self, state: Any) -> float:
        """Return what ending here adds; -inf within a word."""
        node, context = state
        total = 0.0
        if node.word is not None:
            total, context = self._word(node, context)
        elif node is not self.root:
            return -np.inf
        if self.ngram is None:
            return total
        return total + self.weight * self.ngram.score(context, END)[0]

    def _word(self, node: _Node, context: Any) -> tuple[float, Any]:
        """Return what completing the word of a node adds, and the n-gram's state after it."""
        if self.ngram is None:
            return self.penalty - node.ahead, None
        assert node.word is not None
        log10, following = self.ngram.score(context, node.word)
        return self.weight * log10 + self.penalty - node.ahead, following

    def _insert(self, word: str, tokens: Sequence[int], unigram: float) -> None:
        node = self.root
        for token in tokens:
            node = node.children.setdefault(token, _Node())
            node.ahead = max(node.ahead, unigram)
        if node.word not in (None, word):
            raise ValueError(f"lexicon: {node.word} and {word} are spelled alike: keep one of them")
        node.word = word

    def _check_starts(self, lexicon: Spellings) -> None:
        inner = {t for spellings in lexicon.values() for tokens in spellings for t in tokens[1:]}
        if both := inner & set(self.root.children):
            raise ValueError(
                f"lexicon: without {SPACE} tokens {sorted(both)[:5]} cannot both start words and "
                "go on with words: spell the words with the model's own tokenizer"
            )
