"""Every encoder in ESPnet's models: built by name, trained, and stock models made to skip."""

import argparse
from functools import cache

import pytest
import torch

from espnet_layerskip import add_skipping, remove_skipping
from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.training.task import LayerSkipASRTask
from tests.support.encoders import GATED, KINDS, NO_DROPOUT
from tests.support.numerics import assert_same

pytestmark = pytest.mark.numerics

OTHERS = [kind for kind in KINDS if kind != "conformer"]  # see test_model.py and test_patch.py
TOKENS = ["<blank>", "<unk>", "A", "B", "C", "<sos/eos>"]
INTERCTC = {"interctc_layer_idx": [1, 2], "interctc_use_conditioning": True}


@cache
def defaults():
    parser = LayerSkipASRTask.get_parser()
    return vars(parser.parse_args(["--output_dir", "x", "--token_list", "x"]))


def build(encoder, model="espnet", **changes):
    """Build a model through ESPnet's task, as a recipe does."""
    conf = KINDS[encoder.removeprefix("layerskip_")] | NO_DROPOUT | changes
    args = {
        "token_list": TOKENS,
        "encoder": encoder,
        "encoder_conf": {name: value for name, value in conf.items() if name != "input_size"},
        "model": model,
        "model_conf": {"ctc_weight": 1.0, "interctc_weight": 0.3},
        "input_size": 20,
        "normalize": None,
    }
    torch.manual_seed(0)
    built = LayerSkipASRTask.build_model(argparse.Namespace(**{**defaults(), **args}))
    with torch.no_grad():  # posteriors far from each other: some frames are blank, some not
        built.ctc.ctc_lo.weight.mul_(8.0)
    return built


def batch():
    speech = torch.randn(3, 80, 20, generator=torch.Generator().manual_seed(0))
    text = torch.tensor([[2, 3, 3], [4, 2, -1], [3, -1, -1]])
    return speech, torch.tensor([80, 64, 50]), text, torch.tensor([3, 2, 1])


@pytest.mark.parametrize("kind", OTHERS)
def test_our_model_trains_and_validates_with_skipping(kind):
    skip = {**GATED, **INTERCTC, "train_skip_prob": 1.0, "blank_threshold": 0.2}
    model = build(f"layerskip_{kind}", "layerskip", **skip, min_spike_ratio=0.0)
    loss, stats, _ = model.train()(*batch())
    loss.backward()
    assert 0.0 < float(stats["skip_ratio"]) <= 1.0
    assert {"loss_interctc_layer1", "loss_interctc_layer2", "loss_kd_blank_layer2"} <= set(stats)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert model.encoder.conditioning_layer.weight.grad.abs().max() > 0.0
    with torch.no_grad():
        assert model.eval()(*batch())[0].isfinite()


@pytest.mark.parametrize("kind", OTHERS)
def test_espnets_model_hands_its_head_to_the_gates(kind):
    """And a stock model with `add_skipping` is a model of ours with its weights."""
    stock = build(kind).eval()
    ours = build(f"layerskip_{kind}", **GATED, min_spike_ratio=0.0).eval()
    ours.load_state_dict(stock.state_dict())
    speech, lens, _, _ = batch()
    alike = lens.fill_(80)
    with torch.no_grad():
        expected = stock.encode(speech, alike)[0]
        encoded = ours.encoder.run(speech, alike, ours.ctc)
        assert 0.0 < encoded.trace.skip_ratio() < 1.0
        assert torch.equal(ours.encode(speech, alike)[0], encoded.out)
        encoder, parameters = stock.encoder, list(stock.state_dict().values())
        add_skipping(stock, **GATED, min_spike_ratio=0.0)
        assert type(encoder) is ENCODERS[f"layerskip_{kind}"]
        after = stock.state_dict().values()
        assert all(a.data_ptr() == b.data_ptr() for a, b in zip(after, parameters, strict=True))
        assert encoder.fast_form() is not None  # as for a model that only infers
        assert_same(stock.encode(speech, alike)[0], encoded.out)
        encoder.train().eval()  # ends it
        encoder.blank_threshold = 1.0
        assert_same(stock.encode(speech, alike)[0], expected, rtol=1e-6)
        remove_skipping(stock)
        assert type(encoder) is ENCODERS[f"layerskip_{kind}"].STOCK
        assert torch.equal(stock.encode(speech, alike)[0], expected)


@pytest.mark.parametrize("kind", ["transformer", "e_branchformer"])
def test_self_conditioned_stock_model_with_gates(kind):
    """The gates ask the heads that ESPnet trained, on the states that it trained them on."""
    stock = build(kind, **INTERCTC).eval()
    speech, lens, _, _ = batch()
    alike = lens.fill_(80)
    with torch.no_grad():
        (expected, inter), _ = stock.encode(speech, alike)
        at_gate = dict(inter)[2]
        probs = stock.ctc.softmax(at_gate)[..., 0]
        threshold = float(probs.quantile(0.5))
        skip = {"spike_extension": (0, 0), "min_spike_ratio": 0.0}
        add_skipping(stock, [2], optimize=False, blank_threshold=threshold, **skip)
        encoded = stock.encoder.run(speech, alike, stock.ctc)
        assert_same(encoded.trace.blank_prob(), probs)
        skipped = ~encoded.keep_mask
        assert 0.3 < encoded.trace.skip_ratio() < 0.7
        assert_same(encoded.out[skipped], at_gate[skipped])
        stock.encoder.blank_threshold = 1.0
        out = stock.encode(speech, alike)[0]
        assert_same(out, expected, rtol=1e-6)
