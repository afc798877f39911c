"""Tiny experiments with random weights, and a tiny test set of noise."""

import argparse
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
import yaml

from espnet_layerskip.inference.calibration import Calibration
from espnet_layerskip.inference.posteriors import encode, extract_features
from espnet_layerskip.method.settings import OFF, SkipSettings
from espnet_layerskip.training.checkpoint import file_digest
from espnet_layerskip.training.task import LayerSkipASRTask

TOKENS = ["<blank>", "<unk>", "<space>", *"ABCDEFGH", "<sos/eos>"]
ENCODER = {
    "output_size": 16,
    "attention_heads": 2,
    "linear_units": 32,
    "num_blocks": 4,
    "input_layer": "conv2d",
    "macaron_style": True,
    "rel_pos_type": "latest",
    "cnn_module_kernel": 5,
}
GATED = {"gate_layer_idx": [1], "blank_threshold": 0.5, "spike_extension": [0, 0]}


def make_experiment(directory, seed=0, gated=True, gates=(1,), head="factorized", **encoder):
    """Write config.yaml and valid.cer_ctc.ave.pth; about half of the frames are skipped."""
    gate = GATED | {"gate_layer_idx": list(gates)} if gated else {}
    ours = {"interctc_head": "own", "ctc_head": head, "interctc_weight": 0.3} if gated else {}
    config = LayerSkipASRTask.get_default_config()
    config |= {
        "token_list": TOKENS,
        "token_type": "char",
        "init": None,
        "normalize": None,
        "frontend_conf": {"fs": 16000, "n_mels": 20},
        "encoder": "layerskip_conformer" if gated else "conformer",
        "encoder_conf": ENCODER | gate | encoder,
        "model": "layerskip" if gated else "espnet",
        "model_conf": {"ctc_weight": 1.0} | ours,
    }
    torch.manual_seed(seed)
    model = LayerSkipASRTask.build_model(argparse.Namespace(**config))
    calibrate(model.eval(), gates if gated else ())
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), directory / "valid.cer_ctc.ave.pth")
    return directory


def write_calibration(exp, threshold, gates=(1,)):
    """Write calibration.json: extension 1,2, context packed."""
    checkpoint = "valid.cer_ctc.ave.pth"
    Calibration(
        checkpoint=checkpoint,
        sha256=file_digest(exp / checkpoint),
        settings=SkipSettings(threshold, (1, 2), "packed", gates),
        metric="wer",
        max_increase=5.0,
        kept_by="upper bound",
        data={"name": "dev", "utterances": 9, "sha256": ""},
        full_depth={},
        chosen={},
        sweep=[],
        warnings=[],
        environment={},
        command="",
    ).save(exp / "calibration.json")


@torch.no_grad()
def calibrate(model, gates):
    """Shift the blank logit so that every head calls about half of the frames blank."""
    wave = torch.from_numpy(noise(np.random.default_rng(9)))
    heads = {None: model.ctc.ctc_lo}
    heads |= {k: model.ctc.interctc_lo[str(k)] for k in gates}
    for layer, head in heads.items():
        how = replace(OFF, exit_layer=layer) if gates else None
        out = encode(model, [extract_features(model, wave)], how).out
        head.weight *= 10.0
        logits = head(out[0])
        factorized = getattr(model.ctc, "head_type", "plain") == "factorized"
        margin = logits[:, 0] - (0.0 if factorized else logits[:, 1:].logsumexp(-1))
        head.bias[0] -= margin.median() + 0.1


def noise(rng):
    """Return 0.5 s of noise that changes its loudness, at 16 kHz."""
    envelope = np.repeat(rng.uniform(0, 0.5, 8), 1000)
    return (rng.uniform(-1, 1, 8000) * envelope).astype(np.float32)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Eight utterances of two speakers, 0.5 s each."""
    directory = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    tables = {"wav.scp": [], "text": [], "utt2spk": []}
    for i in range(8):
        utt, spk = f"s{i // 4}-u{i}", f"s{i // 4}"
        path = directory / f"{utt}.wav"
        soundfile.write(path, noise(rng), 16000)
        tables["wav.scp"].append(f"{utt} {path}\n")
        tables["text"].append(f"{utt} AB CD\n")
        tables["utt2spk"].append(f"{utt} {spk}\n")
    for name, lines in tables.items():
        (directory / name).write_text("".join(lines))
    return directory


@pytest.fixture(scope="session")
def exps(tmp_path_factory):
    """Two seeds with a gate, a stock one, and with a gate: ESPnet's head, a narrow stem."""
    root = tmp_path_factory.mktemp("exp")
    return {
        "ours": make_experiment(root / "ours"),
        "ours2": make_experiment(root / "ours2", seed=1),
        "stock": make_experiment(root / "stock", gated=False),
        "plain": make_experiment(root / "plain", head="plain"),
        "narrow": make_experiment(root / "narrow", stem_channels=8),
    }


@pytest.fixture(scope="session")
def experiment(exps):
    from espnet_layerskip.evaluation.experiment import load_experiment

    return load_experiment(exps["ours"])


@pytest.fixture(scope="session")
def plain(exps):
    from espnet_layerskip.evaluation.experiment import load_experiment

    return load_experiment(exps["plain"])


@pytest.fixture(scope="session")
def stock_twin(exps):
    from espnet_layerskip.evaluation.experiment import load_experiment

    return load_experiment(exps["stock"])


@pytest.fixture(scope="session")
def data(data_dir):
    from espnet_layerskip.evaluation.inputs import load_test_set

    return load_test_set(data_dir, 16000)


@pytest.fixture(scope="session")
def cascade(tmp_path_factory):
    from espnet_layerskip.evaluation.experiment import load_experiment

    return load_experiment(make_experiment(tmp_path_factory.mktemp("two") / "exp", gates=(1, 3)))


@pytest.fixture(scope="session")
def few(data_dir):
    from espnet_layerskip.evaluation.inputs import TestSet, load_test_set

    whole = load_test_set(data_dir, 16000)
    return TestSet(whole.speech[:3], {s.utt_id: "AB CD" for s in whole.speech[:3]}, whole.utt2spk)
