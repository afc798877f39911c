"""Tiny models with random weights, built once through the Task, and audio to feed them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

TOKENS = ["<blank>", "<unk>", "<space>", "A", "B", "C", "D", "E", "<sos/eos>"]
FS = 16000
ENCODER = {
    "output_size": 16,
    "attention_heads": 2,
    "linear_units": 32,
    "num_blocks": 3,
    "input_layer": "conv2d",
    "rel_pos_type": "latest",
    "cnn_module_kernel": 7,
    "macaron_style": True,
}


def make_config(kind: str, stats_file: str | None = None) -> dict[str, Any]:
    """Training configuration: "skip" (ours), "stock" (its twin) or "hybrid" (with decoder)."""
    config: dict[str, Any] = {
        "token_list": TOKENS,
        "token_type": "char",
        "frontend_conf": {"fs": FS, "n_fft": 256, "hop_length": 128, "n_mels": 20},
        "specaug": None,
        "normalize": "utterance_mvn",
        "encoder": "conformer",
        "encoder_conf": dict(ENCODER),
        "model": "espnet",
        "model_conf": {"ctc_weight": 1.0},
    }
    if stats_file is not None:
        config.update(normalize="global_mvn", normalize_conf={"stats_file": stats_file})
    if kind in ("skip", "hybrid"):
        config["encoder"] = "layerskip_conformer"
        config["encoder_conf"].update(
            gate_layer_idx=[1, 2], blank_threshold=0.6, spike_extension=[0, 1]
        )
        config["model"] = "layerskip"
    if kind == "hybrid":
        config["model_conf"] = {"ctc_weight": 0.3}
        config["decoder"] = "transformer"
        config["decoder_conf"] = {"num_blocks": 1, "linear_units": 16, "attention_heads": 2}
    return config


def make_exp(directory: Path, kind: str, stats_file: str | None = None) -> Path:
    """Write an experiment directory with random weights, spread so that decisions vary."""
    from espnet_layerskip.training.task import LayerSkipASRTask

    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / "partial.yaml"
    partial.write_text(yaml.safe_dump(make_config(kind, stats_file)))
    args = LayerSkipASRTask.get_parser().parse_args(
        ["--config", str(partial), "--output_dir", str(directory)]
    )
    partial.unlink()
    torch.manual_seed(0)
    model = LayerSkipASRTask.build_model(args)
    with torch.no_grad():
        model.ctc.ctc_lo.weight.mul_(8.0)
        model.ctc.ctc_lo.bias[0] = 2.0
    config = {k: v for k, v in vars(args).items() if k not in ("config", "required")}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), directory / "valid.loss.ave.pth")
    return directory


@pytest.fixture(scope="session")
def exp_maker() -> Callable[..., Path]:
    """The function that writes an experiment directory."""
    return make_exp


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Experiment directories by kind."""
    root = tmp_path_factory.mktemp("models")
    return {kind: make_exp(root / kind, kind) for kind in ("skip", "stock", "hybrid")}


@pytest.fixture(scope="session")
def waves() -> list[np.ndarray]:
    """Utterances of different lengths: tone sweeps in noise, float32."""
    rng = np.random.default_rng(0)
    out = []
    for seconds in (0.9, 0.4, 1.3, 0.7):
        t = np.arange(int(seconds * FS)) / FS
        sweep = np.sin(2 * np.pi * 300 * t * (1 + 3 * t)) * (np.sin(9 * t) > 0)
        out.append((0.3 * sweep + 0.02 * rng.standard_normal(t.size)).astype(np.float32))
    return out


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, waves: list[np.ndarray]) -> SimpleNamespace:
    """Files of ``waves`` as utt0.wav ..., a text file that is no audio, and wav.scp tables."""
    root = tmp_path_factory.mktemp("corpus")
    files = []
    for i, wave in enumerate(waves):
        files.append(root / f"utt{i}.wav")
        soundfile.write(files[-1], wave, FS, subtype="FLOAT")
    noise = root / "noise.wav"
    noise.write_text("this is not audio")
    good = root / "wav.scp"
    good.write_text("".join(f"utt{i} {path}\n" for i, path in enumerate(files)))
    bad = root / "bad.scp"
    bad.write_text(
        f"utt0 {files[0]}\nbroken {noise}\nutt1 {files[1]}\nmissing {root}/none.wav\n"
        f"piped sph2pipe {files[0]} |\nnothing\nutt2 {files[2]}\n"
    )
    return SimpleNamespace(root=root, files=files, noise=noise, good=good, bad=bad)
