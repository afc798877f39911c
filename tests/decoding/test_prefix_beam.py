import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_layerskip.decoding import PrefixBeamDecoder
from espnet_layerskip.decoding.frame_drop import drop_frames
from tests.decoding.ctc_reference import all_sequences, prefix_beam

pytestmark = pytest.mark.numerics


def posteriors(seed, num_frames, vocab, sharpness=2.0):
    gen = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(num_frames, vocab, generator=gen).double()).log_softmax(-1)


def decode(log_probs, **options):
    [hyps] = PrefixBeamDecoder(**options)(log_probs[None], torch.tensor([len(log_probs)]))
    return {tuple(h.token_int): h.score for h in hyps}


@given(st.integers(0, 10**6), st.integers(0, 4), st.sampled_from([2, 3]))
def test_a_wide_beam_gives_the_posterior_of_every_sequence(seed, num_frames, vocab):
    log_probs = posteriors(seed, num_frames, vocab)
    got = decode(log_probs, beam_size=100, nbest=100)
    assert got == pytest.approx(all_sequences(log_probs.numpy()))
    assert list(got.values()) == sorted(got.values(), reverse=True)


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(2, 20), st.integers(1, 8))
def test_a_narrow_beam_equals_the_plain_search(seed, num_frames, vocab, beam_size):
    log_probs = posteriors(seed, num_frames, vocab)
    got = decode(log_probs, beam_size=beam_size, nbest=beam_size)
    assert got == pytest.approx(prefix_beam(log_probs.numpy(), beam_size))


@given(st.integers(0, 10**6), st.integers(1, 7), st.sampled_from([0.6, 0.9]))
def test_dropping_equals_the_plain_search_with_these_frames_blank(seed, num_frames, threshold):
    log_probs = posteriors(seed, num_frames, 5, sharpness=4.0)
    log_probs[1::2] = torch.tensor([0.96, 0.01, 0.01, 0.01, 0.01]).double().log()
    masked = log_probs.clone()
    masked[log_probs[:, 0].exp() > threshold, 1:] = -torch.inf
    expected = prefix_beam(masked.numpy(), 300)
    got = decode(log_probs, beam_size=300, nbest=5, drop_threshold=threshold)
    assert got == pytest.approx({y: expected[y] for y in got})
    assert next(iter(got)) == max(expected, key=expected.get)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.sampled_from([1.0, 0.9]))
def test_repeated_labels_survive(path, threshold):
    sure = torch.full((len(path), 3), 0.001)
    sure[range(len(path)), path] = 0.998
    decoder = PrefixBeamDecoder(4, drop_threshold=threshold)
    [[hyp]] = decoder(sure.log()[None], torch.tensor([len(path)]))
    expected = [k for i, k in enumerate(path) if k and (i == 0 or path[i - 1] != k)]
    assert hyp.token_int == expected
    assert [path[frame] for frame in hyp.token_frames] == expected
    assert all(
        path[a:b] == [k] * (b - a)
        for k, a, b in zip(expected, hyp.token_frames, hyp.token_ends, strict=True)
    )


def test_a_sum_of_paths_can_beat_the_best_path():
    log_probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).double().log()
    got = decode(log_probs, nbest=2)
    assert list(got) == [(1,), ()]
    assert got[(1,)] == pytest.approx(math.log(0.64))


def test_batch_lengths_and_masks():
    log_probs = torch.stack([posteriors(i, 20, 5) for i in range(3)]).float()
    lens = torch.tensor([20, 0, 7])
    keep = torch.rand(3, 20, generator=torch.Generator().manual_seed(1)) < 0.5
    decoder = PrefixBeamDecoder(5, nbest=2, drop_threshold=0.9)
    together = decoder(log_probs, lens, keep)
    for i, n in enumerate(lens.tolist()):
        [alone] = decoder(log_probs[i : i + 1, :n], lens[i : i + 1], keep[i : i + 1, :n])
        assert together[i] == alone
    assert [h.token_int for h in together[1]] == [[]]
    rows, _ = drop_frames(log_probs[0], 0.9, keep[0])
    assert together[0][0].score == pytest.approx(
        max(prefix_beam(rows.double().numpy(), 5).values())
    )


def test_frames_of_zeros_are_blank_and_nan_is_refused():
    log_probs = torch.tensor([[0.1, 0.9], [0.0, 0.0], [0.1, 0.9]]).log()
    assert next(iter(decode(log_probs))) == (1, 1)
    log_probs[2, 0] = torch.nan
    with pytest.raises(ValueError, match=r"1 of 3 frames are not finite, .* is frame 2:"):
        decode(log_probs)


