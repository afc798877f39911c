"""Names of either ESPnet version, whatever is loaded and by whom; nothing left out silently."""

import logging
from inspect import signature

import pytest
import torch
from espnet2.torch_utils.load_pretrained_model import load_pretrained_model

from espnet_layerskip.encoders.convert import make_ours
from tests.support.encoders import CONF, build_encoders

KINDS = ["conformer", "transformer", "branchformer", "e_branchformer"]


def projection(state):
    """Name of the subsampling's weight in a state dict, and what it is in the other version."""
    [name] = [key for key in state if "embed.out" in key and key.endswith("weight")]
    old, new = "embed.out.0.", "embed.out."
    return name, name.replace(old, new) if old in name else name.replace(new, old)


def is_202611(stock):
    return "use_sdpa" in signature(stock.__init__).parameters


def of_the_other_version(state):
    """The state dict as the other version writes it, each value changed."""
    here, there = (name.removesuffix("weight") for name in projection(state))
    return {
        key.replace(here, there): value + 1 if value.is_floating_point() else value
        for key, value in state.items()
    }


class Model(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strict", [True, False])
def test_the_other_versions_name_is_mapped(kind, strict, caplog):
    _, ours = build_encoders(kind)
    model = Model(ours)
    state = model.state_dict()
    name, _ = projection(state)
    before = state[name].clone()
    model.load_state_dict(of_the_other_version(state), strict=strict)
    assert torch.equal(model.state_dict()[name], before + 1)
    assert not [r for r in caplog.records if "not in the checkpoint" in r.getMessage()]


@pytest.mark.parametrize("part", ["", "encoder"])
def test_init_param_maps_it_too(part, tmp_path):
    model = Model(build_encoders("conformer")[1])
    name, _ = projection(model.state_dict())
    before = model.state_dict()[name].clone()
    file = tmp_path / "other.pth"
    torch.save(of_the_other_version(model.state_dict()), file)
    load_pretrained_model(f"{file}:{part}:{part}" if part else str(file), model, False)
    assert torch.equal(model.state_dict()[name], before + 1)


def test_a_key_that_stays_random_is_named(caplog):
    model = Model(build_encoders("conformer")[1])
    model.decoder = torch.nn.LayerNorm(3)  # not ours: left to whoever has it
    state = {k: v for k, v in model.state_dict().items() if k.startswith("encoder")}
    with caplog.at_level(logging.WARNING):
        model.load_state_dict(state, strict=False)
        assert not caplog.records
        del state["encoder.after_norm.weight"]
        model.load_state_dict(state, strict=False)
    [record] = caplog.records
    assert "left as they were: encoder.after_norm.weight" in record.getMessage()


def test_an_encoder_made_ours_maps_names():
    stock, _ = build_encoders("conformer")
    name, _ = projection(stock.state_dict())
    other = of_the_other_version(stock.state_dict())
    make_ours(stock, [2])
    stock.load_state_dict(other)
    assert torch.equal(stock.state_dict()[name], other[projection(stock.state_dict())[1]])


def test_espnet_202511_alone_would_not_map_it():
    """The negative control: without our hook a strict load fails, another is silent."""
    stock, _ = build_encoders("conformer")
    if is_202611(type(stock)):
        pytest.skip("ESPnet 202611 maps the name of 202511 by itself")
    name, _ = projection(stock.state_dict())
    before = stock.state_dict()[name].clone()
    stock.load_state_dict(of_the_other_version(stock.state_dict()), strict=False)
    assert torch.equal(stock.state_dict()[name], before)


def test_other_input_layers_load(caplog):
    for input_layer in ("linear", "conv2d6"):
        _, ours = build_encoders("conformer", **{**CONF, "input_layer": input_layer})
        ours.load_state_dict(ours.state_dict())
    assert not [r for r in caplog.records if "not in the checkpoint" in r.getMessage()]
