"""How every encoder skips, by example; tests/properties has what holds for any batch."""

import pytest
import torch

from espnet_layerskip._compat import CTC, TooShortUttError
from espnet_layerskip.method.settings import SkipSettings
from tests.support.encoders import (
    GATED,
    KINDS,
    Keep,
    build_encoders,
    cases,
    features,
    gated,
)
from tests.support.numerics import assert_same, relative_error

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize(("kind", "options", "context"), cases())
def test_alone_equals_batched_at_full_depth_and_the_comparison_can_fail(
    kind, options, context, monkeypatch
):
    """Negative control: without our masks the same comparison fails."""
    _, ours = gated(kind, options, context, blank_threshold=1.0)
    x, lens = features(2), torch.tensor([90, 62])
    alone = ours(x[1:, :62], lens[1:])[0]
    assert_same(ours(x, lens)[0][1:, : alone.size(1)], alone)
    subsample = type(ours).subsample

    def unmasked(self, xs_pad, lens):
        x, pos_emb, olens = subsample(self, xs_pad, lens)
        return x, pos_emb, torch.full_like(olens, x.size(1))

    monkeypatch.setattr(type(ours), "subsample", unmasked)
    batched = ours(x, lens)[0][1:, : alone.size(1)]
    assert relative_error(batched, alone) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_for_each_gate(kind, ctc):
    _, ours = gated(kind, {}, "packed", ctc, gate_layer_idx=[1, 3])
    x, lens, kept = features(), torch.tensor([90, 62]), []
    one, two = ours.blank_threshold
    for thresholds in ((one, two / 2), (one, 1.0), (1.0, two / 2)):
        trace = ours.run(x, lens, ctc, SkipSettings(blank_threshold=thresholds)).trace
        kept.append({gate.layer_idx: int(gate.keep_mask.sum()) for gate in trace.gates})
    both, first, _ = kept
    assert [list(one) for one in kept] == [[1, 3], [1], [3]]
    assert both[1] == first[1] < int(trace.valid_mask.sum())
    assert both[3] < both[1]


@pytest.mark.parametrize(("kind", "options", "context"), cases())
def test_an_early_exit_is_the_state_of_its_gate(kind, options, context, ctc):
    _, ours = gated(kind, options, context, ctc)
    x, lens = features(), torch.tensor([90, 62])
    exit_at = ours.run(x, lens, ctc, SkipSettings(exit_layer=2))
    states = dict(ours.run(x, lens, ctc, skip=False, intermediates=True).intermediates)
    encoded = ours.run(x, lens, ctc)
    skipped = encoded.trace.valid_mask & ~encoded.keep_mask
    assert exit_at.exit_layer == 2
    assert_same(exit_at.out, states[2])
    assert skipped.any()
    assert_same(encoded.out[skipped], states[2][skipped])  # what the gate's head has seen
    assert (encoded.argmax(ctc)[skipped] == 0).all()


@pytest.mark.parametrize(("kind", "options", "context"), cases(contexts=True, plain=True))
@pytest.mark.parametrize("kept", [0, 1])
def test_a_training_batch_in_which_one_frame_is_kept(
    kind, options, context, ctc, monkeypatch, kept
):
    _, ours = gated(kind, options, context, train_skip_prob=1.0)
    monkeypatch.setattr(Keep, "kept", kept)
    monkeypatch.setattr(ours, "gates", lambda settings, skip=None: {2: Keep()})
    encoded = ours.train().run(features(2), torch.tensor([90, 70]), ctc)
    encoded.out.sum().backward()
    assert int(encoded.keep_mask.sum()) == kept
    assert encoded.out.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in ours.parameters())
    assert all(b.isfinite().all() for b in ours.buffers())  # BatchNorm has no mean of none


@pytest.mark.parametrize("kind", KINDS)
def test_one_frame_and_an_empty_row(kind, ctc):
    _, ours = build_encoders(kind, {**GATED, "skip_context": "packed"})
    assert ours(features(1, 7), torch.tensor([7]), ctc=ctc)[0].shape == (1, 1, 16)
    out, olens, _ = ours(features(2), torch.tensor([90, 3]), ctc=ctc)
    assert olens.tolist() == [21, 0]
    assert out.isfinite().all()
    with pytest.raises(TooShortUttError, match="has 6 frames and is too short"):
        ours(features(1, 6), torch.tensor([6]), ctc=ctc)


