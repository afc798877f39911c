"""Probabilities of tokens, and that they change no decision."""

import copy
import pickle

import numpy as np
import pytest
import torch

from espnet_layerskip.decoding import GreedyDecoder, Hypothesis, PrefixBeamDecoder
from espnet_layerskip.decoding.confidence import (
    KEPT,
    ConfidentStream,
    WithConfidence,
    word_confidence,
)


def posteriors(frames=40, vocab=9, seed=0):
    logits = torch.randn(frames, vocab, generator=torch.Generator().manual_seed(seed)) * 3
    return logits.log_softmax(-1)


def expected(hyp, log_probs):
    spans = zip(hyp.token_int, hyp.token_frames, hyp.token_ends, strict=True)
    return [float(log_probs[a:b, k].max().exp()) for k, a, b in spans]


@pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray])
@pytest.mark.parametrize("inner", [GreedyDecoder(), PrefixBeamDecoder(5, 2)])
def test_a_token_is_as_probable_as_its_best_frame(inner, kind):
    rows = posteriors()
    given = rows.numpy() if kind is np.ndarray else rows
    lens = np.array([40]) if kind is np.ndarray else torch.tensor([40])
    [hyps] = WithConfidence(inner)(given[None], lens)
    [plain] = inner(given[None], lens)
    assert [h.token_int for h in hyps] == [h.token_int for h in plain]
    for hyp in hyps:
        assert len(hyp.token_int) > 5
        assert hyp.token_probs == pytest.approx(expected(hyp, rows), abs=1e-5)


def test_in_parts_it_is_that_of_the_whole():
    rows, decoder = posteriors(seed=1), WithConfidence(GreedyDecoder())
    stream = decoder.stream()
    for part in rows.split([7, 0, 20, 13]):
        stream.accept(part)
    [hyp] = stream.finish()
    assert hyp.token_probs == pytest.approx(expected(hyp, rows), rel=1e-2)


def test_what_is_not_among_the_best_of_a_frame_counts_as_the_last_of_them():
    rows = torch.linspace(-1, -2, KEPT + 3)[None]

    class Fixed:
        def accept(self, log_probs, keep_mask=None):
            pass

        def finish(self):
            return [Hypothesis([KEPT + 2], [0], [1])]

    stream = ConfidentStream(Fixed())
    stream.accept(rows)
    [found] = stream.finish()[0].token_probs
    assert found == pytest.approx(float(rows[0, KEPT - 1].exp()), rel=1e-2)


def test_nothing_said_has_no_probabilities():
    decoder = WithConfidence(GreedyDecoder())
    assert decoder(torch.zeros(1, 0, 4), torch.tensor([0]))[0][0].token_probs == []
    assert decoder.stream().finish()[0].token_probs == []


def test_a_word_is_as_probable_as_all_its_tokens_together():
    assert word_confidence([0.9, 0.5]) == pytest.approx(0.45)


def test_it_can_be_copied_and_sent():
    decoder = pickle.loads(pickle.dumps(WithConfidence(PrefixBeamDecoder(5, 2))))
    assert copy.copy(decoder).beam_size == 5
