"""Features of a graph are those of ESPnet's frontend and normalisation."""

import numpy as np
import pytest
import torch
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.layers.global_mvn import GlobalMVN
from espnet2.layers.utterance_mvn import UtteranceMVN

from espnet_layerskip.export.frontend import features, normalised
from espnet_layerskip.export.graph import Graph
from tests.export.conftest import model_of, outputs, session_of

pytestmark = pytest.mark.numerics

NORMS = {
    "none": lambda stats: None,
    "global": lambda stats: GlobalMVN(stats),
    "utterance": lambda stats: UtteranceMVN(),
    "variance": lambda stats: UtteranceMVN(norm_vars=True),
}


@pytest.fixture
def stats(tmp_path):
    rng = np.random.default_rng(0)
    mean = rng.normal(size=20)
    np.savez(tmp_path / "stats.npz", count=9, sum=9 * mean, sum_square=9 * (mean**2 + 2.0))
    return tmp_path / "stats.npz"


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"win_length": 200, "hop_length": 80},
        {"center": False, "win_length": 201, "window": "hamming"},
        {"normalized": True, "window": None, "htk": True, "fmin": 50, "fmax": 6000},
    ],
    ids=["default", "window", "uncentred", "others"],
)
def test_features(options, norm, stats, waves, ctc):
    frontend = DefaultFrontend(**{"fs": 16000, "n_fft": 256, "n_mels": 20, **options}).eval()
    module = NORMS[norm](stats)
    model = model_of(None, ctc, module, frontend)
    g = Graph()
    speech = g.add_input("speech", np.float32, ["batch", "samples"])
    lens = g.add_input("speech_lengths", np.int64, ["batch"])
    feats, olens = features(g, model, speech, lens)
    g.add_output("feats", normalised(g, module, feats, olens), np.float32, ["batch", 20, "frames"])
    g.add_output("lengths", olens, np.int64, ["batch"])
    batch = torch.nn.utils.rnn.pad_sequence(list(map(torch.from_numpy, waves)), batch_first=True)
    found = outputs(session_of(g), batch, [len(wave) for wave in waves])
    for i, wave in enumerate(waves):
        n = torch.tensor([len(wave)])
        expected, elens = frontend(torch.from_numpy(wave)[None], n)
        if module is not None:
            expected, _ = module(expected.clone(), elens)
        frames = int(elens[0])
        assert found["lengths"][i] == frames
        assert np.abs(found["feats"][i, :, :frames].T - expected[0].numpy()).max() < 2e-3
        assert not found["feats"][i, :, frames:].any()
