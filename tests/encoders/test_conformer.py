import pytest
import torch

from espnet_layerskip._compat import CTC, TooShortUttError
from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
from espnet_layerskip.method.settings import SkipSettings
from tests.support.encoders import CONF
from tests.support.numerics import assert_all_same, assert_same, relative_error

pytestmark = pytest.mark.numerics

CONTEXTS = ["packed", "packed_original", "full"]
GATED = {"gate_layer_idx": [2], "blank_threshold": 0.5, "spike_extension": [0, 0]}
STOCK_OPTIONS = [
    {},
    {"rel_pos_type": "legacy"},
    {"selfattention_layer_type": "selfattn", "pos_enc_layer_type": "abs_pos"},
    {"normalize_before": False},
    {"concat_after": True},
    {"macaron_style": False},
    {"use_cnn_module": False},
    {"positionwise_layer_type": "conv1d"},
    {"input_layer": "linear"},
    {"input_layer": "conv2d2"},
    {"input_layer": "conv2d6", "input_size": 40},
    {"zero_triu": True},
]


def features(batch=2, length=90, size=20, seed=0):
    return torch.randn(batch, length, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("options", STOCK_OPTIONS, ids=str)
def test_off_is_the_stock_encoder(make_encoder, options):
    gated = options.get("positionwise_layer_type") != "conv1d"
    packed = {**GATED, "blank_threshold": 1.0, "skip_context": "packed"}
    stock, ours = make_encoder(packed if gated else None, **options)
    x, lens = features(size=options.get("input_size", 20)), torch.tensor([90, 90])
    (expected, expected_lens, _), (out, out_lens, _) = stock(x, lens), ours(x, lens)
    assert_same(out, expected, rtol=1e-6)
    assert torch.equal(out_lens, expected_lens)
    assert ours.run(x, lens).trace is None


def test_off_is_the_stock_encoder_in_training_with_gradients(make_encoder):
    changes = dict.fromkeys(("dropout_rate", "positional_dropout_rate"), 0.0)
    stock, ours = make_encoder({"blank_threshold": 1.0, "gate_layer_idx": [2]}, **changes)
    x, lens = features().double(), torch.tensor([90, 90])
    weight, grads = features(2, 21, 16, seed=5).double(), []
    for encoder in (stock, ours):
        out = encoder.double().train()(x, lens)[0]
        ((out[0] if isinstance(out, tuple) else out) * weight).sum().backward()
        grads.append({name: p.grad for name, p in encoder.named_parameters()})
    assert_all_same(grads[1], grads[0])


def test_stock_intermediates_and_conditioning(make_encoder):
    changes = {"interctc_layer_idx": [1, 3], "interctc_use_conditioning": True}
    stock, ours = make_encoder({**GATED, "blank_threshold": 1.0}, **changes)
    head, layer = CTC(9, 16).eval(), torch.nn.Linear(9, 16)
    stock.conditioning_layer = ours.conditioning_layer = layer
    x, lens = features(), torch.tensor([90, 90])
    (expected, inter), _, _ = stock(x, lens, ctc=head)
    encoded = ours.run(x, lens, head, intermediates=True)
    assert_same(encoded.out, expected, rtol=1e-6)
    ours_inter = dict(encoded.intermediates)
    assert sorted(ours_inter) == [1, 2, 3]
    for layer_idx, h in inter:
        assert_same(ours_inter[layer_idx], h, rtol=1e-6)


def test_return_all_hs_is_the_stock_answer(make_encoder):
    stock, ours = make_encoder(GATED)
    x, lens = features(), torch.tensor([90, 90])
    (expected, states), _, _ = stock(x, lens, return_all_hs=True)
    (out, ours_states), _, _ = ours(x, lens, return_all_hs=True)
    assert_same(out, expected, rtol=1e-6)
    for ours_state, state in zip(ours_states, states, strict=True):
        assert_same(ours_state, state, rtol=1e-6)


def test_alone_against_batched_would_be_seen_to_differ(make_encoder, ctc, monkeypatch):
    """Negative control: without our masking of padding the comparison above fails."""
    _, ours = make_encoder({**GATED, "blank_threshold": 1.0})
    x, lens = features(2), torch.tensor([90, 62])
    subsample = LayerSkipConformerEncoder.subsample

    def unmasked(self, xs_pad, lens):
        x, pos_emb, olens = subsample(self, xs_pad, lens)
        return x, pos_emb, torch.full_like(olens, x.size(1))

    alone = ours(x[1:, :62], lens[1:], ctc=ctc)[0]
    monkeypatch.setattr(LayerSkipConformerEncoder, "subsample", unmasked)
    batched = ours(x, lens, ctc=ctc)[0][1:, : alone.size(1)]
    assert relative_error(batched, alone) > 1e-3


def test_contexts_differ(make_encoder, ctc):
    _, ours = make_encoder(GATED)
    outs = []
    for context in CONTEXTS:
        ours.skip_context = context
        outs.append(ours(features(1), torch.tensor([90]), ctc=ctc)[0])
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert relative_error(outs[a], outs[b]) > 1e-3


def test_skipped_frames_keep_the_state_of_their_gate(make_encoder, ctc):
    _, ours = make_encoder(GATED)
    x, lens = features(1), torch.tensor([90])
    encoded = ours.run(x, lens, ctc)
    out, keep = encoded.out, encoded.keep_mask
    at_gate = ours.run(x, lens, ctc, SkipSettings(exit_layer=2))
    assert at_gate.exit_layer == 2
    assert at_gate.depth(4).tolist() == [[2] * out.size(1)]
    ours.exit_layer = 2
    assert torch.equal(at_gate.out, ours(x, lens, ctc=ctc)[0])
    at_gate = at_gate.out
    assert_same(out[~keep], at_gate[~keep], rtol=1e-6)
    assert relative_error(out[keep], at_gate[keep]) > 1e-2


def test_upper_layers_see_fewer_frames(make_encoder, ctc):
    """What makes it faster: the tensors above the gate are short, in a batch too."""
    _, ours = make_encoder({**GATED, "skip_context": "packed"})
    lengths = []
    for layer in ours.encoders:
        layer.feed_forward.register_forward_hook(lambda _m, args, _o: lengths.append(args[0].shape))
    encoded = ours.run(features(3), torch.tensor([90, 62, 35]), ctc)
    longest = int(encoded.keep_mask.sum(1).max())
    assert [shape[1] for shape in lengths] == [21, 21, longest, longest]
    assert longest < 21


def test_one_frame_and_an_empty_row(make_encoder, ctc):
    _, ours = make_encoder(GATED)
    out, olens, _ = ours(features(1, 7), torch.tensor([7]), ctc=ctc)
    assert out.shape == (1, 1, 16)
    out, olens, _ = ours(features(2), torch.tensor([90, 3]), ctc=ctc)
    assert olens.tolist() == [21, 0]
    assert out.isfinite().all()
    with pytest.raises(TooShortUttError, match="has 6 frames and is too short"):
        ours(features(1, 6), torch.tensor([6]), ctc=ctc)


def test_stock_head_drives_the_gate_too(make_encoder):
    _, ours = make_encoder({**GATED, "blank_threshold": 0.12})
    encoded = ours.run(features(), torch.tensor([90, 90]), CTC(9, 16).eval())
    assert 0.0 < encoded.trace.skip_ratio() < 1.0


def test_training_draws_batches_and_extensions(make_encoder, ctc):
    skip = {"train_skip_prob": 0.5, "train_spike_extensions": [[0, 0], [1, 1]]}
    _, ours = make_encoder({**GATED, **skip})
    ours.train()
    ratios = set()
    torch.manual_seed(0)
    for _ in range(20):
        encoded = ours.run(features(), torch.tensor([90, 90]), ctc)
        assert [i for i, _ in encoded.intermediates] == [2]
        ratios.add(encoded.trace is not None)
        encoded.out.sum().backward()
    assert ratios == {True, False}
    assert ours.run(features(), torch.tensor([90, 90]), ctc, skip=False).trace is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate_layer_idx": [4]}, r"between 1 and 3 .*got \[4\]"),
        ({"gate_layer_idx": [0]}, r"between 1 and 3 .*got \[0\]"),
        (
            {"gate_layer_idx": [2], "skip_context": "all"},
            "one of packed, packed_original, full, but got 'all'",
        ),
        ({"gate_layer_idx": [2], "ctc_trim": True}, "gate_layer_idx and ctc_trim"),
        ({"gate_layer_idx": [2], "positionwise_layer_type": "conv1d"}, "positionwise_layer_type"),
        ({"gate_layer_idx": [2], "rel_pos_type": "legacy"}, "needs rel_pos_type: latest"),
        ({"train_skip_prob": 1.5}, r"train_skip_prob must be in \[0, 1\]"),
        ({"blank_threshold": 0.0}, r"blank_threshold must be a number in \(0, 1\]"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        LayerSkipConformerEncoder(**{**CONF, **options})


def test_bad_settings_at_inference(make_encoder):
    _, ours = make_encoder(GATED)
    with pytest.raises(ValueError, match=r"one of the gate layers \[2\].*got 3"):
        ours.exit_layer = 3
    with pytest.raises(ValueError, match="call the encoder with ctc=model.ctc"):
        ours(features(), torch.tensor([90, 90]))


def test_trace_tells_the_depth_of_each_frame(make_encoder, ctc):
    _, ours = make_encoder({**GATED, "gate_layer_idx": [1, 3]})
    trace = ours.run(features(2), torch.tensor([90, 62]), ctc).trace
    depth = trace.depth(4)
    assert set(depth[trace.valid_mask].tolist()) <= {1, 3, 4}
    assert (depth[~trace.valid_mask] == 0).all()
    assert int((depth == 4).sum()) == int(trace.keep_mask.sum())
    first, second = trace.gates
    assert not (second.keep_mask & ~first.keep_mask).any()
    dropped = trace.valid_mask & ~first.keep_mask
    assert torch.equal(trace.blank_prob()[dropped], first.blank_prob[dropped])


def test_legacy_attention_with_gates_does_not_see_the_batch(make_encoder, ctc):
    """Its output depends on padding, so utterances of a batch go through it one at a time."""
    _, ours = make_encoder({**GATED, "skip_context": "packed"}, rel_pos_type="legacy")
    assert not ours.padding_invariant
    x, lens = features(3), torch.tensor([90, 62, 35])
    batch = ours.run(x, lens, ctc, intermediates=True)
    assert 0.1 < batch.trace.skip_ratio() < 0.95
    for row, length in enumerate(lens.tolist()):
        alone = ours.run(x[row : row + 1, :length], lens[row : row + 1], ctc, intermediates=True)
        n = int(alone.lens)
        assert torch.equal(batch.trace.utterance(row).keep_mask, alone.keep_mask)
        assert torch.equal(batch.out[row, :n], alone.out[0])
        assert torch.equal(batch.intermediates[0][1][row, :n], alone.intermediates[0][1][0])
    together = ours.run(x, lens, ctc, skip=False).out[1, :14]
    alone = ours.run(x[1:2, :62], lens[1:2], ctc, skip=False).out[0]
    assert relative_error(together, alone) > 1e-3  # negative control


def test_attributes_read_and_write_the_record(make_encoder):
    _, ours = make_encoder({**GATED, "gate_layer_idx": [1, 3]})
    assert ours.settings == SkipSettings(
        *(0.5, (0, 0), "full", (1, 3), 1.0, 0.02), min_skipped_frames=0
    )
    ours.blank_threshold, ours.gates_in_use = 0.7, [3]
    assert ours.settings.blank_threshold == 0.7
    assert ours.gates_in_use == (3,)
    ours.exit_layer = 3
    ours.spike_extension = [1, 2]
    assert ours.settings == SkipSettings(0.7, (1, 2), "full", (3,), 1.0, 0.02, 3, 0)
    ours.settings = SkipSettings(skip_context="packed").over(ours.settings)
    assert (ours.skip_context, ours.exit_layer) == ("packed", None)


def test_a_call_leaves_nothing_behind(make_encoder, ctc):
    _, ours = make_encoder(GATED)
    before = {id(m): set(vars(m)) for m in (ours, ctc, *ours.modules())}
    x, lens = features(), torch.tensor([90, 62])
    first = ours.run(x, lens, ctc).out
    ours.run(x[:1], lens[:1], ctc, SkipSettings(0.9, (1, 1), "packed", exit_layer=2))
    assert torch.equal(ours.run(x, lens, ctc).out, first)
    assert all(set(vars(m)) == before[id(m)] for m in (ours, ctc, *ours.modules()))
    assert all(getattr(layer.self_attn, "attn", None) is None for layer in ours.encoders)
