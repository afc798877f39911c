import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_layerskip.decoding import GreedyDecoder
from espnet_layerskip.decoding.frame_drop import (
    check_drop_threshold,
    clean_log_probs,
    drop_frames,
)
from tests.decoding.ctc_reference import all_sequences

pytestmark = pytest.mark.numerics


def random_posteriors(seed, num_frames, vocab, sharpness=4.0, blank_bias=3.0):
    """Peaked posteriors in which blank often wins, as a trained CTC head gives them."""
    gen = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(num_frames, vocab, generator=gen, dtype=torch.float64)
    logits[:, 0] += blank_bias
    return logits.log_softmax(-1)


@given(st.integers(0, 10**6), st.integers(0, 4), st.sampled_from([0.6, 0.9, 0.99]))
def test_each_sequence_keeps_the_mass_of_its_paths_through_blank(seed, num_frames, threshold):
    log_probs = random_posteriors(seed, num_frames, 3)
    rows, _ = drop_frames(log_probs, threshold)
    sure = log_probs[:, 0].exp() > threshold
    masked = log_probs.clone()
    masked[sure, 1:] = -torch.inf
    expected, got = all_sequences(masked.numpy()), all_sequences(rows.numpy())
    whole = all_sequences(log_probs.numpy())
    allowed = float((1 - log_probs[sure, 0].exp()).sum())
    for y, score in whole.items():
        assert math.exp(got.get(y, -np.inf)) == pytest.approx(math.exp(expected.get(y, -np.inf)))
        lost = math.exp(score) - math.exp(got.get(y, -np.inf))
        assert -1e-12 <= lost <= allowed + 1e-12


@given(st.integers(0, 10**6), st.integers(0, 30), st.sampled_from([0.51, 0.9, 1.0]))
def test_the_best_path_and_its_score_stay(seed, num_frames, threshold):
    log_probs = random_posteriors(seed, num_frames, 4)
    keep = torch.rand(num_frames, generator=torch.Generator().manual_seed(seed)) < 0.7
    rows, first = drop_frames(log_probs, threshold, keep)
    [[whole]] = GreedyDecoder()(log_probs[None], torch.tensor([num_frames]))
    [[short]] = GreedyDecoder()(rows[None], torch.tensor([len(rows)]))
    assert short.token_int == whole.token_int
    assert short.score == pytest.approx(whole.score)
    assert [int(first[i]) for i in short.token_frames] == whole.token_frames
    assert len(rows) <= num_frames


def test_a_dropped_blank_still_separates_equal_labels():
    log_probs = torch.tensor([[0.01, 0.99], [0.999, 0.001], [0.999, 0.001], [0.01, 0.99]]).log()
    rows, first = drop_frames(log_probs, 0.9)
    assert first.tolist() == [0, 1, 3]
    [[hyp]] = GreedyDecoder()(rows[None], torch.tensor([3]))
    assert hyp.token_int == [1, 1]
    # negative control: without the row that stands for the run, "aa" becomes "a"
    [[lost]] = GreedyDecoder()(rows[[0, 2]][None], torch.tensor([2]))
    assert lost.token_int == [1]


def test_frames_that_skipped_are_dropped_only_where_blank_is_best():
    log_probs = torch.tensor([[0.6, 0.4], [0.4, 0.6], [0.6, 0.4]]).log()
    skipped = torch.tensor([False, False, True])
    assert drop_frames(log_probs, 0.9, skipped)[0].exp()[0].tolist() == pytest.approx([0.6, 0.0])
    assert len(drop_frames(log_probs, 0.9, skipped)[0]) == 3
    assert drop_frames(log_probs, 1.0, skipped)[0] is log_probs  # off: whatever skipped


def test_all_blank_and_no_frame():
    log_probs = torch.tensor([[1.0, 0.0]]).log().repeat(5, 1)
    rows, first = drop_frames(log_probs, 0.9)
    assert rows[:, 0].tolist() == [0.0]
    assert first.tolist() == [0]
    assert drop_frames(torch.zeros(0, 3), 0.9)[0].shape == (0, 3)


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_a_frame_of_zeros_is_blank_and_what_is_no_number_is_refused(kind):
    log_probs = kind([[-math.inf, -math.inf], [-math.inf, -1.0]])
    assert clean_log_probs(log_probs).tolist() == [[0.0, -math.inf], [-math.inf, -1.0]]
    assert log_probs[0, 0] == -math.inf  # the caller's stay
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"1 of 2 frames are not finite, .* is frame 1:"):
            clean_log_probs(kind([[0.0, -1.0], [-2.0, value]]))


@pytest.mark.parametrize("value", [0.5, 0.0, 1.1, "often"])
def test_thresholds_out_of_range(value):
    with pytest.raises(ValueError, match="drop_threshold must be 'off' or in"):
        check_drop_threshold(value)


def test_thresholds():
    assert [check_drop_threshold(v) for v in ("off", False, "0.9", 1)] == [1.0, 1.0, 0.9, 1.0]
    with pytest.raises(ValueError, match=r"\(T, V\) and keep_mask \(T,\).*\(4,\)"):
        drop_frames(torch.zeros(3, 2), 0.9, torch.ones(4, dtype=torch.bool))
