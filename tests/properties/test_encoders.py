"""What holds for every encoder in every context, whatever comes to it."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_layerskip.method.settings import OFF
from tests.properties.subjects import (
    CONDITIONED,
    GATES,
    Batch,
    batches,
    few,
    skip_settings,
    subjects,
)
from tests.support.numerics import assert_all_same, assert_same
from tests.support.reference import masked_reference

pytestmark = pytest.mark.numerics
plain = pytest.mark.parametrize("subject", subjects(plain=True))
others = pytest.mark.parametrize("subject", subjects(plain=False))
REPEATS = st.sampled_from([1.0, 0.3])


def valid_part(encoded, values=None):
    values = encoded.out if values is None else values
    return values[torch.arange(values.size(1)) < encoded.lens[:, None]]


@pytest.mark.parametrize("subject", subjects(contexts=False))
@few(2)
@given(data=st.data())
def test_off_is_the_stock_encoder(subject, data):
    """Also with gates in it; ESPnet 202511 wants utterances of one length for that."""
    if subject.options == CONDITIONED:
        return  # test_all_stock.py
    batch = data.draw(batches(subject))
    batch.lengths = batch.lengths[:1] * len(batch.lengths)
    x, lens = batch.padded(subject.size)
    x, rows = x[:, : batch.lengths[0]], batch.rows()
    with torch.no_grad():
        if subject.kind == "e_branchformer_ctc":
            given_too = {k: v for k, v in vars(subject.prompt(rows)).items() if v is not None}
            (expected, *_), expected_lens, _ = subject.stock(x, lens, ctc=subject.ctc, **given_too)
            expected, expected_lens = expected[:, 2:], expected_lens - 2
        else:
            expected, expected_lens, _ = subject.stock(x, lens)
        for how, options in ((skip_settings(subject, batch), {"skip": False}), (OFF, {})):
            found = subject.run(subject.ours, x, lens, how, rows=rows, **options)
            assert_same(found.out, expected, rtol=1e-6)
            assert torch.equal(found.lens, expected_lens)
            assert found.trace is None
    assert list(subject.ours.state_dict()) == list(subject.stock.state_dict())


@plain
@few(3)
@given(data=st.data(), repeats=REPEATS)
def test_an_utterance_is_the_same_alone_and_in_any_company(subject, data, repeats):
    """In any order, with any padding, whatever it holds. The number of frames stays."""
    check_alone(subject, data.draw(batches(subject)), repeats)


@others
@few(1)
@given(data=st.data(), repeats=REPEATS)
def test_so_it_is_with_other_options(subject, data, repeats):
    check_alone(subject, data.draw(batches(subject)), repeats)


def check_alone(subject, batch, repeats):
    """Fail unless each utterance of a batch is as it is alone."""
    how = skip_settings(subject, batch, repeats)
    (x, lens), parts = batch.padded(subject.size), batch.features(subject.size)
    ours = subject.ours
    with torch.no_grad():
        many = subject.run(ours, x, lens, how, rows=batch.rows(), intermediates=True)
        for place, row in enumerate(batch.rows()):
            one = parts[row][None]
            alone = subject.run(ours, one, [one.size(1)], how, rows=[row], intermediates=True)
            n = int(alone.lens)
            assert n == int(many.lens[place]) == alone.out.size(1)
            assert_same(many.out[place, :n], alone.out[0])
            for (_, h), (_, expected) in zip(many.intermediates, alone.intermediates, strict=True):
                assert_same(h[place, :n], expected[0])
            if many.trace is not None:
                kept = many.trace.utterance(place).keep_mask
                assert kept.all() if alone.trace is None else torch.equal(kept, alone.keep_mask)
    if repeats == 1.0 and many.trace is not None:
        check_gates(many)


def check_gates(found):
    """Fail unless a frame, once dropped, has the state that its gate saw, and stays dropped."""
    states, arrived = dict(found.intermediates), found.trace.valid_mask
    for gate in found.trace.gates:
        dropped = arrived & ~gate.keep_mask
        assert_same(found.out[dropped], states[gate.layer_idx][dropped], scale=1.0)
        assert not (gate.keep_mask & ~arrived).any()
        arrived = gate.keep_mask


@plain
@few(3)
@given(data=st.data())
def test_the_packed_path_is_the_masked_reference(subject, data):
    """In values and gradients, in float64."""
    check_reference(subject, data.draw(batches(subject)))


@others
@few(1)
@given(data=st.data())
def test_it_is_the_masked_reference_with_other_options(subject, data):
    check_reference(subject, data.draw(batches(subject)))


def check_reference(subject, batch):
    """Fail unless a batch gives what masks at full length do, alone and in float64."""
    how = skip_settings(subject, batch).over(subject.ours.settings)
    x, lens = batch.padded(subject.size)
    x, ours, rows = x.double(), subject.exact, batch.rows()
    head = copy.deepcopy(subject.ctc).double()

    def reference():
        found = (
            masked_reference(ours, how, one[:n], head, subject.prompt([row], None, True))
            for one, n, row in zip(x, lens, rows, strict=True)
        )
        outs, kept = zip(*found, strict=True)
        return torch.cat(outs), torch.cat(kept)

    def packed():
        found = subject.run(ours, x, lens, how, rows=rows)
        kept = torch.ones_like(found.out[..., 0]).bool()
        kept = kept if found.trace is None else found.keep_mask
        return valid_part(found), valid_part(found, kept)

    results, grads = [], []
    for run in (packed, reference):
        ours.zero_grad()
        out, kept = run()
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).double()
        (out * weight).sum().backward()
        results.append((out, kept))
        grads.append({n: p.grad.clone() for n, p in ours.named_parameters() if p.grad is not None})
    assert torch.equal(results[0][1], results[1][1])
    assert_same(results[0][0], results[1][0])
    for name in set(grads[0]) ^ set(grads[1]):  # a layer that no frame came to
        assert not (grads[0] | grads[1])[name].any()
    shared = set(grads[0]) & set(grads[1])
    assert_all_same(*({n: g[n] for n in sorted(shared)} for g in grads))


@pytest.mark.parametrize("subject", subjects(fast=True))
@few(3)
@given(data=st.data(), repeats=REPEATS)
def test_the_fast_form_is_the_plain_one(subject, data, repeats):
    batch = data.draw(batches(subject))
    how = skip_settings(subject, batch, repeats)
    x, lens = batch.padded(subject.size)
    with torch.no_grad():
        slow, quick = (
            subject.run(one, x, lens, how, rows=batch.rows(), intermediates=True)
            for one in (subject.ours, subject.fast)
        )
    assert torch.equal(slow.lens, quick.lens)
    assert_same(valid_part(quick), valid_part(slow))
    for (_, h), (_, expected) in zip(quick.intermediates, slow.intermediates, strict=True):
        assert_same(valid_part(slow, h), valid_part(slow, expected))
    assert (slow.trace is None) == (quick.trace is None)
    for a, b in zip(*(t.trace.gates if t.trace else () for t in (slow, quick)), strict=True):
        assert torch.equal(a.keep_mask, b.keep_mask)
        valid = slow.trace.valid_mask
        assert_same(b.blank_prob[valid], a.blank_prob[valid])


@plain
@few(4)
@given(
    data=st.data(),
    blank=st.sampled_from([1e4, -1e4, torch.nan]),
    fast=st.booleans(),
    repeats=REPEATS,
)
def test_all_blank_none_blank_and_a_broken_head(subject, data, blank, fast, repeats):
    """Where many utterances are too short, or have one frame."""
    batch = data.draw(batches(subject, short=True))
    batch.quantiles = (0.5, 0.5)
    batch.min_skipped_frames = 0
    head, encoder = copy.deepcopy(subject.ctc), subject.fast if fast else subject.ours
    with torch.no_grad():
        head.ctc_lo.bias[0] = blank
    x, lens = batch.padded(subject.size)
    how = skip_settings(subject, batch, repeats)
    with torch.no_grad():
        if subject.ours.interctc_use_conditioning and blank != blank:
            return  # the conditioning carries the NaN to all frames, as in ESPnet
        rest = {"ctc": head, "rows": batch.rows()}
        full = subject.run(encoder, x, lens, how, skip=False, **rest)
        found = subject.run(encoder, x, lens, how, **rest)
    assert found.out.isfinite().all()
    if blank == 1e4 and batch.min_spike_ratio == 0.0:
        assert found.trace.skip_ratio() == 1.0
    elif repeats == 1.0:
        assert_same(valid_part(found), valid_part(full))
        assert found.trace.skip_ratio() == 0.0


@plain
@few(1)
@given(data=st.data())
def test_training_in_bfloat16_is_finite(subject, data):
    batch = data.draw(batches(subject, short=True))
    x, lens = batch.padded(subject.size)
    how = skip_settings(subject, batch)
    ours = copy.deepcopy(subject.ours).train()
    with torch.autocast("cpu", torch.bfloat16):
        found = subject.run(ours, x, lens, how, rows=batch.rows(), skip=True)
        weight = torch.randn(found.out.shape, generator=torch.Generator().manual_seed(5))
        (found.out.float() * weight).sum().backward()
    assert found.out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in ours.parameters())
    assert any(p.grad is not None and p.grad.any() for p in ours.encoders[0].parameters())


@plain
def test_an_ordinary_batch_is_gated_twice(subject):
    """The first example of every property: or they would be about nothing."""
    batch = Batch(subject.ordinary, 0, (0.5, 0.5), (0, 0), 0.0, 0, 0, 0, 0.0)
    how = skip_settings(subject, batch)
    trace = subject.run(subject.ours, *batch.padded(subject.size), how).trace
    assert {*GATES, subject.layers} == set(trace.depth(subject.layers)[trace.valid_mask].tolist())
