"""Features of one utterance without ESPnet's masks: the same numbers, whatever the options."""

import numpy as np
import pytest
import torch
from espnet2.asr.espnet_model import ESPnetASRModel
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.layers.global_mvn import GlobalMVN
from espnet2.layers.utterance_mvn import UtteranceMVN

from espnet_layerskip.inference import features


class Model(ESPnetASRModel):
    """As much of a model as makes features."""

    def __init__(self, frontend):
        torch.nn.Module.__init__(self)
        self.frontend, self.autocast_frontend = frontend.eval(), False


@pytest.fixture
def wave():
    return torch.randn(6000, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "conf",
    [
        {"n_fft": 512, "win_length": 400, "hop_length": 160},
        {"n_fft": 256, "center": False, "normalized": True, "window": None, "htk": True},
    ],
)
def test_the_features_are_espnets(wave, conf, monkeypatch):
    model = Model(DefaultFrontend(fs=16000, **conf))
    expected, lens = model._extract_feats(wave[None], torch.tensor([len(wave)]))
    monkeypatch.setattr(model, "_extract_feats", None)  # or the test compares it with itself
    found = features.compute_features(model, wave)
    assert len(found) == int(lens[0])
    assert torch.equal(found, expected[0])


class Louder(DefaultFrontend):
    """Another frontend, with ESPnet's parts."""

    def forward(self, speech, lengths):
        feats, lens = super().forward(speech, lengths)
        return feats + 1.0, lens


class Twice(torch.nn.Module):
    """In the place of a speech enhancement."""

    def forward(self, spectrum, lens):
        return spectrum * 2.0, lens, None


def enhanced():
    frontend = DefaultFrontend(fs=16000)
    frontend.frontend = Twice()
    return frontend


@pytest.mark.parametrize("frontend", [enhanced, lambda: Louder(fs=16000)])
def test_another_frontend_runs_as_it_is(wave, frontend):
    model = Model(frontend())
    expected, _ = model._extract_feats(wave[None], torch.tensor([len(wave)]))
    assert torch.equal(features.compute_features(model, wave), expected[0])


def test_a_model_may_make_its_features_itself(wave):
    class Own(Model):
        def _extract_feats(self, speech, lengths):
            return speech[:, :6].view(1, 2, 3), lengths

    assert torch.equal(
        features.compute_features(Own(DefaultFrontend(fs=16000)), wave), wave[:6].view(2, 3)
    )


@pytest.mark.parametrize("means", [True, False])
@pytest.mark.parametrize("variances", [True, False])
@pytest.mark.parametrize("kind", ["global", "utterance"])
def test_the_normalisation_is_espnets(tmp_path, kind, means, variances):
    feats = torch.randn(50, 7, generator=torch.Generator().manual_seed(1)) * 3.0 + 2.0
    feats[:, 0] = 5.0  # no variance
    if kind == "global":
        stats = tmp_path / "stats.npz"
        np.savez(stats, count=4.0, sum=np.arange(7.0), sum_square=np.arange(7.0) ** 2 + 3.0)
        module = GlobalMVN(stats, norm_means=means, norm_vars=variances)
    else:
        module = UtteranceMVN(norm_means=means, norm_vars=variances, eps=0.5)
    before = feats.clone()
    expected, _ = module(feats[None].clone(), torch.tensor([50]))
    module.forward = None  # or the test compares it with itself
    assert torch.equal(features.normalise(module, feats), expected[0])
    assert torch.equal(feats, before)


def test_another_normalisation_is_called():
    class Double(torch.nn.Module):
        def forward(self, x, lens):
            return x.mul_(lens[:, None, None]), lens

    feats = torch.ones(4, 2)
    assert torch.equal(features.normalise(Double(), feats), torch.full((4, 2), 4.0))
    assert feats.sum() == 8.0
