"""BatchNorm in training batches of which hardly a frame is kept."""

import pytest
import torch

from espnet_layerskip.encoders.conformer import batch_norm
from espnet_layerskip.method.packing import pack_index
from tests.support.encoders import Keep, features
from tests.support.numerics import assert_same

pytestmark = pytest.mark.numerics

CONTEXTS = ["packed", "packed_original", "full"]
GATED = {"gate_layer_idx": [2], "blank_threshold": 0.5, "spike_extension": [0, 0]}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("kept", [0, 1])
def test_a_training_batch_in_which_one_frame_is_kept(make_encoder, ctc, monkeypatch, context, kept):
    """BatchNorm has no variance of one frame, and no mean of none."""
    _, ours = make_encoder({**GATED, "skip_context": context, "train_skip_prob": 1.0})
    monkeypatch.setattr(Keep, "kept", kept)
    monkeypatch.setattr(ours, "gates", lambda settings, skip=None: {2: Keep()})
    encoded = ours.train().run(features(2), torch.tensor([90, 70]), ctc)
    encoded.out.sum().backward()
    assert int(encoded.keep_mask.sum()) == kept
    assert encoded.out.isfinite().all()
    norms = [m for m in ours.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert all(m.running_mean.isfinite().all() for m in norms)
    assert all(m.running_var.isfinite().all() for m in norms)


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
