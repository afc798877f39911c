"""N-gram language models: ARPA files without any library, KenLM binaries with ``kenlm``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from espnet_layerskip.files import read_lines

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
UNKNOWN_LOG10 = -100.0  # as KenLM, for a model without <unk>
ZERO_LOG10 = -99.0  # as SRILM writes it; "-inf" would be NaN times a weight of 0
MOST_LOG10 = 0.01  # a probability is at most 1, rounding apart
_SPECIAL = {word.upper(): word for word in (START, END, UNKNOWN)}


class NGram(Protocol):
    """A back-off model over words (or over the tokens of an ASR model)."""

    def start(self) -> Any:
        """Return the state at the start of a sentence."""

    def score(self, state: Any, word: str) -> tuple[float, Any]:
        """Return log10 p(word | state), and the state after it."""

    def unigram(self, word: str) -> float:
        """Return log10 p(word), whatever was before."""

    def vector(self, state: Any, words: Sequence[str]) -> np.ndarray:
        """Return log10 p(word | state) of many words, float64."""


class ArpaNGram:
    """A model read from an ARPA file (plain or gzip) into dictionaries.

    A state is the longest tail of what was said that the model has as a context.

    Args:
        path: ARPA file.

    Raises:
        ValueError: If it is no ARPA file.
    """

    def __init__(self, path: str | Path):
        self.order = 0
        self.unigrams: dict[str, float] = {}
        self._backoff: dict[tuple[str, ...], float] = {}
        self._after: dict[tuple[str, ...], dict[str, float]] = {}
        self._ids: tuple[Sequence[str], dict[str, int]] = ((), {})
        for order, log_prob, ngram, backoff in read_arpa(Path(path)):
            self.order = max(self.order, order)
            self._after.setdefault(ngram[:-1], {})[ngram[-1]] = log_prob
            if backoff is not None:
                self._backoff[ngram] = backoff
        self.unigrams = self._after.get((), {})
        if not self.unigrams:
            raise ValueError(f"{path} has no 1-grams: an ARPA file is needed")
        self.unigrams.setdefault(UNKNOWN, UNKNOWN_LOG10)

    def start(self) -> tuple[str, ...]:
        """Return the state at the start of a sentence."""
        return self._known((START,))

    def score(self, state: tuple[str, ...], word: str) -> tuple[float, tuple[str, ...]]:
        """Return log10 p(word | state), and the state after it."""
        if word not in self.unigrams:
            word = UNKNOWN
        following = self._known((*state, word)[-(self.order - 1) :] if self.order > 1 else ())
        total = 0.0
        while word not in self._after.get(state, ()):
            total += self._backoff.get(state, 0.0)
            state = state[1:]
        return total + self._after[state][word], following

    def unigram(self, word: str) -> float:
        """Return log10 p(word), whatever was before."""
        return self.unigrams.get(word, self.unigrams[UNKNOWN])

    def vector(self, state: tuple[str, ...], words: Sequence[str]) -> np.ndarray:
        """Return log10 p(word | state) of many words, float64."""
        if self._ids[0] is not words:
            self._ids = words, {word: i for i, word in enumerate(words)}
        ids = self._ids[1]
        out = np.array([self.unigram(word) for word in words])
        for start in range(len(state) - 1, -1, -1):
            context = state[start:]
            out += self._backoff.get(context, 0.0)
            for word, log_prob in self._after.get(context, {}).items():
                if word in ids:
                    out[ids[word]] = log_prob
        return out

    def _known(self, context: tuple[str, ...]) -> tuple[str, ...]:
        while context and context not in self._after and not self._backoff.get(context):
            context = context[1:]
        return context


class KenLMNGram:
    """A model that the ``kenlm`` package reads (its binary formats, or a large ARPA file).

    Args:
        path: File of ``build_binary``.

    Raises:
        ValueError: If kenlm is not installed or cannot read the file.
    """

    def __init__(self, path: str | Path):
        try:
            import kenlm
        except ImportError as e:
            raise ValueError(
                f"{path} is no ARPA file, and a KenLM binary needs: pip install kenlm "
                "(or give the ARPA file that the binary was made from)"
            ) from e
        self._kenlm = kenlm
        try:
            self._model = kenlm.Model(str(path))
        except OSError as e:
            raise ValueError(f"{path} cannot be read by KenLM: {e}") from e

    def start(self) -> Any:
        """Return the state at the start of a sentence."""
        state = self._kenlm.State()
        self._model.BeginSentenceWrite(state)
        return state

    def score(self, state: Any, word: str) -> tuple[float, Any]:
        """Return log10 p(word | state), and the state after it."""
        following = self._kenlm.State()
        return self._model.BaseScore(state, word, following), following

    def unigram(self, word: str) -> float:
        """Return log10 p(word), whatever was before."""
        nothing = self._kenlm.State()
        self._model.NullContextWrite(nothing)
        return self.score(nothing, word)[0]

    def vector(self, state: Any, words: Sequence[str]) -> np.ndarray:
        """Return log10 p(word | state) of many words, float64."""
        out = self._kenlm.State()
        return np.array([self._model.BaseScore(state, word, out) for word in words])


def load_ngram(path: str | Path) -> NGram:
    """Read an ARPA file, plain or gzip, or a KenLM binary.

    Raises:
        ValueError: If the file does not exist or cannot be read.
    """
    if not Path(path).is_file():
        raise ValueError(f"no such n-gram file: {path}; stage 9 of the recipe makes one")
    with Path(path).open("rb") as f:
        binary = f.read(8).startswith(b"mmap lm")
    return KenLMNGram(path) if binary else ArpaNGram(path)


def read_arpa(path: Path | str) -> Iterator[tuple[int, float, tuple[str, ...], float | None]]:
    """Yield (order, log10 probability, n-gram, log10 back-off weight or None).

    Reads what KenLM, Kaldi, SRILM, IRSTLM and CMU's tools write: text before ``\\data\\``, a
    byte order mark, gzip, tabs or spaces between fields, ``<UNK>`` for ``<unk>``. Other white space
    of Unicode belongs to a word.

    Raises:
        ValueError: For a line that is not of the format, a file without ``\\data\\`` or
            ``\\end\\``, or other numbers of n-grams than its head says; names file and line.
    """
    order: int | None = None  # None: before \data\
    told, found = dict[int, int](), dict[int, int]()  # n-grams of each order
    for number, line in read_lines(path):
        fields = re.split(r"[ \t]+", line.strip(" \t"))
        if order is None:
            if fields in (["iARPA"], ["qARPA"]):
                raise ValueError(
                    f"{path}:{number}: IRSTLM's own format: convert it with compile-lm --text=yes"
                )
            order = 0 if fields[0] == "\\data\\" else None
        elif not order and (count := re.fullmatch(r"ngram\s*(\d+)\s*=\s*(\d+)", line.strip())):
            told[int(count[1])] = int(count[2])
        elif not fields[0] or (not order and fields[0].startswith("ngram")):
            continue
        elif fields[0] == "\\end\\":
            for n in sorted(told):
                if told[n] != found.get(n, 0):
                    raise ValueError(
                        f"{path}: its head says ngram {n}={told[n]}, but there are "
                        f"{found.get(n, 0)}: lines are missing or were added: make the file again"
                    )
            return
        elif heading := re.fullmatch(r"\\(\d+)-grams:", fields[0]):
            order = int(heading[1])
        else:
            try:
                if not order or len(fields) not in (order + 1, order + 2):
                    raise ValueError
                log_prob = float(fields[0])
                backoff = float(fields[-1]) if len(fields) == order + 2 else None
                if not log_prob < MOST_LOG10 or not log_prob + (backoff or 0.0) < math.inf:
                    raise ValueError
            except ValueError:
                message = f"{path}:{number}: not of the ARPA format: {line!r}"
                raise ValueError(message) from None
            found[order] = found.get(order, 0) + 1
            words = (_SPECIAL.get(word, word) for word in fields[1 : order + 1])
            yield order, max(log_prob, ZERO_LOG10), tuple(words), backoff
    missing = "\\data\\: it is no ARPA file" if order is None else "\\end\\: it is cut off"
    raise ValueError(f"{path} has no {missing}")
