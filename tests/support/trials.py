"""Stock experiments of several kinds, with random weights."""

import argparse
from types import SimpleNamespace

import pytest
import torch
import yaml

from espnet_layerskip.training.task import LayerSkipASRTask
from tests.support.experiments import make_experiment

INTERCTC = {"interctc_layer_idx": [1, 2]}


def make_stock(directory, interctc_weight=0.3, **encoder):
    """Write a stock experiment; with ``interctc_weight`` its heads after layers 1, 2 count."""
    exp = make_experiment(directory, gated=False, **INTERCTC, **encoder)
    change(exp, model_conf={"ctc_weight": 1.0, "interctc_weight": interctc_weight})
    return exp


def change(exp, **values):
    """Change entries of an experiment's configuration."""
    path = exp / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


def save_random(exp):
    """Write random weights that fit an experiment's configuration."""
    config = yaml.safe_load((exp / "config.yaml").read_text())
    torch.manual_seed(0)
    model = LayerSkipASRTask.build_model(argparse.Namespace(**config))
    torch.save(model.state_dict(), exp / "valid.cer_ctc.ave.pth")


@pytest.fixture(scope="session")
def stock_exps(tmp_path_factory):
    """By name: heads trained, heads there but not trained, and attention without a fast form."""
    root = tmp_path_factory.mktemp("stock")
    return SimpleNamespace(
        trained=make_stock(root / "trained"),
        untrained=make_stock(root / "untrained", interctc_weight=0.0),
        legacy=make_stock(root / "legacy", rel_pos_type="legacy"),
    )
