from dataclasses import replace

import pytest
import torch

from espnet_layerskip.evaluation.inputs import load_test_set
from espnet_layerskip.evaluation.settings import OFF, SkipSettings
from espnet_layerskip.evaluation.systems import Skipped, System


@pytest.fixture
def speech(data_dir):
    return load_test_set(data_dir, 16000).speech


def test_systems_share_a_model_without_mixing_their_settings(experiment, speech):
    on, off = System(experiment, SkipSettings()), System(experiment, OFF)
    assert on.settings.threshold == 0.5
    batch = on.batch(speech[:1])
    for _ in range(2):
        assert on.skipped(batch).num_skipped > 0
        assert off.skipped(batch).num_skipped == 0


def test_batch_is_what_the_model_encodes(experiment, speech):
    off = System(experiment, OFF)
    out, olens = off.encode(off.batch(speech[:1]))
    samples = torch.from_numpy(speech[0].samples)[None]
    with torch.no_grad():
        expected, lens = off.model.encode(samples, torch.tensor([samples.size(1)]))
    assert torch.allclose(out, expected, atol=1e-6)
    assert olens.tolist() == lens.tolist()


def test_posteriors_are_those_of_the_whole_model(experiment, speech):
    on = System(experiment, SkipSettings())
    waves = [torch.from_numpy(s.samples) for s in speech[:2]]
    log_probs, lens = on.posteriors(waves)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))
    assert lens.tolist() == [on.posteriors([wave])[1].item() for wave in waves]


def test_describes_what_runs(experiment, stock_twin):
    settings = SkipSettings(threshold=0.5, extension=(0, 0), context="full")
    assert System(experiment, settings).describe() == (
        "LayerSkipConformerEncoder, fast form, threshold=0.5 extension=0,0 context=full"
    )
    assert System(stock_twin, OFF).describe() == "ConformerEncoder, full depth"


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_precision_is_close_but_not_equal(experiment, speech, precision):
    off = System(experiment, OFF)
    other = System(experiment, replace(OFF, precision=precision))
    batch = off.batch(speech[:1])
    exact, rough = off.encode(batch)[0], other.encode(batch)[0]
    assert not torch.equal(exact, rough)
    assert (exact - rough).abs().mean() < 0.2 * exact.abs().mean()
    assert torch.equal(off.encode(batch)[0], exact)  # it has an encoder of its own


def test_ceiling_by_hand(experiment, speech):
    """s * (L - K) / L with L = 4 and K = 1."""
    on = System(experiment, SkipSettings())
    skipped = on.skipped(on.batch(speech[:2]))
    assert 0.0 < skipped.ratio < 1.0
    assert skipped.ceiling == pytest.approx(skipped.ratio * 3 / 4)
    assert skipped.num_skipped == experiment.encoder.last_skip.num_skipped()
    stopped = System(experiment, SkipSettings(threshold=1.0, exit_layer=1))
    stopped_skipped = stopped.skipped(on.batch(speech[:2]))
    assert (stopped_skipped.ratio, stopped_skipped.ceiling) == (1.0, 0.75)
    assert stopped_skipped.num_frames == skipped.num_frames
    full = System(experiment, OFF).skipped(on.batch(speech[:2]))
    assert full == Skipped(skipped.num_frames, 0, 4 * skipped.num_frames, 4 * skipped.num_frames)


def test_skipped_adds_up():
    total = sum((Skipped(10, 5, 25, 40), Skipped(30, 0, 120, 120)), Skipped())
    assert total == Skipped(40, 5, 145, 160)
    assert total.ratio == 0.125
    assert total.ceiling == pytest.approx(15 / 160)
    assert Skipped().ratio == Skipped().ceiling == 0.0


def test_bad_exit_layer(experiment):
    with pytest.raises(ValueError, match="exit_layer must be .*2"):
        System(experiment, SkipSettings(exit_layer=2))
