import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from espnet_layerskip.decoding.greedy import collapse
from espnet_layerskip.inference.segments import (
    Posteriors,
    Segmentation,
    make_segmentation,
    seam,
)
from tests.support.numerics import assert_same, largest

pytestmark = pytest.mark.numerics

FRAME = 4  # samples
VOCAB = 4

plans = st.tuples(st.integers(16, 40), st.integers(0, 8)).map(
    lambda a: Segmentation(a[0] * FRAME, (a[0] - min(a[1], a[0] // 2)) * FRAME, FRAME)
)


def in_blocks(x, seed):
    rng = np.random.default_rng(seed)
    places = np.sort(rng.integers(0, len(x) + 1, rng.integers(0, 6)))
    return np.split(x, places)


def posteriors(x, context):
    """Of a model that sees ``context`` frames to the left and right, and zeros beyond the end."""
    frames = torch.from_numpy(x[: len(x) // FRAME * FRAME].reshape(-1, FRAME)).double()
    padded = torch.nn.functional.pad(frames, (0, 0, context, context))
    weight = torch.randn(2 * context + 1, FRAME, VOCAB, generator=torch.Generator().manual_seed(1))
    logits = sum(padded[i : i + len(frames)] @ w for i, w in enumerate(weight.double()))
    return Posteriors(logits.log_softmax(-1), frames[:, 0] > 0)


def stitched(x, plan, context, seed=0):
    segments = list(plan.cut(in_blocks(x, seed)))
    parts = list(plan.stitch(posteriors(segment, context) for segment in segments))
    return Posteriors(
        torch.cat([p.log_probs for p in parts]), torch.cat([p.keep_mask for p in parts])
    )


def noise(num_samples, seed):
    return np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32)


@given(st.integers(0, 500), plans, st.integers(0, 10**6))
def test_segments_cover_the_audio_whatever_the_blocks(num_samples, plan, seed):
    x = noise(num_samples, seed)
    segments = list(plan.cut(in_blocks(x, seed)))
    for i, segment in enumerate(segments):
        start = i * plan.hop
        np.testing.assert_array_equal(segment, x[start : start + plan.size])
    assert (len(segments) - 1) * plan.hop + len(segments[-1]) == num_samples
    if len(segments) > 1:
        assert len(segments[-1]) > plan.size - plan.hop


def test_segments_come_while_the_audio_is_read():
    read = []

    def blocks():
        for i in range(100):
            read.append(i)
            yield np.zeros(10, np.float32)

    plan = Segmentation(size=40, hop=32, frame=4)
    assert len(next(plan.cut(blocks()))) == 40
    assert len(read) == 5


@given(st.integers(0, 600), st.integers(0, 10**6), st.integers(0, 3))
@settings(max_examples=40)
def test_stitched_is_the_whole_for_a_model_with_limited_context(num_samples, seed, context):
    """Exactly: no frame is lost, doubled or moved, and none was scored without its context."""
    plan = Segmentation(size=30 * FRAME, hop=18 * FRAME, frame=FRAME)  # overlap / 4 = 3 frames
    x = noise(num_samples, seed)
    whole, got = posteriors(x, context), stitched(x, plan, context, seed)
    assert len(got) == len(whole)
    assert_same(got.log_probs, whole.log_probs)
    assert torch.equal(got.keep_mask, whole.keep_mask)


def test_without_overlap_frames_at_the_seams_differ():
    """Negative control: the comparison above can fail."""
    plan = Segmentation(size=30 * FRAME, hop=30 * FRAME, frame=FRAME)
    x = noise(600, 0)
    whole, got = posteriors(x, 2), stitched(x, plan, 2)
    wrong = (got.log_probs - whole.log_probs).abs().amax(-1) > 1e-3 * largest(whole.log_probs)
    seams = [30 * i + offset for i in range(1, 5) for offset in (-2, -1, 0, 1)]
    assert wrong.nonzero().flatten().tolist() == seams


def sure(path):
    return torch.nn.functional.one_hot(torch.tensor(path), VOCAB).float().mul(9).log_softmax(-1)


def tokens(path):
    return collapse(torch.tensor([path]), torch.tensor([len(path)]))[0][0]


def test_a_token_that_one_side_has_later_is_neither_doubled_nor_lost():
    left = [0, 0, 0, 0, 2, 0, 0, 0, 1, 1, 0, 3, 0, 0, 0, 0]
    right = [0, 3, 0, 0, 2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 2, 0]
    cut = seam(sure(left), sure(right))
    assert 4 <= cut <= 12  # the middle half
    assert tokens(left[:cut] + right[cut:]) == [2, 1, 2]
    assert tokens(right[:9] + left[9:]) == [3, 2, 1, 3]  # negative controls: anywhere else
    assert tokens(left[:12] + right[12:]) == [2, 1, 3, 2]


@given(st.lists(st.integers(0, VOCAB - 1), max_size=24), st.integers(0, 10**6))
def test_the_seam_is_where_both_sides_agree(path, seed):
    rng = np.random.default_rng(seed)
    other = [int(rng.integers(VOCAB)) if rng.random() < 0.4 else label for label in path]
    cut = seam(sure(path) if path else torch.zeros(0, VOCAB), sure(other + [0] * (not path)))
    quarter = len(path) // 4
    assert quarter <= cut <= len(path) - quarter
    inside = range(quarter, len(path) - quarter)
    assume(any(path[i] == other[i] for i in inside))
    assert path[cut] == other[cut]
    if all(path[i] == other[i] for i in inside) and 0 in path[quarter : len(path) - quarter]:
        assert path[cut] == 0


def test_frames_of_zeros_are_blank_at_a_seam():
    left = sure([1, 2, 3, 1, 2, 3, 1, 2])
    left[3] = -torch.inf
    assert seam(left, sure([2, 3, 1, 0, 1, 1, 2, 1])) == 3


def test_no_agreement_is_the_middle():
    assert seam(sure([1] * 8), sure([2] * 8)) == 4
    assert seam(torch.zeros(0, 3), torch.zeros(0, 3)) == 0


def test_options():
    plan = make_segmentation(None, None, 640, 16000)
    assert plan == Segmentation(15 * 16000, 345 * 640, 640)  # 13.8 s
    assert plan.longest_whole == 30 * 16000
    assert make_segmentation("10", 8, 640, 16000) == Segmentation(160000, 128000, 640)
    assert make_segmentation(2, None, 640, 16000) == Segmentation(32000, 16000, 640)
    slow = make_segmentation(None, None, 8 * 512, 16000)  # frames of 0.256 s
    assert slow.size - slow.hop >= 8 * slow.frame
    assert make_segmentation("off", None, 640, 16000) is None
    assert make_segmentation(False, None, 640, 16000) is None  # what YAML makes of off
    assert make_segmentation(None, None, None, 16000) is None


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (("often", None), "segment_size must be a number of seconds above 0, but got 'often'"),
        ((0, None), "segment_size must be a number of seconds above 0, but got 0"),
        ((float("nan"), None), "segment_size must be a number of seconds above 0"),
        ((1e308, None), "segment_size must be .* seconds at most 86400, but got 1e.308"),
        ((10**400, None), "segment_size must be .* seconds at most 86400, but got 1000"),
        ((10, 1e308), "hop_size must be .* seconds at most 86400, but got 1e.308"),
        ((10, -1), "hop_size must be a number of seconds above 0, but got -1"),
        ((10, 4), "at least half of segment_size and at most 0.32 s less .* 10 s and hop_size 4 s"),
        ((10, 10), "segments have to overlap"),
        ((0.4, None), "hop_size must be at least half of segment_size"),
    ],
)
def test_wrong_options(sizes, message):
    with pytest.raises(ValueError, match=message):
        make_segmentation(*sizes, frame=640, sample_rate=16000)


def test_a_size_needs_a_frame():
    with pytest.raises(ValueError, match="does not say how many samples a frame has"):
        make_segmentation(10, None, None, 16000)


def test_another_frame_rate_than_expected_is_an_error():
    plan = Segmentation(size=30 * FRAME, hop=20 * FRAME, frame=FRAME)
    with pytest.raises(ValueError, match="gave 15 encoder frames, .* set segment_size to off"):
        list(plan.stitch([Posteriors(torch.zeros(15, 3))] * 2))
