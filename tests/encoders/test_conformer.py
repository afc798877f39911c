import pytest
import torch

from espnet_layerskip._compat import CTC
from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder, batch_norm
from espnet_layerskip.method.packing import pack_index
from espnet_layerskip.method.settings import SkipSettings
from tests.support.encoders import CONF, CONTEXTS, GATED, features
from tests.support.numerics import assert_same, relative_error

pytestmark = pytest.mark.numerics


def test_contexts_differ(make_encoder, ctc):
    _, ours = make_encoder(GATED)
    outs = []
    for context in CONTEXTS:
        ours.skip_context = context
        outs.append(ours(features(1), torch.tensor([90]), ctc=ctc)[0])
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert relative_error(outs[a], outs[b]) > 1e-3


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


def test_single_frame_batch_norm_is_that_of_evaluation():
    norm = torch.nn.BatchNorm1d(3)
    norm.running_mean.uniform_(), norm.running_var.uniform_(0.5, 1.5)
    before = norm.running_mean.clone()
    index = pack_index(torch.tensor([[False, True, False]]))
    z = torch.randn(1, 3, 1)
    out = batch_norm(norm.train(), z, index)
    assert torch.equal(norm.running_mean, before)
    assert_same(out, norm.eval()(z))
    with pytest.raises(ValueError, match="Expected more than 1 value"):
        norm.train()(z)
