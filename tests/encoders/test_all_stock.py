"""Off is stock, for every encoder: output, gradients, intermediate states, attributes."""

import copy
import inspect
import pickle

import pytest
import torch

from espnet_layerskip._compat import CTC
from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.encoders.convert import from_stock, make_stock, to_stock
from espnet_layerskip.inference.options import set_fast_form
from tests.support.encoders import (
    CONTEXTS,
    GATED,
    KINDS,
    NO_DROPOUT,
    build_encoders,
    cases,
    features,
    gated,
)
from tests.support.numerics import assert_all_same, assert_same, relative_error

pytestmark = pytest.mark.numerics

OFF = {**GATED, "blank_threshold": 1.0, "skip_context": "packed"}
STOCK_ONLY = [
    *(("conformer", {"input_layer": layer}) for layer in ("linear", "conv2d2")),
    ("conformer", {"input_layer": "conv2d6", "input_size": 40}),
    ("conformer", {"rel_pos_type": "legacy"}),
    ("conformer", {"selfattention_layer_type": "selfattn", "pos_enc_layer_type": "abs_pos"}),
    ("conformer", {"normalize_before": False}),
    ("conformer", {"concat_after": True}),
    ("conformer", {"macaron_style": False}),
    ("conformer", {"use_cnn_module": False}),
    ("conformer", {"zero_triu": True}),
    ("conformer", {"positionwise_layer_type": "conv1d"}),
    ("transformer", {"positionwise_layer_type": "conv1d", "positionwise_conv_kernel_size": 3}),
    ("transformer", {"positionwise_layer_type": "conv1d-linear"}),
    ("transformer", {"input_layer": "conv1d2"}),
    ("transformer", {"input_layer": "conv2d1"}),
    ("transformer", {"input_layer": "conv2d8", "input_size": 40}),
    ("transformer", {"input_layer": None}),
    ("transformer", {"input_layer": "wav2vec", "input_size": 16}),
    ("transformer", {"input_layer": "linear", "pos_enc_layer_type": "conv"}),
    ("transformer", {"layer_drop_rate": 0.5}),
    ("e_branchformer", {"rel_pos_type": "legacy"}),
    ("e_branchformer", {"input_layer": "conv1d1"}),
    ("e_branchformer", {"input_layer": "conv1d3"}),
    ("e_branchformer", {"input_layer": "conv2d6", "input_size": 40}),
    ("e_branchformer", {"input_layer": None, "input_size": 16}),
    ("branchformer", {"rel_pos_type": "legacy"}),
    ("branchformer", {"input_layer": "conv2d8", "input_size": 40}),
    ("branchformer", {"stochastic_depth_rate": 0.5, "attn_branch_drop_rate": 0.5}),
    ("e_branchformer", {"layer_drop_rate": 0.5, "gradient_checkpoint_layers": [0, 1, 3]}),
]
WITH_INTERCTC = ["conformer", "transformer", "e_branchformer"]


@pytest.mark.parametrize(("kind", "options"), STOCK_ONLY, ids=str)
def test_off_is_the_stock_encoder(kind, options):
    """Those that can have gates: tests/properties."""
    can_have = kind == "conformer" and "positionwise_layer_type" not in options
    stock, ours = build_encoders(kind, OFF if can_have else None, **options)
    assert list(ours.state_dict()) == list(stock.state_dict())
    x, lens = features(size=options.get("input_size", 20)), torch.tensor([90, 90])
    (expected, expected_lens, _), (out, out_lens, _) = stock(x, lens), ours(x, lens)
    assert_same(out, expected, rtol=1e-6)
    assert torch.equal(out_lens, expected_lens)
    assert ours.run(x, lens).trace is None


@pytest.mark.parametrize(("kind", "options", "context"), cases())
def test_off_is_the_stock_encoder_in_training_with_gradients(kind, options, context):
    stock, ours = gated(kind, {**options, **NO_DROPOUT}, context)
    x, lens, grads = features().double(), torch.tensor([90, 90]), []
    for encoder in (stock, ours):
        found = encoder.double().train()(x, lens)[0]
        out = found[0] if isinstance(found, tuple) else found
        (out * features(2, out.size(1), 16, seed=5)).sum().backward()
        grads.append({name: p.grad for name, p in encoder.named_parameters()})
    assert_all_same(grads[1], grads[0])


