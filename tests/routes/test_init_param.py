"""``--init_param`` from a stock model to ours and back, with the names of both ESPnet versions."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import TOKENS, training

OTHER_NAMES = {"embed.out.0.": "embed.out.", "embed.out.": "embed.out.0."}


def build(ours: bool, seed: int, head: str = "plain") -> Any:
    """A tiny model with random weights."""
    from espnet_layerskip import LayerSkipASRTask

    config = training(ours, token_list=TOKENS, init=None)
    if ours:
        config["model_conf"] |= {"ctc_head": head}
    torch.manual_seed(seed)
    return LayerSkipASRTask.build_model(
        Namespace(**{**LayerSkipASRTask.get_default_config(), **config})
    )


def of_the_other_version(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights under the names of the other ESPnet."""
    here = next(old for old in OTHER_NAMES if f"encoder.{old}weight" in state)
    return {k.replace(here, OTHER_NAMES[here]): v for k, v in state.items()}


@pytest.mark.parametrize("version", ["this", "other"])
@pytest.mark.parametrize("ours", [True, False], ids=["stock to ours", "ours to stock"])
def test_every_weight_arrives(tmp_path: Path, ours: bool, version: str) -> None:
    from espnet2.torch_utils.load_pretrained_model import load_pretrained_model

    source, target = build(not ours, seed=0), build(ours, seed=1)
    state = source.state_dict()
    given = of_the_other_version(state) if version == "other" else state
    if version == "other" and not ours:
        pytest.skip("a stock model knows the names of its own version only")
    torch.save(given, tmp_path / "model.pth")
    load_pretrained_model(str(tmp_path / "model.pth"), target, ignore_init_mismatch=False)
    found = target.state_dict()
    assert found.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_the_encoder_alone(tmp_path: Path) -> None:
    """``--init_param FILE:encoder:encoder``, for a model with other heads."""
    from espnet2.torch_utils.load_pretrained_model import load_pretrained_model

    source, target = build(False, seed=0), build(True, seed=1, head="factorized")
    torch.save(of_the_other_version(source.state_dict()), tmp_path / "model.pth")
    head = target.ctc.ctc_lo.weight.clone()
    load_pretrained_model(f"{tmp_path}/model.pth:encoder:encoder", target, False)
    for name, value in source.encoder.state_dict().items():
        torch.testing.assert_close(target.encoder.state_dict()[name], value, msg=name)
    assert torch.equal(head, target.ctc.ctc_lo.weight)
