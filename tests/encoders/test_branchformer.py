"""What only the Branchformer has: random branches, and what ESPnet has not given it."""

import pytest
import torch

from espnet_layerskip.encoders.convert import make_stock
from tests.support.encoders import NO_DROPOUT, build_encoders, features
from tests.support.numerics import assert_same, relative_error

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize("name", ["stochastic_depth_rate", "attn_branch_drop_rate"])
def test_branchformer_drops_at_random_as_the_stock_class_does(name):
    changes = {"merge_method": "learned_ave", name: 0.5, **NO_DROPOUT}
    stock, ours = build_encoders("branchformer", **changes)
    x, lens, outs = features(), torch.tensor([90, 90]), []
    for seed in range(4):
        torch.manual_seed(seed)
        expected = stock.train()(x, lens)[0]
        torch.manual_seed(seed)
        torch.empty(4).uniform_()  # ESPnet's container of layers draws them first, for nothing
        out = ours.train().run(x, lens, skip=False).out
        assert_same(out, expected, rtol=1e-6)
        outs.append(out)
    assert any(relative_error(out, outs[0]) > 1e-3 for out in outs)


def test_branchformer_intermediates_and_conditioning(ctc):
    """ESPnet's class has none: they are those of its Conformer."""
    changes = {"interctc_layer_idx": [2], "interctc_use_conditioning": True}
    ours = build_encoders("branchformer", changes)[1]
    layer = ours.conditioning_layer = torch.nn.Linear(9, 16)
    x, lens = features(), torch.tensor([90, 62])
    (_, [(layer_idx, _)]), _, _ = ours.train()(x, lens, ctc=ctc)
    assert layer_idx == 2
    ours.eval()
    state, _ = ours.start(x, lens, ours.settings)
    for k, one in enumerate(ours.encoders, 1):
        state.frames.x = ours.run_layer(one, state.frames)
        if k == 2:
            expected = ours.after_norm(state.frames.x)
            state.frames.x = state.frames.x + layer(ctc.softmax(expected, 2))
    found = ours.run(x, lens, ctc, intermediates=True)
    assert_same(found.out, ours.after_norm(state.frames.x))
    assert_same(found.intermediates[0][1], expected)
    with pytest.raises(ValueError, match="has no interctc_use_conditioning"):
        make_stock(ours)
    with pytest.raises(ValueError, match=r"between 1 and 3, but got \[4\]"):
        build_encoders("branchformer", {"interctc_layer_idx": [4]})