@pytest.mark.parametrize("kind", WITH_INTERCTC)
@pytest.mark.parametrize("conditioning", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_stock_intermediates_and_conditioning(kind, conditioning, training):
    changes = {"interctc_layer_idx": [1, 3], "interctc_use_conditioning": conditioning}
    stock, ours = build_encoders(kind, OFF, **changes, **NO_DROPOUT)
    head, layer = CTC(9, 16).eval(), torch.nn.Linear(9, 16)
    stock.conditioning_layer = ours.conditioning_layer = layer
    x, lens = features(), torch.tensor([90, 90])
    stock.train(training), ours.train(training)
    (expected, inter), _, _ = stock(x, lens, ctc=head)
    encoded = ours.run(x, lens, head, intermediates=True)
    assert_same(encoded.out, expected, rtol=1e-6)
    ours_inter = dict(encoded.intermediates)
    assert sorted(ours_inter) == [1, 2, 3]
    for layer_idx, h in inter:
        assert_same(ours_inter[layer_idx], h, rtol=1e-6)


@pytest.mark.parametrize("kind", WITH_INTERCTC)
def test_return_all_hs_is_the_stock_answer(kind):
    stock, ours = build_encoders(kind, GATED)
    x, lens = features(), torch.tensor([90, 90])
    (expected, states), _, _ = stock(x, lens, return_all_hs=True)
    (out, ours_states), _, _ = ours(x, lens, return_all_hs=True)
    assert_same(out, expected, rtol=1e-6)
    for ours_state, state in zip(ours_states, states, strict=True):
        assert_same(ours_state, state, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_stock_to_ours_and_back(kind, ctc):
    stock, ours = gated(kind, {}, "packed", ctc)
    x, lens = features(), torch.tensor([90, 90])
    expected, skipping = stock(x, lens)[0], ours.run(x, lens, ctc).out
    assert relative_error(skipping, expected) > 1e-3
    made = from_stock(stock, [2])
    made.settings = ours.settings
    assert type(made) is type(ours)
    assert torch.equal(made.run(x, lens, ctc).out, skipping)
    assert torch.equal(to_stock(made)(x, lens)[0], expected)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other.run(x, lens, ctc).out, skipping)
    set_fast_form(ours)  # the plain form, where there is no other
    assert_same(ours.run(x, lens, ctc).out, skipping)
    make_stock(ours)
    assert torch.equal(ours(x, lens)[0], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_signature_is_the_stock_one_and_ours(kind):
    """ESPnet's --print_config reads it."""
    ours = ENCODERS[f"layerskip_{kind}"]
    parameters = inspect.signature(ours).parameters
    for name, parameter in inspect.signature(ours.STOCK).parameters.items():
        assert parameters[name].default == parameter.default
    assert parameters["gate_layer_idx"].default == []
    assert parameters["skip_context"].default == "full"
    assert parameters["use_sdpa"].default is False


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("transformer", {"gate_layer_idx": [4]}, r"between 1 and 3 .*got \[4\]"),
        ("transformer", {"positionwise_layer_type": "conv1d"}, "positionwise_layer_type: linear"),
        ("e_branchformer", {"rel_pos_type": "legacy"}, "full needs rel_pos_type: latest"),
        ("branchformer", {"rel_pos_type": "legacy"}, "full needs rel_pos_type: latest"),
        ("branchformer", {"merge_method": "learned_ave"}, "full needs merge_method: concat or"),
    ],
)
def test_what_cannot_be_is_refused_by_name(kind, options, message):
    with pytest.raises(ValueError, match=message):
        build_encoders(kind, {"gate_layer_idx": options.pop("gate_layer_idx", [2])}, **options)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_fused_attention_is_the_plain_one(kind, context, ctc):
    """``use_sdpa``, in ESPnet 202611; in 202511 it is refused by name."""
    if "use_sdpa" not in inspect.signature(ENCODERS[f"layerskip_{kind}"].STOCK).parameters:
        with pytest.raises(ValueError, match="use_sdpa needs ESPnet 202611"):
            build_encoders(kind, {"use_sdpa": True})
        return
    plain = gated(kind, {}, context, ctc)[1]
    fused = gated(kind, {"use_sdpa": True}, context, ctc)[1]
    x, lens = features(), torch.tensor([90, 62])
    for skip in (False, True):
        out = fused.run(x, lens, ctc, plain.settings, skip=skip).out
        assert_same(out, plain.run(x, lens, ctc, skip=skip).out)
