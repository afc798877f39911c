import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_layerskip.decoding import PrefixBeamDecoder
from espnet_layerskip.decoding.frame_drop import drop_frames
from tests.inference.ctc_reference import all_sequences, prefix_beam


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
    log_probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
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


def test_nan_frames_are_blank():
    log_probs = torch.tensor([[0.1, 0.9], [torch.nan, torch.nan], [0.1, 0.9]]).log()
    assert next(iter(decode(log_probs))) == (1, 1)


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
    with pytest.raises(ValueError, match=r"\(B, T, V\).*got \(2, 3\)"):
        PrefixBeamDecoder()(torch.zeros(2, 3), torch.tensor([2]))
