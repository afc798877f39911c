"""What a report is made from: an experiment with a gate, and its test data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from espnet_layerskip.inference.pretrained import MODEL_FILES

TEST_SET = "test"  # the recipe's dump/raw/test


def check_experiment(exp: Path, model_file: str | None = None) -> dict[str, Any]:
    """Return the configuration of an experiment that a report can be made of.

    Raises:
        ValueError: If it is no experiment, has no gate, a gate that is off, or no averaged
            checkpoint yet; says what to do.
    """
    config_file = exp / "config.yaml"
    if not config_file.is_file():
        raise ValueError(
            f"{exp} is not an experiment: there is no {config_file}; train it first (stage 11 of "
            "the recipe), or name the folder that the training wrote"
        )
    try:
        config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
    except yaml.YAMLError as e:
        raise ValueError(f"{config_file} is not a training configuration: {e}") from e
    if not isinstance(config, dict):
        raise ValueError(f"{config_file} is not a training configuration: a mapping is needed")
    encoder_conf = config.get("encoder_conf") or {}
    if not encoder_conf.get("gate_layer_idx"):
        raise ValueError(
            f"{exp} has encoder: {config.get('encoder')} without a gate, so there is nothing to "
            "report on: give it as --compare, and an experiment with gate_layer_idx as --exp (a "
            "stock model gets a gate by python -m espnet_layerskip.recipe.add_gate)"
        )
    has_model = any((exp / name).is_file() for name in MODEL_FILES)
    if model_file is None and not has_model and (exp / "checkpoint.pth").is_file():
        epochs = sorted(p.name for p in exp.glob("*epoch.pth"))
        raise ValueError(
            f"{exp}: the training was interrupted, it has no averaged checkpoint yet. Start stage "
            "11 of the recipe again, it goes on where it stopped; or report on what there is: "
            f"--model-file {epochs[-1] if epochs else 'FILE.pth'}"
        )
    return config


def find_data(exp: Path, config: dict[str, Any]) -> Path:
    """Return the recipe's test set: ``test`` beside the validation data of the training.

    Raises:
        ValueError: If there is none; asks for ``--data``.
    """
    looked = []
    for entry in config.get("valid_data_path_and_name_and_type") or []:
        data_dir = Path(entry[0]).parent.parent / TEST_SET
        absolute = exp.resolve()
        for root in (Path(), absolute, *absolute.parents):
            if (root / data_dir / "wav.scp").is_file():
                return root / data_dir
        looked.append(str(data_dir))
    where = f" (looked for {', '.join(sorted(set(looked)))})" if looked else ""
    raise ValueError(
        f"{exp}: its configuration does not lead to a test set{where}: give one by --data DIR, a "
        "folder with wav.scp, text and utt2spk"
    )
