import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_layerskip.decoding import GreedyDecoder, collapse

pytestmark = pytest.mark.numerics


def reference(path: list[int]) -> tuple[list[int], list[int]]:
    """Best-path decoding as one loop."""
    tokens, frames, previous = [], [], 0
    for t, label in enumerate(path):
        if label not in (previous, 0):
            tokens.append(label)
            frames.append(t)
        previous = label
    return tokens, frames


paths = st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=4)


@given(paths, st.integers(0, 3))
@settings(deadline=None)
def test_collapse_equals_the_loop_whatever_the_padding_holds(rows, padding):
    lens = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), max(1, *lens.tolist(), 1)), padding)
    for row, path in zip(ids, rows, strict=True):
        row[: len(path)] = torch.tensor(path, dtype=torch.long)
    assert collapse(ids, lens) == [reference(path) for path in rows]


def test_a_blank_keeps_a_repeated_token():
    ids = torch.tensor([[3, 3, 0, 3], [3, 3, 3, 3]])
    assert [tokens for tokens, _ in collapse(ids, torch.tensor([4, 4]))] == [[3, 3], [3]]


def test_score_is_the_log_probability_of_the_best_path():
    torch.manual_seed(0)
    log_probs = torch.randn(2, 6, 5).double().log_softmax(-1)
    lens = torch.tensor([6, 4])
    for row, n, [hyp] in zip(log_probs, lens, GreedyDecoder()(log_probs, lens), strict=True):
        assert hyp.score == pytest.approx(float(row[:n].max(-1).values.sum()), rel=1e-12)
        assert hyp.token_int == reference(row[:n].argmax(-1).tolist())[0]


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_frames_of_zeros_are_blank_and_nan_is_refused_where_it_is_no_padding(kind):
    zero = [-math.inf, -math.inf]
    log_probs = kind([[[-2.0, -0.1], zero, [-2.0, -0.1], [math.nan, 0.0]]])
    [[hyp]] = GreedyDecoder()(log_probs, kind([3]))
    assert (hyp.token_int, hyp.token_frames) == ([1, 1], [0, 2])
    assert hyp.score == pytest.approx(-0.2)
    with pytest.raises(ValueError, match=r"1 of 4 frames are not finite, .* is frame 3:"):
        GreedyDecoder()(log_probs, kind([4]))
    with pytest.raises(ValueError, match="frames are not finite"):
        GreedyDecoder().stream().accept(log_probs[0])


def test_no_frames():
    assert collapse(torch.zeros(1, 0, dtype=torch.long), torch.tensor([0])) == [([], [])]
    [[hyp]] = GreedyDecoder()(torch.zeros(1, 0, 4), torch.tensor([0]))
    assert hyp.token_int == []
    assert hyp.score == 0.0


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(B, T\).*got \(2,\)"):
        collapse(torch.zeros(2, dtype=torch.long), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match=r"\(B, T, V\).*got \(2, 3\)"):
        GreedyDecoder()(torch.zeros(2, 3), torch.tensor([1, 1]))


@given(st.lists(st.integers(0, 3), max_size=20), st.lists(st.integers(0, 8), max_size=5))
def test_parts_give_what_the_whole_gives(path, lengths):
    log_probs = torch.zeros(len(path), 4).log_softmax(-1)
    log_probs[range(len(path)), path] = -0.5
    stream = GreedyDecoder().stream()
    for part in log_probs.tensor_split(
        torch.tensor(lengths, dtype=torch.long).cumsum(0).clamp(max=len(path))
    ):
        stream.accept(part)
    [[expected]] = GreedyDecoder()(log_probs[None], torch.tensor([len(path)]))
    assert stream.finish() == [replace(expected, score=pytest.approx(expected.score))]
    assert GreedyDecoder().stream().finish()[0].token_int == []
