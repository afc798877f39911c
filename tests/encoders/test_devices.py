"""Encoders on a GPU; the same tests run on the CPU, so that they are known to work."""

import numpy as np
import pytest
import torch

from espnet_layerskip.inference.speech2text import load_model
from tests.support.encoders import KINDS, features, gated
from tests.support.experiments import make_experiment, noise
from tests.support.numerics import assert_same, relative_error

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
LENS = [90, 62, 35]


@pytest.fixture(params=DEVICES)
def device(request):
    """Name of a device, on which convolutions are not rounded to TF32."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield request.param
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def moved(device, ctc):
    """Return a function that makes an encoder, its input and its head, all on the device."""

    def make(kind, context="full"):
        _, ours = gated(kind, {}, context, ctc)
        found = (ours, features(3), torch.tensor(LENS), ctc)
        return [one.to(device) for one in found]

    yield make
    ctc.cpu()


@pytest.mark.parametrize("context", ["packed", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_skipping_is_that_of_the_cpu_in_both_forms(kind, context, moved, device):
    ours, x, lens, ctc = moved(kind, context)
    plain = ours.run(x, lens, ctc)
    assert 0 < int(plain.keep_mask.sum()) < int((plain.depth(4) > 0).sum())
    ours.optimize_for_inference()
    with torch.inference_mode():
        fast = ours.run(x, lens, ctc)
        alone = ours.run(x[1:2, :62], lens[1:2], ctc)
    assert fast.out.device.type == device
    assert torch.equal(fast.keep_mask, plain.keep_mask)
    valid = plain.depth(4) > 0
    assert_same(fast.out[valid], plain.out[valid])
    assert_same(fast.out[1][valid[1]], alone.out[0])
    cpu = ours.cpu().run(x.cpu(), lens.cpu(), ctc.cpu())
    assert torch.equal(cpu.keep_mask, plain.keep_mask.cpu())
    assert_same(plain.out[valid].cpu(), cpu.out[valid.cpu()])


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_keeps_the_output_near(kind, moved, device):
    ours, x, lens, ctc = moved(kind)
    ours.optimize_for_inference()
    with torch.inference_mode():
        full = ours.run(x, lens, ctc, skip=False).out
        with torch.autocast(device, torch.bfloat16):
            half = ours.run(x, lens, ctc, skip=False).out
            skipped = ours.run(x, lens, ctc)
    assert relative_error(half, full) < 0.1
    assert torch.isfinite(skipped.out).all()
    assert skipped.keep_mask.any()


@pytest.mark.parametrize("kind", KINDS)
def test_training_with_skipping_gives_finite_gradients(kind, moved, device):
    ours, x, lens, ctc = moved(kind)
    ours.train()
    with torch.autocast(device, torch.bfloat16):
        out = ours.run(x, lens, ctc).out
    out.float().square().mean().backward()
    grads = [p.grad for p in ours.parameters() if p.grad is not None]
    assert grads
    assert all(torch.isfinite(grad).all() for grad in grads)


def test_samples_to_text(tmp_path, device):
    exp = make_experiment(tmp_path / "exp")
    waves = [noise(np.random.default_rng(i)) for i in (1, 2)]
    there, here = (
        load_model(exp, device=d, decoder_type="greedy").recognize(waves) for d in (device, "cpu")
    )
    assert [one.nbest[0][0] for one in there] == [one.nbest[0][0] for one in here]
    assert sum(one.skips.num_skipped for one in there) > 0
