"""The fast form of the encoders against ESPnet's own classes and against the plain form."""

import copy
import pickle
from functools import partial

import pytest
import torch

from espnet_layerskip.encoders.fast import layout
from espnet_layerskip.encoders.fast.conformer import FastConformerLayer
from espnet_layerskip.inference.options import set_fast_form
from tests.support.encoders import (
    ABSOLUTE,
    CONTEXTS,
    GATED,
    build_encoders,
    features,
    gated,
    self_condition,
)
from tests.support.numerics import assert_same, relative_error

pytestmark = pytest.mark.numerics

FAST = ["conformer", "transformer", "branchformer", "e_branchformer"]
ATTENTION = ABSOLUTE | {"attention_layer_type": "selfattn"}
SUPPORTED = [
    *((kind, {}) for kind in FAST),
    ("conformer", {"selfattention_layer_type": "selfattn", "pos_enc_layer_type": "abs_pos"}),
    ("conformer", {"macaron_style": False}),
    ("conformer", {"use_cnn_module": False}),
    ("conformer", {"activation_type": "relu"}),
    ("conformer", {"input_layer": "linear"}),
    ("conformer", {"input_layer": "conv2d2"}),
    ("conformer", {"input_layer": "conv2d6", "input_size": 40}),
    ("conformer", {"output_size": 24, "attention_heads": 4, "cnn_module_kernel": 15}),
    ("transformer", {"input_layer": "conv1d2"}),
    ("transformer", {"input_layer": "linear", "pos_enc_layer_type": "conv"}),
    ("transformer", {"input_layer": None}),
    ("branchformer", {"merge_method": "fixed_ave", "cgmlp_weight": 0.3}),
    ("branchformer", ATTENTION | {"input_layer": "conv2d1"}),
    ("e_branchformer", ATTENTION),
    ("e_branchformer", {"macaron_ffn": False, "gate_activation": "swish"}),
    ("e_branchformer", {"use_ffn": False, "macaron_ffn": False, "merge_conv_kernel": 7}),
    ("e_branchformer", {"use_linear_after_conv": True, "output_size": 24, "attention_heads": 4}),
    ("e_branchformer", ATTENTION | {"pos_enc_layer_type": "conv"}),
]
WIDE = {"merge_conv_kernel": 7, "use_linear_after_conv": True}  # reaches farther
QK_NORM = {"selfattention_layer_type": "selfattn", "pos_enc_layer_type": "abs_pos", "qk_norm": True}
UNSUPPORTED = [
    ("conformer", {"rel_pos_type": "legacy"}, "LegacyRelPosition.*rel_pos_type: legacy"),
    ("conformer", {"normalize_before": False}, "normalize_before: false"),
    ("conformer", {"concat_after": True}, "concat_after: true"),
    ("conformer", {"positionwise_layer_type": "conv1d"}, "MultiLayeredConv1d"),
    ("conformer", {"zero_triu": True}, "zero_triu: true"),
    ("conformer", QK_NORM, "qk_norm: true"),
    ("transformer", {"normalize_before": False}, "normalize_before: false"),
    ("transformer", {"concat_after": True}, "concat_after: true"),
    ("transformer", {"positionwise_layer_type": "conv1d-linear"}, "Conv1dLinear"),
    ("transformer", {"qk_norm": True}, "qk_norm: true"),
    ("branchformer", {"rel_pos_type": "legacy"}, "rel_pos_type: legacy"),
    ("branchformer", {"merge_method": "learned_ave"}, "merge_method: learned_ave"),
    ("branchformer", {"use_attn": False}, "one branch only"),
    ("branchformer", {"use_cgmlp": False}, "one branch only"),
    ("e_branchformer", {"rel_pos_type": "legacy"}, "rel_pos_type: legacy"),
    ("e_branchformer", {"zero_triu": True}, "zero_triu: true"),
    (
        "e_branchformer",
        ABSOLUTE | {"attention_layer_type": "fast_selfattn"},
        "attention is FastSelfAttention",
    ),
]


@pytest.fixture(params=FAST)
def make_any(request):
    """Build (stock, ours) of each kind that has a fast form, with the same weights."""
    return partial(build_encoders, request.param)


def valid_part(out, olens):
    return out[torch.arange(out.size(1)) < olens[:, None]]


