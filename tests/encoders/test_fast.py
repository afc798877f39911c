"""The fast form of the encoder against ESPnet's own class and against the plain form."""

import copy
import pickle

import pytest
import torch

from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
from espnet_layerskip.encoders.fast import layout
from espnet_layerskip.method.settings import set_fast_form

CONTEXTS = ["packed", "packed_original", "full"]
GATED = {
    "gate_layer_idx": [2],
    "blank_threshold": 0.5,
    "spike_extension": [0, 0],
    "min_spike_ratio": 0.0,
}
SUPPORTED = [
    {},
    {"selfattention_layer_type": "selfattn", "pos_enc_layer_type": "abs_pos"},
    {"macaron_style": False},
    {"use_cnn_module": False},
    {"activation_type": "relu"},
    {"input_layer": "linear"},
    {"input_layer": "conv2d2"},
    {"input_layer": "conv2d6", "input_size": 40},
    {"output_size": 24, "attention_heads": 4, "cnn_module_kernel": 15},
]
UNSUPPORTED = [
    ({"rel_pos_type": "legacy"}, "LegacyRelPositionMultiHeadedAttention"),
    ({"normalize_before": False}, "normalize_before: false"),
    ({"concat_after": True}, "concat_after: true"),
    ({"positionwise_layer_type": "conv1d"}, "MultiLayeredConv1d"),
    ({"zero_triu": True}, "zero_triu: true"),
    (
        {
            "selfattention_layer_type": "selfattn",
            "pos_enc_layer_type": "abs_pos",
            "qk_norm": True,
        },
        "qk_norm: true",
    ),
]


def features(batch=2, length=90, size=20, seed=0):
    return torch.randn(batch, length, size, generator=torch.Generator().manual_seed(seed))


def valid_part(out, olens):
    return out[torch.arange(out.size(1)) < olens[:, None]]


def fast_copy(encoder, precision="float32"):
    fast = copy.deepcopy(encoder)
    fast.optimize_for_inference(precision)
    return fast


@pytest.mark.parametrize("options", SUPPORTED, ids=str)
@pytest.mark.parametrize("block", [128, 5])
def test_equals_the_stock_encoder(make_encoder, monkeypatch, options, block):
    monkeypatch.setattr(layout, "BLOCK", block)
    stock, ours = make_encoder(**options)
    ours.optimize_for_inference()
    x, lens = features(size=options.get("input_size", 20)), torch.tensor([90, 90])
    (expected, expected_lens, _), (out, olens, _) = stock(x, lens), ours(x, lens)
    assert (out - expected).abs().max() < 1e-5
    assert torch.equal(olens, expected_lens)


@pytest.mark.parametrize(("options", "reason"), UNSUPPORTED, ids=str)
def test_other_options_run_in_the_plain_form(make_encoder, options, reason):
    stock, ours = make_encoder(**options)
    with pytest.raises(ValueError, match=f"no fast form: .*{reason}"):
        ours.optimize_for_inference()
    set_fast_form(ours)
    x, lens = features(), torch.tensor([90, 90])
    assert torch.allclose(ours(x, lens)[0], stock(x, lens)[0], atol=1e-6)
    with pytest.raises(ValueError, match=reason):
        set_fast_form(ours, "bfloat16")


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("gates", [[2], [1, 3]])
@pytest.mark.parametrize("lengths", [[90], [90, 90], [90, 62, 35]])
@pytest.mark.parametrize("block", [128, 5])
def test_equals_the_plain_form(make_encoder, ctc, monkeypatch, context, gates, lengths, block):
    monkeypatch.setattr(layout, "BLOCK", block)
    _, plain = make_encoder({**GATED, "gate_layer_idx": gates, "skip_context": context})
    fast = fast_copy(plain)
    x, lens = features(len(lengths)), torch.tensor(lengths)
    with torch.no_grad(), plain.mode(intermediates=True), fast.mode(intermediates=True):
        (expected, inter), olens, _ = plain(x, lens, ctc=ctc)
        (out, fast_inter), fast_olens, _ = fast(x, lens, ctc=ctc)
    assert 0.1 < plain.last_skip.skip_ratio() < 0.9
    assert torch.equal(olens, fast_olens)
    assert (valid_part(out, olens) - valid_part(expected, olens)).abs().max() < 1e-5
    for a, b in zip(plain.last_skip.gates, fast.last_skip.gates, strict=True):
        assert torch.equal(a.keep_mask, b.keep_mask)
        valid = plain.last_skip.valid_mask
        assert torch.allclose(a.blank_prob[valid], b.blank_prob[valid], atol=1e-5)
    for (layer, a), (fast_layer, b) in zip(inter, fast_inter, strict=True):
        assert layer == fast_layer
        assert (valid_part(a, olens) - valid_part(b, olens)).abs().max() < 1e-5


