"""Repeats at a gate: only the peak of a run goes on, and the others take its state over."""

import copy

import pytest
import torch

from espnet_layerskip.method.ctc import LayerSkipCTC
from tests.support.encoders import CONF
from tests.support.numerics import assert_same

pytestmark = pytest.mark.numerics

REPEATS = {
    "gate_layer_idx": [2],
    "blank_threshold": 0.5,
    "spike_extension": [0, 0],
    "min_spike_ratio": 0.0,
    "repeat_threshold": 0.2,
}


def features(batch=3, length=90, size=20):
    # slow features: neighbouring frames are alike, as those of a label are
    random = torch.Generator().manual_seed(0)
    slow = torch.randn(batch, length // 18 + 1, size, generator=random).repeat_interleave(18, 1)
    return slow[:, :length] + 0.2 * torch.randn(batch, length, size, generator=random)


@pytest.fixture
def ctc():
    torch.manual_seed(3)
    head = LayerSkipCTC(5, CONF["output_size"], head_type="plain").eval()
    with torch.no_grad():
        head.ctc_lo.weight.mul_(4.0)
        head.ctc_lo.bias.zero_()
        head.ctc_lo.bias[0] = 1.0
    return head


@pytest.mark.parametrize("context", ["packed", "packed_original", "full"])
@pytest.mark.parametrize("gates", [[2], [1, 3]])
@pytest.mark.parametrize("extension", [[0, 0], [1, 1]])
def test_repeats_have_the_state_of_their_speaker(make_encoder, ctc, context, gates, extension):
    conf = {**REPEATS, "gate_layer_idx": gates, "skip_context": context}
    conf["spike_extension"] = extension
    _, ours = make_encoder(conf)
    _, blanks_only = make_encoder({**conf, "repeat_threshold": 1.0})
    x, lens = features(), torch.tensor([90, 62, 35])
    encoded = ours.run(x, lens, ctc)
    out, trace = encoded.out, encoded.trace
    assert trace.skip_ratio() > blanks_only.run(x, lens, ctc).trace.skip_ratio() + 0.1
    speaker = trace.gates[-1].speaker
    place = torch.arange(out.size(1)).expand_as(speaker)
    repeats = (speaker != place) & trace.valid_mask
    assert repeats.any()
    assert not (repeats & trace.keep_mask).any()
    assert torch.equal(out, out.gather(1, speaker[..., None].expand_as(out)))
    # a run is a run of states too: who speaks for whom never jumps over another frame that went on
    for row, t in repeats.nonzero().tolist():
        between = range(t, int(speaker[row, t]), 1 if speaker[row, t] > t else -1)
        assert all(speaker[row, s] == speaker[row, t] for s in between)


@pytest.mark.parametrize("gates", [[2], [1, 3]])
def test_the_head_speaks_for_repeats_as_for_their_speaker(make_encoder, ctc, gates):
    _, ours = make_encoder({**REPEATS, "gate_layer_idx": gates})
    encoded = ours.run(features(), torch.tensor([90, 62, 35]), ctc)
    out, trace = encoded.out, encoded.trace
    log_probs, best = encoded.log_softmax(ctc), encoded.argmax(ctc)
    speaker = trace.gates[-1].speaker
    assert_same(log_probs, log_probs.gather(1, speaker[..., None].expand_as(log_probs)), rtol=1e-6)
    assert torch.equal(best, best.gather(1, speaker))
    assert_same(log_probs[trace.spoken_mask], ctc.log_softmax(out)[trace.spoken_mask])
    gone = trace.valid_mask & ~trace.spoken_mask
    assert gone.any()
    assert (best[gone] == 0).all()
    assert torch.equal(log_probs.argmax(-1)[trace.valid_mask], best[trace.valid_mask])


@pytest.mark.parametrize("context", ["packed", "packed_original", "full"])
def test_fast_form_with_repeats(make_encoder, ctc, context):
    _, ours = make_encoder({**REPEATS, "skip_context": context})
    fast = copy.deepcopy(ours)
    fast.optimize_for_inference()
    x, lens = features(), torch.tensor([90, 62, 35])
    expected, found = ours.run(x, lens, ctc), fast.run(x, lens, ctc)
    for row, n in enumerate(expected.lens.tolist()):
        assert_same(found.out[row, :n], expected.out[row, :n])
    assert torch.equal(expected.keep_mask, found.keep_mask)


def test_gradients_reach_the_peak_from_its_repeats(make_encoder, ctc):
    _, ours = make_encoder({**REPEATS, "train_skip_prob": 1.0}, dropout_rate=0.0)
    ours.train()
    encoded = ours.run(features(1), torch.tensor([90]), ctc)
    out, speaker = encoded.out, encoded.trace.gates[-1].speaker[0]
    repeat = int((speaker != torch.arange(speaker.numel())).nonzero()[0])
    top = ours.encoders[-1].norm_ff.weight
    (grad,) = torch.autograd.grad(out[0, repeat].pow(3).sum(), top)
    assert grad.abs().sum() > 0


def test_repeat_threshold_is_checked(make_encoder):
    with pytest.raises(ValueError, match="repeat_threshold must be a number"):
        make_encoder({**REPEATS, "repeat_threshold": 0.0})