@pytest.mark.parametrize("kind", KINDS)
def test_upper_layers_see_fewer_frames(kind, ctc):
    _, ours = gated(kind, {}, "packed", ctc)
    lengths = []
    for layer in ours.encoders:
        layer.dropout.register_forward_hook(lambda _m, args, _o: lengths.append(args[0].size(1)))
    encoded = ours.run(features(3), torch.tensor([90, 62, 35]), ctc)
    longest = int(encoded.keep_mask.sum(1).max())
    half = len(lengths) // 2
    assert lengths == [21] * half + [longest] * half
    assert 0 < longest < 21


@pytest.mark.parametrize("kind", KINDS)
def test_conditioning_reaches_kept_frames_only(kind):
    """With gates, and the head of ESPnet."""
    changes = {"interctc_layer_idx": [1, 2, 3], "interctc_use_conditioning": True}
    head = CTC(9, 16).eval()
    with torch.no_grad():
        head.ctc_lo.weight.mul_(3.0)
    ours = build_encoders(kind, GATED | changes)[1]
    ours.conditioning_layer = torch.nn.Linear(9, 16)
    x, lens, given = features(), torch.tensor([90, 62]), []
    probs = dict(ours.run(x, lens, head, skip=False, intermediates=True).intermediates)[2]
    ours.blank_threshold = float(head.softmax(probs.detach()).detach()[..., 0].quantile(0.45))
    ours.conditioning_layer.register_forward_hook(lambda _m, args, _o: given.append(args[0].shape))
    encoded = ours.run(x, lens, head)
    assert 0.1 < encoded.trace.skip_ratio() < 0.9
    longest = int(encoded.keep_mask.sum(1).max())
    assert [shape[1] for shape in given] == [21, longest, longest]
    alone = ours.run(x[1:, :62], lens[1:], head)
    assert_same(encoded.out[1, : alone.out.size(1)], alone.out[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_leaves_nothing_behind(kind, ctc):
    _, ours = build_encoders(kind, GATED)
    before = {id(m): set(vars(m)) for m in (ours, ctc, *ours.modules())}
    x, lens = features(), torch.tensor([90, 62])
    first = ours.run(x, lens, ctc).out
    ours.run(x[:1], lens[:1], ctc, SkipSettings(0.9, (1, 1), "packed", exit_layer=2))
    assert torch.equal(ours.run(x, lens, ctc).out, first)
    assert all(set(vars(m)) == before[id(m)] for m in (ours, ctc, *ours.modules()))
    weights = [vars(m)["attn"] for m in ours.modules() if "attn" in vars(m)]
    assert weights == [None] * len(weights)


LEGACY = {"rel_pos_type": "legacy"}
CONV = {"pos_enc_layer_type": "conv"}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("transformer", CONV | {"input_layer": "linear"}),
        ("e_branchformer", CONV | {"attention_layer_type": "selfattn"}),
        ("e_branchformer", LEGACY),
        ("branchformer", LEGACY),
    ],
)
def test_layers_that_read_padding_do_not_see_the_batch(kind, options, ctc):
    """Utterances of a batch with gates go through them one at a time."""
    _, ours = gated(kind, options, "packed", ctc)
    assert not ours.padding_invariant
    x, lens = features(2), torch.tensor([90, 62])
    batch = ours.run(x, lens, ctc)
    alone = ours.run(x[1:, :62], lens[1:], ctc)
    n = alone.out.size(1)
    assert 0.05 < batch.trace.skip_ratio() < 0.95
    assert torch.equal(batch.trace.utterance(1).keep_mask, alone.keep_mask)
    assert torch.equal(batch.out[1, :n], alone.out[0])
    together = ours.run(x, lens, ctc, skip=False).out[1, :n]
    alone = ours.run(x[1:, :62], lens[1:], ctc, skip=False).out[0]
    assert relative_error(together, alone) > 1e-3  # negative control