@pytest.mark.parametrize("context", CONTEXTS)
def test_alone_equals_batched(make_encoder, ctc, context):
    _, ours = make_encoder({**GATED, "skip_context": context})
    ours.optimize_for_inference()
    x, lens = features(3), torch.tensor([62, 90, 35])
    out, olens, _ = ours(x, lens, ctc=ctc)
    trace = ours.last_skip
    for row, length in enumerate(lens.tolist()):
        alone, n, _ = ours(x[row : row + 1, :length], lens[row : row + 1], ctc=ctc)
        assert int(n) == int(olens[row]) == alone.size(1)
        assert torch.equal(trace.utterance(row).keep_mask, ours.last_skip.keep_mask)
        assert torch.allclose(out[row, : int(n)], alone[0], atol=1e-5)


def test_batches_hold_no_padding(make_encoder, ctc, monkeypatch):
    """Above the gate a batch is as many rows as frames were kept; below, as are real."""
    _, ours = make_encoder(GATED)
    ours.optimize_for_inference()
    rows = []
    run = LayerSkipConformerEncoder.run_layer
    monkeypatch.setattr(
        LayerSkipConformerEncoder,
        "run_layer",
        lambda self, layer, frames: rows.append(frames.x.shape[:2]) or run(self, layer, frames),
    )
    _, olens, _ = ours(features(3), torch.tensor([90, 62, 35]), ctc=ctc)
    kept = int(ours.last_skip.keep_mask.sum())
    assert rows == [(1, int(olens.sum()))] * 2 + [(1, kept)] * 2


@pytest.mark.parametrize("context", CONTEXTS)
def test_all_blank_no_blank_one_frame_and_an_empty_row(make_encoder, ctc, context):
    _, plain = make_encoder({**GATED, "skip_context": context})
    fast = fast_copy(plain)
    with torch.no_grad():
        for bias in (1e4, -1e4, torch.nan):
            ctc.ctc_lo.bias[0] = bias
            for x, lens in ((features(), [90, 70]), (features(1, 7), [7]), (features(), [90, 3])):
                lens = torch.tensor(lens)
                expected, olens, _ = plain(x, lens, ctc=ctc)
                out, _, _ = fast(x, lens, ctc=ctc)
                assert out.isfinite().all()
                assert torch.allclose(
                    valid_part(out, olens), valid_part(expected, olens), atol=1e-5
                )


def test_conditioning_exit_and_all_states(make_encoder, ctc):
    changes = {"interctc_layer_idx": [1, 3], "interctc_use_conditioning": True}
    _, plain = make_encoder(GATED, **changes)
    plain.conditioning_layer = torch.nn.Linear(9, 16)
    fast = fast_copy(plain)
    x, lens = features(3), torch.tensor([90, 62, 35])
    with torch.no_grad():
        for exit_layer in (None, 2):
            plain.exit_layer = fast.exit_layer = exit_layer
            expected, olens, _ = plain(x, lens, ctc=ctc)
            out, _, _ = fast(x, lens, ctc=ctc)
            assert torch.allclose(valid_part(out, olens), valid_part(expected, olens), atol=1e-5)
        (_, expected), olens, _ = plain(x, lens, ctc=ctc, return_all_hs=True)
        (_, states), _, _ = fast(x, lens, ctc=ctc, return_all_hs=True)
    for a, b in zip(expected, states, strict=True):
        assert torch.allclose(valid_part(a, olens), valid_part(b, olens), atol=1e-5)


