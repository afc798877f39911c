"""The model that a retrofit makes: its configuration, its heads, its files."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.encoders.convert import from_stock
from espnet_layerskip.evaluation.environment import relative
from espnet_layerskip.evaluation.open_model import OpenedModel, contexts_of
from espnet_layerskip.files import read_yaml, write_text
from espnet_layerskip.inference.calibration import FILE_NAME
from espnet_layerskip.inference.pretrained import map_files
from espnet_layerskip.training.checkpoint import load_state
from espnet_layerskip.training.resume import save_whole
from espnet_layerskip.training.task import LayerSkipASRTask

CHECKPOINT = "valid.loss.best.pth"


def default_gates(opened: OpenedModel) -> tuple[int, ...]:
    """Return the layer with a trained CTC that is nearest to the middle, else the middle.

    Example: of 8 layers with intermediate CTC at 2, 4 and 6, that is 4. Of two that are as near
    the upper one is taken: its gate is the more accurate one.
    """
    middle = max(1, opened.num_layers // 2)
    inner = [k for k in opened.trained if middle / 2 <= k <= 1.5 * middle]
    return (min(inner, key=lambda k: (abs(k - middle), -k)),) if inner else (middle,)


def retrofit_config(
    opened: OpenedModel, gates: Sequence[int], context: str | None, new_heads: Sequence[int]
) -> dict[str, Any]:
    """Return the training configuration of the gated model.

    Args:
        opened: The model; its encoder is in our class.
        gates: 1-based layers.
        context: What a kept frame sees; None = the first of full, packed_original and packed that
            the encoder can have.
        new_heads: Gates whose layer has no trained CTC: then every gate gets a head of its own.

    Raises:
        ValueError: If the encoder cannot have these gates or this context.
    """
    config: dict[str, Any] = _as_typed(read_yaml(opened.speech2text.model_files.train_config))
    [name] = [name for name, ours in ENCODERS.items() if type(opened.encoder) is ours]
    gated = from_stock(opened.encoder, gates, skip_context="packed")
    skipping = {
        "gate_layer_idx": sorted(set(gates)),
        "blank_threshold": 0.9,
        "spike_extension": [0, 0],
        "skip_context": context or contexts_of(gated)[0],
        "train_skip_prob": 0.75,
        "train_spike_extensions": [[0, 0], [1, 1]],
    }
    config |= {
        "encoder": name,
        "encoder_conf": {**(config.get("encoder_conf") or {}), **skipping},
        "init": None,  # the weights are there; 202611 refuses some of 202511's
        "init_param": [],
        "pretrain_path": None,
    }
    if new_heads:
        config["model"] = "layerskip"
        config["model_conf"] = {
            **(config.get("model_conf") or {}),
            "ctc_head": "plain",
            "interctc_head": "own",
            "kd_blank_weight": 1.0,
            "kd_label_weight": 1.0,
        }
    return config


def _as_typed(value: Any) -> Any:
    """Return a configuration with relative paths below the current folder, as recipes have."""
    if isinstance(value, dict):
        return {k: _as_typed(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_as_typed(v) for v in value]
    return relative(value) if isinstance(value, str) else value


def build_student(opened: OpenedModel, config: dict[str, Any]) -> Any:
    """Return the gated model with the weights of the opened one; heads of its own begin as that.

    Raises:
        ValueError: If the configuration or the weights do not fit.
    """
    student = LayerSkipASRTask.build_model(argparse.Namespace(**config))
    state = dict(opened.model.state_dict())
    for name in student.state_dict():
        if name.startswith("ctc.interctc_lo."):
            state[name] = state[f"ctc.ctc_lo.{name.rsplit('.', 1)[1]}"]
    load_state(student, state, opened.source)
    return student.eval()


def write_model(directory: Path, config: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    """Write config.yaml and the checkpoint."""
    directory.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False)
    save_whole({name: value.cpu() for name, value in state.items()}, directory / CHECKPOINT)
    write_text(directory / "config.yaml", text)


def with_own_files(config: dict[str, Any], directory: Path) -> tuple[dict[str, Any], list[Path]]:
    """Copy the files that a configuration needs (statistics, SentencePiece model) beside it.

    Returns:
        The configuration that names the copies, and these.
    """
    copies: dict[str, Path] = {}

    def moved(value: str) -> str:
        if value not in copies:
            taken = {path.name for path in copies.values()}
            name = Path(value).name
            target = directory / (name if name not in taken else f"{len(copies)}_{name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(value, target)
            copies[value] = target
        return relative(copies[value].absolute())

    return map_files(config, moved), list(copies.values())


def pack(directory: Path, files: Sequence[Path]) -> Path:
    """Pack the model in ESPnet's form, as stage 14 of the recipes does; return the zip.

    Raises:
        ValueError: If ESPnet's program fails; with what it says.
    """
    packed = directory / f"{directory.absolute().name}.zip"
    command = [
        *(sys.executable, "-m", "espnet2.bin.pack", "asr"),
        *("--asr_train_config", str(directory / "config.yaml")),
        *("--asr_model_file", str(directory / CHECKPOINT)),
    ]
    for extra in (directory / FILE_NAME, *files):
        command += ["--option", str(extra)]
    done = subprocess.run(
        [*command, "--outpath", str(packed)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(f"espnet2.bin.pack failed: {done.stderr.strip()[-500:]}")
    return packed