def test_the_scorer_is_added_once_for_each_token_and_at_the_end():
    class Likes2:
        def start(self):
            return 0

        def scores(self, state):
            return np.array([0.0, -1.0, 0.5 + 0.25 * state])

        def advance(self, state, token):
            return state + 1

        def final(self, state):
            return -0.125 * state

    def added(y):
        return sum(Likes2().scores(i)[k] for i, k in enumerate(y)) - 0.125 * len(y)

    log_probs = posteriors(3, 4, 3, sharpness=0.2)
    plain = all_sequences(log_probs.numpy())
    expected = {y: score + added(y) for y, score in plain.items()}
    got = decode(log_probs, beam_size=100, nbest=100, scorer=Likes2())
    assert got == pytest.approx(expected)
    assert max(expected, key=expected.get) != max(plain, key=plain.get)  # else it shows nothing


def test_wrong_options():
    with pytest.raises(ValueError, match="at least 1, but got 0 and 1"):
        PrefixBeamDecoder(0)
    with pytest.raises(ValueError, match="beam_size must be at most 10000, but got 2147483647"):
        PrefixBeamDecoder(2**31 - 1)
    with pytest.raises(ValueError, match=r"\(B, T, V\).*got \(2, 3\)"):
        PrefixBeamDecoder()(torch.zeros(2, 3), torch.tensor([2]))


def in_parts(decoder, log_probs, lengths, keep_mask=None):
    stream = decoder.stream()
    bounds = [0, *np.cumsum(lengths).tolist(), len(log_probs)]
    for start, stop in itertools.pairwise(min(b, len(log_probs)) for b in bounds):
        part = slice(start, stop)
        stream.accept(log_probs[part], None if keep_mask is None else keep_mask[part])
    return stream


@given(
    st.integers(0, 10**6),
    st.integers(0, 30),
    st.sampled_from([1.0, 6.0]),
    st.sampled_from([1, 0.9]),
)
def test_two_parts_are_searched_as_a_whole(seed, length, sharpness, threshold):
    log_probs = posteriors(seed, 30, 5, sharpness)
    keep = torch.rand(30, generator=torch.Generator().manual_seed(seed)) < 0.7
    decoder = PrefixBeamDecoder(6, nbest=3, drop_threshold=threshold)
    [expected] = decoder(log_probs[None], torch.tensor([30]), keep[None])
    got = in_parts(decoder, log_probs, [length], keep).finish()
    assert got == [replace(h, score=pytest.approx(h.score)) for h in expected]


@given(st.integers(0, 10**6), st.lists(st.integers(0, 3), max_size=8), st.sampled_from([1.0, 6.0]))
@settings(max_examples=40)
def test_many_parts_give_hypotheses_with_their_own_scores(seed, lengths, sharpness):
    """Mass can only be lost: that of prefixes that had yet to become what was settled."""
    log_probs = posteriors(seed, 6, 3, sharpness)
    exact = all_sequences(log_probs.numpy())
    got = in_parts(PrefixBeamDecoder(100, nbest=100), log_probs, lengths).finish()
    assert len({tuple(h.token_int) for h in got}) == len(got) > 0
    for hyp in got:
        assert hyp.score <= exact[tuple(hyp.token_int)] + 1e-9
        assert len(hyp.token_frames) in (0, len(hyp.token_int))
        assert hyp.token_frames == sorted(hyp.token_frames)
        pairs = zip(hyp.token_ends, [*hyp.token_frames[1:], 6], strict=False)
        assert all(end <= following for end, following in pairs)


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30), st.lists(st.integers(0, 9), max_size=9)
)
@settings(max_examples=40)
def test_parts_give_the_times_of_the_whole(path, lengths):
    log_probs = torch.full((len(path), 4), 0.004)
    log_probs[range(len(path)), path] = 0.988
    decoder = PrefixBeamDecoder(4, drop_threshold=0.9)
    [[expected]] = decoder(log_probs.log()[None], torch.tensor([len(path)]))
    [got] = in_parts(decoder, log_probs.log(), lengths).finish()
    assert got == replace(expected, score=pytest.approx(expected.score, abs=0.1))


def test_parts_do_not_pile_up():
    """What is settled lets go of its posteriors and of the prefixes that led to it."""
    log_probs = posteriors(0, 600, 5, sharpness=6.0).float()
    stream = in_parts(PrefixBeamDecoder(6), log_probs, [20] * 30)
    assert sum(len(rows) for rows in stream._rows) < 60
    assert len(stream._beam.parents) < 400
    [got] = stream.finish()
    assert got.token_frames[-1] > 580
    [[whole]] = PrefixBeamDecoder(6)(log_probs[None], torch.tensor([600]))
    assert abs(len(got.token_int) - len(whole.token_int)) <= 1
    assert got.score > whole.score - 1.0
    never = PrefixBeamDecoder(6).stream()
    never.accept(log_probs)
    assert len(never._beam.parents) > 2000  # or the limit above would say nothing


def test_no_parts():
    assert [h.token_int for h in PrefixBeamDecoder().stream().finish()] == [[]]
