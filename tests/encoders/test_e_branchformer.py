"""What only the E-Branchformer has: layers that are left out, gradient checkpoints."""

import pytest
import torch

from espnet_layerskip._compat import CTC
from tests.support.encoders import CONTEXTS, GATED, NO_DROPOUT, build_encoders, features, gated
from tests.support.numerics import assert_all_same, assert_same

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize("options", [{"max_layer": 2}, {"max_layer": 3, "return_all_hs": True}])
@pytest.mark.parametrize("mode", ["training", "evaluation", "fast form"])
def test_e_branchformer_max_layer(options, mode):
    training = mode == "training"
    changes = {"interctc_layer_idx": [1, 3], "interctc_use_conditioning": True}
    stock, ours = build_encoders("e_branchformer", **changes, **NO_DROPOUT)
    stock.conditioning_layer = ours.conditioning_layer = torch.nn.Linear(9, 16)
    x, lens, head = features(), torch.tensor([90, 90]), CTC(9, 16).eval()
    stock.train(training), ours.train(training)
    if mode == "fast form":
        ours.optimize_for_inference()
    rtol = 4e-6 if mode == "fast form" else 1e-6
    (expected, states), _, _ = stock(x, lens, ctc=head, **options)
    found = ours(x, lens, ctc=head, **options)[0]
    out, ours_states = found if isinstance(found, tuple) else (found, None)
    assert_same(out, expected, rtol=rtol)
    assert (ours_states is None) == (not training and "return_all_hs" not in options)
    for ours_state, state in zip(ours_states or states, states, strict=True):
        one, other = (s[1] if isinstance(s, tuple) else s for s in (ours_state, state))
        assert_same(one, other, rtol=rtol)


def test_e_branchformer_drops_layers_as_the_stock_class_does():
    """The same draws drop the same layers; a dropped one has no intermediate state."""
    changes = {"interctc_layer_idx": [1, 2, 3], "interctc_use_conditioning": True}
    changes |= {"layer_drop_rate": 0.4, **NO_DROPOUT}
    stock, ours = build_encoders("e_branchformer", {"gate_layer_idx": []}, **changes)
    stock.conditioning_layer = ours.conditioning_layer = torch.nn.Linear(9, 16)
    x, lens, head = features(), torch.tensor([90, 90]), CTC(9, 16).eval()
    seen = set()
    for seed in range(12):
        outs = []
        for encoder in (stock.train(), ours.train()):
            torch.manual_seed(seed)
            found = encoder(x, lens, ctc=head)[0]
            out, inter = found if isinstance(found, tuple) else (found, ())
            outs.append({0: out, **dict(inter)})
        assert_all_same(outs[1], outs[0], rtol=1e-6)
        seen.add(tuple(outs[0]))
    assert len(seen) > 2
    assert len(ours.encoders) == 4
    ours.eval(), stock.eval()
    assert_same(ours.run(x, lens, head).out, stock(x, lens, ctc=head)[0][0], rtol=1e-6)


def test_e_branchformer_gates_decide_after_a_dropped_layer(ctc):
    skip = {**GATED, "train_skip_prob": 1.0, "blank_threshold": 0.2}
    _, ours = build_encoders("e_branchformer", skip, layer_drop_rate=1.0, **NO_DROPOUT)
    encoded = ours.train().run(features(), torch.tensor([90, 70]), ctc)
    assert [k for k, _ in encoded.intermediates] == [2]
    assert encoded.trace.skip_ratio() > 0.0
    assert_same(encoded.intermediates[0][1], ours.subsample(features(), encoded.lens)[0])


@pytest.mark.parametrize("context", CONTEXTS)
def test_e_branchformer_gradient_checkpoints_change_no_gradient(ctc, context):
    grads = []
    for layers in ([], [0, 1, 3, 4]):
        _, ours = gated("e_branchformer", {"gradient_checkpoint_layers": layers}, context, ctc)
        ours.train_skip_prob = 1.0
        torch.manual_seed(1)
        encoded = ours.train().run(features(), torch.tensor([90, 62]), ctc)
        assert 0.0 < encoded.trace.skip_ratio() < 1.0
        encoded.out.square().sum().backward()
        grads.append({name: p.grad for name, p in ours.named_parameters()})
    assert_all_same(*grads)


@pytest.mark.parametrize("fast", [False, True])
def test_e_branchformer_repeats_have_the_final_state_of_their_speaker(ctc, fast):
    _, ours = gated("e_branchformer", {}, "packed", ctc)
    ours.repeat_threshold = 0.3
    if fast:
        ours.optimize_for_inference()
    encoded = ours.run(features(), torch.tensor([90, 62]), ctc)
    speaker, kept = encoded.trace.gates[-1].speaker, encoded.keep_mask
    repeats = encoded.trace.spoken_mask & ~kept
    assert repeats.any()
    expected = encoded.out.gather(1, speaker[..., None].expand_as(encoded.out))
    assert torch.equal(encoded.out[repeats], expected[repeats])
    norm = ours.after_norm
    before = (encoded.out - norm.bias) / norm.weight
    assert before[repeats].mean(-1).abs().max() < 1e-6  # as normalised rows are
    skipped = encoded.trace.valid_mask & ~encoded.trace.spoken_mask
    assert before[skipped].mean(-1).abs().min() > 1e-3  # as others are not
