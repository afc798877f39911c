"""Joint CTC/attention decoding: full depth is ESPnet's, frames are dropped from the CTC scores."""

import os

import pytest
import torch
import yaml

from espnet_layerskip.inference.speech2text import ESPnetSpeech2Text, load_model

SEARCH = {"beam_size": 2, "nbest": 2, "maxlenratio": 0.5}


@pytest.fixture(scope="module")
def joint(models, tmp_path_factory):
    """The hybrid model with ESPnet's head, and the same weights in ESPnet's own classes."""
    root, source = tmp_path_factory.mktemp("joint"), models["hybrid"]
    config = yaml.safe_load((source / "config.yaml").read_text())
    skipping = {"gate_layer_idx", "blank_threshold", "spike_extension", "skip_context"}
    skipping |= {"train_skip_prob", "train_spike_extensions"}
    stock = {k: v for k, v in config["encoder_conf"].items() if k not in skipping}
    changes = {
        "ours": {"model_conf": {**config["model_conf"], "ctc_head": "plain"}},
        "stock": {
            "encoder": "conformer",
            "encoder_conf": stock,
            "model": "espnet",
            "model_conf": {"ctc_weight": 0.3},
        },
    }
    for name, change in changes.items():
        (root / name).mkdir()
        (root / name / "config.yaml").write_text(yaml.safe_dump({**config, **change}))
        os.symlink(source / "valid.loss.ave.pth", root / name / "valid.loss.ave.pth")
    return {name: root / name for name in changes}


def nbest(model, waves):
    """Token ids and scores of every hypothesis."""
    found = [[(hyp[2], float(hyp[3].score)) for hyp in model(wave)] for wave in waves]
    return [ids for one in found for ids, _ in one], [s for one in found for _, s in one]


@pytest.mark.numerics
@pytest.mark.parametrize("ctc_weight", [0.3, 0.5])
def test_nothing_skipped_is_espnets_search(joint, waves, ctc_weight):
    how = {**SEARCH, "ctc_weight": ctc_weight}
    waves = waves[1:]
    off = nbest(load_model(joint["ours"], blank_threshold=1.0, **how), waves)
    files = joint["stock"] / "config.yaml", joint["stock"] / "valid.loss.ave.pth"
    theirs = nbest(ESPnetSpeech2Text(*files, **how), waves)
    assert off[0] == theirs[0]
    assert off[1] == pytest.approx(theirs[1], abs=1e-4)
    assert any(off[0])
    on = nbest(load_model(joint["ours"], blank_threshold=5e-4, **how), waves)
    assert on[1] != pytest.approx(off[1], abs=1e-4)  # it could have failed


@pytest.mark.parametrize("threshold", ["off", 0.6])
def test_dropping_takes_frames_from_the_ctc_scores_alone(joint, waves, monkeypatch, threshold):
    """Frames that are surely blank change no score, and the decoder sees all of them."""
    how = {**SEARCH, "ctc_weight": 0.3, "blank_threshold": threshold}
    plain = load_model(joint["ours"], **how)
    dropping = load_model(joint["ours"], drop_threshold=0.9, **how)
    seen = {plain: [], dropping: []}
    for model in seen:

        def log_softmax(hs_pad, layer_idx=None, trace=None):
            log_probs = torch.full((*hs_pad.shape[:2], 9), -16.0)
            log_probs[..., 0] = -1e-6
            for frame in (3, 4, 7):
                log_probs[:, frame, 0], log_probs[:, frame, 3:8] = -1.0, -2.0
            return log_probs

        decoder = model.asr_model.decoder
        batch_score = decoder.batch_score

        def score(ys, states, xs, batch_score=batch_score, model=model):
            seen[model].append(xs.shape[1])
            return batch_score(ys, states, xs)

        monkeypatch.setattr(model.asr_model.ctc, "log_softmax", log_softmax)
        monkeypatch.setattr(decoder, "batch_score", score)
    results = {model: nbest(model, waves[:1]) for model in seen}
    assert results[plain][0] == results[dropping][0]
    assert any(results[plain][0])
    assert results[plain][1] == pytest.approx(results[dropping][1], abs=1e-3)
    assert set(seen[plain]) == set(seen[dropping]) != set()