def fast_copy(encoder, precision="float32"):
    fast = copy.deepcopy(encoder)
    fast.optimize_for_inference(precision)
    return fast


@pytest.mark.parametrize(("kind", "options"), SUPPORTED, ids=str)
@pytest.mark.parametrize("block", [128, 5])
def test_equals_the_stock_encoder(monkeypatch, kind, options, block):
    monkeypatch.setattr(layout, "BLOCK", block)
    size = 16 if options.get("input_layer", "") is None else 20
    options = {"input_size": size, **options}
    stock, ours = build_encoders(kind, **options)
    ours.optimize_for_inference()
    x, lens = features(size=options["input_size"]), torch.tensor([90, 90])
    (expected, expected_lens, _), (out, olens, _) = stock(x, lens), ours(x, lens)
    assert_same(out, expected)
    assert torch.equal(olens, expected_lens)


@pytest.mark.parametrize(("kind", "options", "reason"), UNSUPPORTED, ids=str)
def test_other_options_run_in_the_plain_form(kind, options, reason):
    stock, ours = build_encoders(kind, **options)
    with pytest.raises(ValueError, match=f"no fast form: .*{reason}"):
        ours.optimize_for_inference()
    set_fast_form(ours)
    x, lens = features(), torch.tensor([90, 90])
    assert_same(ours(x, lens)[0], stock(x, lens)[0], rtol=1e-6)
    with pytest.raises(ValueError, match=reason):
        set_fast_form(ours, "bfloat16")


def test_batches_hold_no_padding(make_encoder, ctc, monkeypatch):
    """Above the gate a batch is as many rows as frames were kept; below, as are real."""
    _, ours = make_encoder({**GATED, "min_spike_ratio": 0.0})
    ours.optimize_for_inference()
    rows = []
    run = FastConformerLayer.__call__
    monkeypatch.setattr(
        FastConformerLayer,
        "__call__",
        lambda self, frames: rows.append(frames.x.shape[:2]) or run(self, frames),
    )
    encoded = ours.run(features(3), torch.tensor([90, 62, 35]), ctc)
    kept = int(encoded.keep_mask.sum())
    assert rows == [(1, int(encoded.lens.sum()))] * 2 + [(1, kept)] * 2


@pytest.mark.parametrize("kind", FAST)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_conditioning_exit_repeats_and_all_states(kind, ctc, precision):
    _, plain = gated(kind, {}, "packed", ctc, repeat_threshold=0.3)
    self_condition(plain, [1, 3])
    fast = fast_copy(plain, precision)
    x, lens = features(3), torch.tensor([90, 62, 35])

    def assert_alike(out, expected, olens):
        out, expected = valid_part(out, olens), valid_part(expected, olens)
        if precision == "float32":
            assert_same(out, expected)
        assert out.dtype == torch.float32

    with torch.no_grad():
        for exit_layer in (None, 2):
            plain.exit_layer = fast.exit_layer = exit_layer
            slow, quick = (one.run(x, lens, ctc, intermediates=True) for one in (plain, fast))
            assert_alike(quick.out, slow.out, slow.lens)
            for (_, a), (_, b) in zip(quick.intermediates, slow.intermediates, strict=True):
                assert_alike(a, b, slow.lens)
            if exit_layer is None:
                trace = slow.trace
                repeats = trace.spoken_mask & ~trace.keep_mask
                assert repeats.any()
        (_, expected), olens, _ = plain(x, lens, ctc=ctc, return_all_hs=True)
        (_, states), _, _ = fast(x, lens, ctc=ctc, return_all_hs=True)
    for a, b in zip(states, expected, strict=True):
        if precision == "float32":
            assert_alike(a, b, olens)


@pytest.mark.parametrize("kind", FAST)
def test_conditioning_after_a_gate_that_drops_all_frames(kind, ctc):
    _, plain = gated(kind, {}, "packed", gate_layer_idx=[1, 3], min_spike_ratio=0.0)
    plain.blank_threshold = [1e-6, 1e-6]
    self_condition(plain, [1, 3])
    x, lens = features(), torch.tensor([90, 62])
    with torch.no_grad():
        slow, quick = (one.run(x, lens, ctc) for one in (plain, fast_copy(plain, "float32")))
    assert not slow.keep_mask.any()
    assert torch.equal(quick.keep_mask, slow.keep_mask)
    assert_same(valid_part(quick.out, slow.lens), valid_part(slow.out, slow.lens))


