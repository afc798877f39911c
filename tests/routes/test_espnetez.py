"""ESPnet-EZ (in ESPnet 202511): training with its Trainer on a dataset of Python objects."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from .conftest import TOKENS, training, write_yaml

pytestmark = pytest.mark.slow


class Utterances(list[dict[str, Any]]):
    """Noise and token ids."""

    def __init__(self, count: int):
        rng = np.random.default_rng(0)
        super().__init__(
            {"speech": rng.standard_normal(9000).astype(np.float32) / 9, "text": np.array([3, 4])}
            for _ in range(count)
        )


def test_it_trains_our_model_after_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import espnet_layerskip  # noqa: F401  (all that it takes)

    try:
        import espnetez
    except ImportError as e:  # ESPnet 202611 has none; 202511 does not declare that it needs six
        pytest.skip(f"espnetez cannot be imported: {e}")
    monkeypatch.chdir(tmp_path)
    info = {"speech": lambda d: d["speech"], "text": lambda d: d["text"]}
    config = training(token_list=TOKENS, token_type="char", optim_conf={"lr": 0.001})
    path = write_yaml(tmp_path / "train.yaml", config)
    trainer = espnetez.Trainer(
        task="asr",
        train_config=espnetez.config.from_yaml("asr", str(path)),
        train_dataset=espnetez.dataset.ESPnetEZDataset(Utterances(4), data_info=info),
        valid_dataset=espnetez.dataset.ESPnetEZDataset(Utterances(2), data_info=info),
        data_info=info,
        output_dir=str(tmp_path / "exp"),
        stats_dir=str(tmp_path / "stats"),
        ngpu=0,
    )
    trainer.collect_stats()
    trainer.train()
    state = torch.load(tmp_path / "exp/checkpoint.pth", weights_only=False)
    [epoch] = state["reporter"]["stats"].values()
    assert math.isfinite(epoch["train"]["loss"])
    assert any(name.startswith("encoder.") for name in state["model"])
