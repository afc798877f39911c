"""Every training configuration builds, and each method twin differs in the method only."""

import argparse
from pathlib import Path

import pytest
import torch
import yaml

from espnet_layerskip.training.task import LayerSkipASRTask

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    [*ROOT.glob("conf/train_asr*.yaml"), *ROOT.glob("egs2/*/asr1/conf/train_asr*.yaml")]
)
VARIANTS = sorted(ROOT.glob("egs2/*/asr1/conf/tuning/train_asr*.yaml"))  # of the study
TOKENS = ["<blank>", "<unk>", "A", "B", "<sos/eos>"]


def parse(path):
    """As `asr_train --config path` does: unknown options are errors there."""
    argv = ["--config", str(path), "--output_dir", "x", "--token_list", "x"]
    return vars(LayerSkipASRTask.get_parser().parse_args(argv))


def stock_name(name):
    """The file of the stock twin."""
    other = name.replace("layerskip_e_branchformer", "e_branchformer")
    return other.replace("layerskip", "conformer")


@pytest.mark.parametrize("path", CONFIGS + VARIANTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_config_builds_and_encodes(path):
    args = argparse.Namespace(**{**parse(path), "token_list": TOKENS})
    model = LayerSkipASRTask.build_model(args).eval()
    with torch.no_grad():
        out, olens = model.encode(torch.randn(1, 8000), torch.tensor([8000]))
    out = out[0] if isinstance(out, tuple) else out
    assert out.shape == (1, int(olens), args.encoder_conf["output_size"])


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in [*CONFIGS, *VARIANTS]
        if "layerskip" in p.name and (p in CONFIGS or "aed" in p.name)
    ],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_twins_differ_in_encoder_and_model_only(path):
    ours, stock = parse(path), parse(path.with_name(stock_name(path.name)))
    differing = {key for key in ours if ours[key] != stock[key]} - {"config", "init_param"}
    assert differing == {"encoder", "encoder_conf", "model", "model_conf"}
    shared = stock["encoder_conf"].keys() - {"interctc_layer_idx"}
    assert {k: ours["encoder_conf"][k] for k in shared} == {
        k: stock["encoder_conf"][k] for k in shared
    }
    intermediate = {
        name: set(config["encoder_conf"].get("interctc_layer_idx", []))
        | set(config["encoder_conf"].get("gate_layer_idx", []))
        for name, config in (("ours", ours), ("stock", stock))
    }
    assert intermediate["ours"] == intermediate["stock"]  # as many CTC losses


def test_yaml_files_are_found():
    assert {p.parent.parent.name for p in CONFIGS} >= {ROOT.name, "asr1"}
    for path in ROOT.glob("egs2/*/asr1/conf/*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict), path
