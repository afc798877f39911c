"""The prefixes that a CTC prefix beam search keeps, and the step from frame to frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from espnet_layerskip.decoding.hypothesis import Hypothesis
from espnet_layerskip.method.settings import BLANK


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


class Beam:
    """The prefixes of the beam and the tree that they are nodes of.

    Node 0 is the empty prefix, or the one that was settled. For each prefix of the beam: its
    node, the parent of that node, its last token, the log mass of its paths that end in blank
    and in that token.
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

    def settle(self, tokens: Sequence[int]) -> None:
        """Decide for a beginning: drop prefixes without it, and take it off the others.

        Args:
            tokens: What some prefix of the beam begins with.
        """
        root = 0
        for token in tokens:
            root = self.children[root * self.vocab_size + token]
        kept = {root}
        begins = np.array([self._keep(node, kept) for node in self.nodes.tolist()])
        old = sorted(kept)  # parents come before their children: the root is the first
        new = {node: i for i, node in enumerate(old)}
        self.parents = [new.get(self.parents[node], -1) for node in old]
        self.tokens = [self.tokens[node] for node in old]
        if self.scorer is not None:
            self.added = [self.added[node] for node in old]
            self.states = [self.states[node] for node in old]
        self.children = {
            parent * self.vocab_size + token: i
            for i, (parent, token) in enumerate(zip(self.parents, self.tokens, strict=True))
            if i
        }
        self.nodes = np.array([new[node] for node in self.nodes[begins].tolist()])
        self.parent = np.array([new.get(node, -1) for node in self.parent[begins].tolist()])
        self.last, self.blank, self.label = (
            self.last[begins],
            self.blank[begins],
            self.label[begins],
        )

    def _keep(self, node: int, kept: set[int]) -> bool:
        """Add a node and those above it up to one that is kept; False if there is none."""
        path = []
        while node not in kept:
            path.append(node)
            node = self.parents[node]
            if node < 0:
                return False
        kept.update(path)
        return True

    def _prefix(self, node: int) -> list[int]:
        out = []
        while node:
            out.append(self.tokens[node])
            node = self.parents[node]
        return out[::-1]