def test_a_longer_utterance_after_a_shorter_one(make_any):
    """The projected positions are kept from call to call."""
    stock, ours = make_any()
    ours.optimize_for_inference()
    for length in (60, 200, 90):
        x, lens = features(1, length), torch.tensor([length])
        assert_same(ours(x, lens)[0], stock(x, lens)[0])


def test_small_variances_of_batch_norm(make_encoder):
    """As channels that hardly speak have them: its epsilon counts."""
    stock, ours = make_encoder()
    for name, buffer in stock.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(1e-4)
    ours.load_state_dict(stock.state_dict())
    ours.optimize_for_inference()
    x, lens = features(), torch.tensor([90, 90])
    assert_same(ours(x, lens)[0], stock(x, lens)[0])


def test_parameters_stay_and_new_ones_are_taken_over(make_any):
    stock, ours = make_any()
    before = {name: value.clone() for name, value in stock.state_dict().items()}
    for _ in range(2):  # idempotent
        ours.optimize_for_inference()
    x, lens = features(), torch.tensor([90, 90])
    ours(x, lens)
    assert list(ours.state_dict()) == list(before)
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in before.items())
    halved = {n: v / 2 if v.is_floating_point() else v for n, v in before.items()}
    stock.load_state_dict(halved)
    torch.nn.ModuleDict({"encoder": ours}).load_state_dict(
        {f"encoder.{name}": value for name, value in halved.items()}
    )
    assert ours.fast_form() is not None
    assert_same(ours(x, lens)[0], stock(x, lens)[0])
    for part in ("encoders", "embed"):  # also where only a part is loaded, with new parameters too
        doubled = {n: 2 * v for n, v in getattr(stock, part).state_dict().items()}
        getattr(stock, part).load_state_dict(doubled)
        getattr(ours, part).load_state_dict(doubled, assign=part == "embed")
        assert_same(ours(x, lens)[0], stock(x, lens)[0])
    again = pickle.loads(pickle.dumps(ours))
    assert torch.equal(again(x, lens)[0], ours(x, lens)[0])


def test_training_goes_back_to_the_parameters(make_any):
    _, ours = make_any()
    ours.optimize_for_inference()
    assert ours.eval().fast_form() is not None
    ours.train()
    assert ours.fast_form() is None
    ours(features(), torch.tensor([90, 90]))[0].sum().backward()
    assert all(p.grad is not None for p in ours.encoders.parameters())
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        ours.optimize_for_inference()
    assert ours.eval().fast_form() is None


def test_another_dtype_ends_it(make_any):
    _, ours = make_any()
    ours.optimize_for_inference()
    assert ours.to("cpu").fast_form() is not None
    assert ours.double().fast_form() is None
    assert ours(features().double(), torch.tensor([90, 90]))[0].dtype == torch.float64


@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 0.03), ("int8", 0.05)])
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("kind", FAST)
def test_other_precisions_are_near(kind, ctc, precision, error, context):
    _, plain = gated(kind, {}, context, ctc)
    fast = fast_copy(plain, precision)
    x, lens = features(3), torch.tensor([90, 62, 35])
    with torch.no_grad():
        slow, quick = plain.run(x, lens, skip=False), fast.run(x, lens, skip=False)
        expected, olens, out = slow.out, slow.lens, quick.out
        difference = relative_error(valid_part(out, olens), valid_part(expected, olens))
        assert 1e-4 < difference < error  # not float32, and not something else
        slow, quick = plain.run(x, lens, ctc), fast.run(x, lens, ctc)
    out = quick.out
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert abs(quick.trace.skip_ratio() - slow.trace.skip_ratio()) < 0.1


def test_bad_precision(make_encoder):
    stock, ours = make_encoder()
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, int8.*'fp8'"):
        ours.optimize_for_inference("fp8")
    with pytest.raises(ValueError, match="int8 needs a layerskip encoder.*got a ConformerEncoder"):
        set_fast_form(stock, "int8")
    with pytest.raises(ValueError, match="optimize=False"):
        set_fast_form(ours, "int8", optimize=False)
