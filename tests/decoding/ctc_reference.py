"""Plain references for the decoders: every path, and prefix beam search with dictionaries."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np


def collapse(path):
    return tuple(k for k, _ in itertools.groupby(path) if k != 0)


def all_sequences(log_probs):
    """Log-probability of every label sequence, over all V**T paths."""
    total = defaultdict(float)
    num_frames, vocab = log_probs.shape
    for path in itertools.product(range(vocab), repeat=num_frames):
        total[collapse(path)] += math.exp(sum(log_probs[t, k] for t, k in enumerate(path)))
    return {y: math.log(p) for y, p in total.items() if p > 0}


def prefix_beam(log_probs, beam_size):
    """Algorithm 1 of Hannun et al. without a language model, on probabilities."""
    beam = {(): (1.0, 0.0)}
    for row in np.exp(log_probs):
        new = defaultdict(lambda: [0.0, 0.0])
        for prefix, (blank, label) in beam.items():
            new[prefix][0] += (blank + label) * row[0]
            if prefix:
                new[prefix][1] += label * row[prefix[-1]]
            for k in range(1, len(row)):
                same = prefix and prefix[-1] == k
                new[(*prefix, k)][1] += (blank if same else blank + label) * row[k]
        best = sorted(new.items(), key=lambda item: -sum(item[1]))[:beam_size]
        beam = {prefix: tuple(mass) for prefix, mass in best}
    return {prefix: math.log(sum(mass)) for prefix, mass in beam.items() if sum(mass) > 0}
