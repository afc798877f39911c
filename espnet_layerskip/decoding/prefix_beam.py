"""CTC prefix beam search: frame by frame, with an optional score for each prefix."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from espnet_layerskip.ctc import BLANK
from espnet_layerskip.decoding.align import align
from espnet_layerskip.decoding.frame_drop import (
    OFF,
    check_drop_threshold,
    clean_log_probs,
    drop_frames,
)
from espnet_layerskip.decoding.hypothesis import Hypothesis

# With a scorer a token may win that the posteriors alone rank low.
TOKENS_WITH_SCORER = 64


class PrefixScorer(Protocol):
    """What a language model or a lexicon adds to the score of a token sequence."""

    def start(self) -> Any:
        """Return the state of the empty prefix."""

    def scores(self, state: Any) -> np.ndarray:
        """Return what each next token adds, (V,) float64; -inf forbids it."""

    def advance(self, state: Any, token: int) -> Any:
        """Return the state after one more token."""

    def final(self, state: Any) -> float:
        """Return what ending here adds; -inf forbids it."""


class PrefixBeamDecoder:
    """Prefix beam search (Hannun et al., arXiv:1408.2873, algorithm 1), in the log domain.

    The score of a token sequence y is log p(y | x), summed over its paths, plus what the
    scorer adds. Prefixes that meet again in the beam are one, so nothing competes with
    itself. Without a scorer only the ``beam_size + 1`` best tokens of a frame are tried: no
    other could enter the beam.

    Where a scorer forbids every sequence of the beam to end (a word is left unfinished at
    the end of the audio), those sequences are returned all the same.

    Args:
        beam_size: Number of prefixes kept after each frame.
        nbest: Number of hypotheses to return.
        scorer: Language model, lexicon or both.
        drop_threshold: See :func:`~.frame_drop.drop_frames`; 1.0 = the search sees every frame.

    Raises:
        ValueError: For a number out of range.
    """

    def __init__(
        self,
        beam_size: int = 10,
        nbest: int = 1,
        scorer: PrefixScorer | None = None,
        drop_threshold: float | str = OFF,
    ):
        if beam_size < 1 or nbest < 1:
            raise ValueError(
                f"beam_size and nbest must be at least 1, but got {beam_size} and {nbest}"
            )
        self.beam_size = beam_size
        self.nbest = nbest
        self.scorer = scorer
        self.drop_threshold = check_drop_threshold(drop_threshold)

    def __call__(
        self, log_probs: torch.Tensor, lens: torch.Tensor, keep_mask: torch.Tensor | None = None
    ) -> list[list[Hypothesis]]:
        """Decode a batch; see :class:`~.hypothesis.CTCDecoder`."""
        if log_probs.dim() != 3:
            raise ValueError(f"log_probs must be (B, T, V), but got {tuple(log_probs.shape)}")
        log_probs = clean_log_probs(log_probs).cpu()
        out = []
        for i, n in enumerate(lens.tolist()):
            mask = None if keep_mask is None else keep_mask[i, :n].cpu()
            rows, first = drop_frames(log_probs[i, :n], self.drop_threshold, mask)
            hyps = self._search(rows.double().numpy())[: self.nbest]
            out.append([with_times(hyp, rows, first, n) for hyp in hyps])
        return out

    def _search(self, log_probs: np.ndarray) -> list[Hypothesis]:
        """Search (M, V) float64; hypotheses without times, best first."""
        beam = _Beam(log_probs.shape[1], self.scorer)
        tokens = best_tokens(log_probs, self.beam_size, self.scorer is not None)
        label_free = log_probs[:, 1:].max(-1, initial=-np.inf) < math.log(np.finfo(float).tiny)
        for row, candidates, only_blank in zip(log_probs, tokens, label_free, strict=True):
            if only_blank:
                beam.add_blank(row[BLANK])
            else:
                beam.step(row, candidates, self.beam_size)
        return beam.hypotheses()


def best_tokens(log_probs: np.ndarray, beam_size: int, with_scorer: bool) -> np.ndarray:
    """Return the tokens to try at each frame (M, K), blank never among them."""
    num_labels = log_probs.shape[1] - 1
    k = max(beam_size + 1, TOKENS_WITH_SCORER if with_scorer else 0)
    if k >= num_labels:
        return np.broadcast_to(np.arange(1, num_labels + 1), (len(log_probs), num_labels))
    return np.argpartition(log_probs[:, 1:], num_labels - k, axis=1)[:, num_labels - k :] + 1


def with_times(hyp: Hypothesis, rows: torch.Tensor, first: torch.Tensor, n: int) -> Hypothesis:
    """Fill in the frames of a hypothesis.

    Args:
        hyp: With token_int.
        rows: Log-posteriors (M, V) that :func:`drop_frames` left.
        first: Frame (M,) that each row starts at.
        n: Number of frames before the dropping.
    """
    starts, ends = align(rows, hyp.token_int)
    bounds = [*first.tolist(), n]
    return replace(
        hyp, token_frames=[bounds[i] for i in starts], token_ends=[bounds[i] for i in ends]
    )


class _Beam:
    """The prefixes of the beam and the tree that they are nodes of.

    Node 0 is the empty prefix. For each prefix of the beam: its node, the parent of that
    node, its last token, the log mass of its paths that end in blank and in that token.
    """

    def __init__(self, vocab_size: int, scorer: PrefixScorer | None):
        self.vocab_size = vocab_size
        self.scorer = scorer
        self.parents = [-1]
        self.tokens = [BLANK]
        self.added = [0.0]  # by the scorer, up to each node
        self.states = [scorer.start() if scorer else None]
        self.children: dict[int, int] = {}  # parent * vocab_size + token -> node
        self.nodes = np.zeros(1, dtype=np.int64)
        self.parent = np.full(1, -1)
        self.last = np.full(1, BLANK)
        self.blank = np.zeros(1)
        self.label = np.full(1, -np.inf)

    def add_blank(self, log_prob: float) -> None:
        """Take a frame that is blank for sure."""
        self.blank = np.logaddexp(self.blank, self.label) + log_prob
        self.label = np.full(len(self.blank), -np.inf)

    def step(self, row: np.ndarray, candidates: np.ndarray, beam_size: int) -> None:
        """Take a frame (V,): extend by ``candidates`` (K,) and keep the best prefixes."""
        total = np.logaddexp(self.blank, self.label)
        # the same prefix: a blank, or its last token once more
        blank = total + row[BLANK]
        label = self.label + row[self.last]
        # one token more; after the same token only from the paths that end in blank
        same = self.last[:, None] == candidates
        longer = np.where(same, self.blank[:, None], total[:, None]) + row[candidates]
        # one token more, where that prefix is in the beam
        j, i = (self.parent[:, None] == self.nodes).nonzero()
        if len(j):
            last = self.last[j]
            base = np.where(last == self.last[i], self.blank[i], total[i])
            label[j] = np.logaddexp(label[j], base + row[last])
            hit, column = (last[:, None] == candidates).nonzero()
            longer[i[hit], column] = -np.inf
        rank_same = np.logaddexp(blank, label)
        rank_longer = longer
        if self.scorer is not None:
            added = np.array([self.added[node] for node in self.nodes])
            rank_same = rank_same + added
            extra = np.stack([self.scorer.scores(self.states[n])[candidates] for n in self.nodes])
            rank_longer = longer + added[:, None] + extra
        rank = np.concatenate((rank_same, rank_longer.ravel()))
        if len(rank) > beam_size:
            best = np.argpartition(rank, len(rank) - beam_size)[len(rank) - beam_size :]
        else:
            best = np.arange(len(rank))
        best = best[rank[best] > -np.inf]
        if not len(best):  # the frame contradicts every prefix: it says nothing
            return
        old = best[best < len(total)]
        parent, column = np.divmod(best[best >= len(total)] - len(total), len(candidates))
        token = candidates[column]
        mass = longer[parent, column]
        new = [
            self._child(n, k)
            for n, k in zip(self.nodes[parent].tolist(), token.tolist(), strict=True)
        ]
        self.parent = np.concatenate((self.parent[old], self.nodes[parent]))
        self.nodes = np.concatenate((self.nodes[old], np.array(new, dtype=np.int64)))
        self.last = np.concatenate((self.last[old], token))
        self.blank = np.concatenate((blank[old], np.full(len(new), -np.inf)))
        self.label = np.concatenate((label[old], mass))

    def _child(self, node: int, token: int) -> int:
        key = node * self.vocab_size + token
        child = self.children.get(key)
        if child is None:
            child = self.children[key] = len(self.parents)
            self.parents.append(node)
            self.tokens.append(token)
            if self.scorer is not None:
                state = self.states[node]
                self.added.append(self.added[node] + float(self.scorer.scores(state)[token]))
                self.states.append(self.scorer.advance(state, token))
        return child

    def hypotheses(self) -> list[Hypothesis]:
        """Return the prefixes of the beam, best first."""
        totals = np.logaddexp(self.blank, self.label).tolist()
        scored = []
        for node, score in zip(self.nodes.tolist(), totals, strict=True):
            final = 0.0
            if self.scorer is not None:
                score += self.added[node]
                final = self.scorer.final(self.states[node])
            scored.append((score + final, score, self._prefix(node)))
        if all(full == -math.inf for full, _, _ in scored):
            scored = [(score, score, prefix) for _, score, prefix in scored]
        scored.sort(key=lambda item: (-item[0], item[2]))
        return [Hypothesis(prefix, score=full) for full, _, prefix in scored if full > -math.inf]

    def _prefix(self, node: int) -> list[int]:
        out = []
        while node:
            out.append(self.tokens[node])
            node = self.parents[node]
        return out[::-1]