def test_a_longer_utterance_after_a_shorter_one(make_encoder):
    """The projected positions are kept from call to call."""
    stock, ours = make_encoder()
    ours.optimize_for_inference()
    for length in (60, 200, 90):
        x, lens = features(1, length), torch.tensor([length])
        assert (ours(x, lens)[0] - stock(x, lens)[0]).abs().max() < 1e-5


def test_parameters_stay_and_new_ones_are_taken_over(make_encoder):
    stock, ours = make_encoder()
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
    assert ours.fast_layers() is not None
    assert (ours(x, lens)[0] - stock(x, lens)[0]).abs().max() < 1e-5
    again = pickle.loads(pickle.dumps(ours))
    assert torch.equal(again(x, lens)[0], ours(x, lens)[0])


def test_training_goes_back_to_the_parameters(make_encoder):
    _, ours = make_encoder()
    ours.optimize_for_inference()
    assert ours.eval().fast_layers() is not None
    ours.train()
    assert ours.fast_layers() is None
    ours(features(), torch.tensor([90, 90]))[0].sum().backward()
    assert all(p.grad is not None for p in ours.encoders.parameters())
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        ours.optimize_for_inference()
    assert ours.eval().fast_layers() is None


def test_another_dtype_ends_it(make_encoder):
    _, ours = make_encoder()
    ours.optimize_for_inference()
    assert ours.to("cpu").fast_layers() is not None
    assert ours.double().fast_layers() is None
    assert ours(features().double(), torch.tensor([90, 90]))[0].dtype == torch.float64


@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 0.1), ("int8", 0.15)])
@pytest.mark.parametrize("context", CONTEXTS)
def test_other_precisions_are_near(make_encoder, ctc, precision, error, context):
    _, plain = make_encoder({**GATED, "skip_context": context})
    fast = fast_copy(plain, precision)
    x, lens = features(3), torch.tensor([90, 62, 35])
    with torch.no_grad():
        plain.blank_threshold = fast.blank_threshold = 1.0
        expected, olens, _ = plain(x, lens)
        difference = valid_part(fast(x, lens)[0] - expected, olens).abs()
        assert 1e-4 < difference.max() < error  # not float32, and not something else
        plain.blank_threshold = fast.blank_threshold = 0.5
        plain(x, lens, ctc=ctc)
        out, _, _ = fast(x, lens, ctc=ctc)
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert abs(fast.last_skip.skip_ratio() - plain.last_skip.skip_ratio()) < 0.1


def test_bad_precision(make_encoder):
    stock, ours = make_encoder()
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, int8.*'fp8'"):
        ours.optimize_for_inference("fp8")
    with pytest.raises(ValueError, match="int8 needs a layerskip encoder.*got a ConformerEncoder"):
        set_fast_form(stock, "int8")
    with pytest.raises(ValueError, match="optimize=False"):
        set_fast_form(ours, "int8", optimize=False)


def count_operators(run):
    """Return how many operators Python calls, views included."""
    with torch.inference_mode(), torch.autograd.profiler.profile() as profile:
        run()
    return sum(
        e.name.startswith(("aten::", "quantized::")) and e.cpu_parent is None
        for e in profile.function_events
    )


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_layer_is_few_operators(make_encoder, ctc, context):
    """At 3 s of speech the number of operators decides: it may not creep up."""
    _, plain = make_encoder({**GATED, "skip_context": context})
    fast = fast_copy(plain)
    x, lens = features(1), torch.tensor([90])
    numbers = []
    for encoder in (plain, fast):
        encoder(x, lens, ctc=ctc)  # fills what is kept from call to call
        whole = count_operators(lambda e=encoder: e(x, lens, ctc=ctc))
        del encoder.encoders[-1]
        if encoder is fast:
            del encoder.fast_layers()[-1]
        shorter = count_operators(lambda e=encoder: e(x, lens, ctc=ctc))
        numbers.append(whole - shorter)
    assert numbers[1] <= {"packed": 47, "packed_original": 51, "full": 60}[context], numbers
    assert numbers[1] < 0.7 * numbers[0], numbers
