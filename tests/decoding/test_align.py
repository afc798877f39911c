import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchaudio.functional import forced_align

from espnet_layerskip.decoding.align import align, best_path

pytestmark = pytest.mark.numerics


@given(
    st.integers(0, 10**6),
    st.integers(1, 25),
    st.lists(st.integers(1, 4), min_size=1, max_size=8),
    st.booleans(),
)
def test_the_path_is_that_of_torchaudio(seed, num_frames, tokens, as_tensor):
    gen = torch.Generator().manual_seed(seed)
    log_probs = (3.0 * torch.randn(num_frames, 5, generator=gen)).log_softmax(-1)
    needed = len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens))
    starts, ends = align(log_probs if as_tensor else log_probs.numpy(), tokens)
    if needed > num_frames:
        assert starts == ends == []
        return
    path, _ = forced_align(log_probs[None], torch.tensor([tokens]))
    assert best_path(log_probs.numpy(), tokens).tolist() == path[0].tolist()
    labels = [int(path[0, frame]) for frame in starts]
    assert labels == tokens
    for a, b, k in zip(starts, ends, tokens, strict=True):
        assert set(path[0, a:b].tolist()) == {k}


def test_tokens_that_no_path_gives():
    log_probs = np.log(np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]) + 1e-300)
    assert align(log_probs, []) == ([], [])
    assert align(log_probs, [1, 1]) == ([], [])
    assert align(np.where(log_probs < -600, -np.inf, log_probs), [2]) == ([], [])
