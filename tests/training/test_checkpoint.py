import pickle
import shutil

import pytest
import torch
import yaml

from espnet_layerskip.inference.speech2text import Speech2Text
from espnet_layerskip.training.checkpoint import load_checkpoint, load_state
from espnet_layerskip.training.task import LayerSkipASRTask


class Model(torch.nn.Module):
    def __init__(self, vocab=5):
        super().__init__()
        self.encoder = torch.nn.Linear(3, 4)
        self.ctc = torch.nn.ModuleDict({"ctc_lo": torch.nn.Linear(4, vocab)})


def save(tmp_path, state):
    torch.save(state, tmp_path / "m.pth")
    return tmp_path / "m.pth"


def test_loads_state_dicts_and_espnets_training_checkpoint(tmp_path):
    model, other = Model(), Model()
    for state in (model.state_dict(), {"model": model.state_dict(), "optimizers": []}):
        load_checkpoint(other, save(tmp_path, state))
        assert all(
            torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
        )


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("wrapper", ["state_dict", "module"])
@pytest.mark.parametrize("name", ["last.ckpt", "valid.loss.ave_2best.pth"])
def test_loads_what_lightning_and_deepspeed_write(tmp_path, prefix, wrapper, name):
    model, other = Model(), Model()
    state = {prefix + k: v for k, v in model.state_dict().items()}
    torch.save({"epoch": 3, "callbacks": {"a": [1, None]}, wrapper: state}, tmp_path / name)
    load_checkpoint(other, tmp_path / name)
    assert torch.equal(model.encoder.weight, other.encoder.weight)
    torch.save({wrapper: {**state, f"{prefix}loss.weight": torch.ones(1)}}, tmp_path / name)
    with pytest.raises(ValueError, match="unexpected: loss.weight"):
        load_checkpoint(other, tmp_path / name)


@pytest.mark.parametrize("init", ["chainer", "xavier_uniform"])
def test_a_trained_model_is_not_initialized(models, tmp_path, init):
    shutil.copytree(models["skip"], tmp_path / "exp")
    config_file = tmp_path / "exp/config.yaml"
    config = yaml.safe_load(config_file.read_text())
    config_file.write_text(yaml.safe_dump({**config, "init": init}))
    checkpoint = tmp_path / "exp/valid.loss.ave.pth"
    model, args = LayerSkipASRTask.build_model_from_file(config_file, checkpoint)
    wanted = torch.load(checkpoint, weights_only=True)
    assert all(torch.equal(v, wanted[k]) for k, v in model.state_dict().items())
    assert args.init is None
    found = Speech2Text(config_file, checkpoint, decoder_type="greedy").asr_model.state_dict()
    assert all(torch.equal(v, wanted[k]) for k, v in found.items())
    if init != "chainer":  # without weights the setting counts: zero biases
        assert not LayerSkipASRTask.build_model_from_file(config_file)[0].ctc.ctc_lo.bias.any()


def test_missing_and_unexpected_keys_are_named(tmp_path):
    state = Model().state_dict()
    state["encoder.wight"] = state.pop("encoder.weight")
    with pytest.raises(ValueError, match=r"missing: encoder.weight; unexpected: encoder.wight"):
        load_checkpoint(Model(), save(tmp_path, state))


def test_another_vocabulary_is_said_plainly(tmp_path):
    path = save(tmp_path, Model(vocab=7).state_dict())
    with pytest.raises(ValueError, match=r"\(7, 4\), the model needs \(5, 4\).*vocabulary"):
        load_checkpoint(Model(), path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('ran')",))

    with open(tmp_path / "m.pth", "wb") as f:
        pickle.dump(Evil(), f)
    with pytest.raises(ValueError, match="cannot be read as a file of tensors"):
        load_checkpoint(Model(), tmp_path / "m.pth")


def test_no_file_and_no_state_dict(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*nothing.pth"):
        load_checkpoint(Model(), tmp_path / "nothing.pth")
    with pytest.raises(ValueError, match="does not hold a state dict"):
        load_checkpoint(Model(), save(tmp_path, [torch.zeros(1)]))


def test_a_stock_encoder_of_either_version_loads(make_encoder):
    stock, ours = make_encoder()
    state = stock.state_dict()
    out = next(k for k in state if k.startswith("embed.out") and k.endswith("weight"))
    other = {"embed.out.0.": "embed.out.", "embed.out.": "embed.out.0."}[out[: -len("weight")]]
    renamed = {
        k.replace(out[: -len("weight")], other) if k.startswith("embed.out") else k: v + 1
        for k, v in state.items()
    }
    load_state(ours, renamed, "a checkpoint of the other version")
    assert torch.equal(ours.state_dict()[out], state[out] + 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    state = Model().state_dict()
    state["encoder.weight"][1, 1] = value
    model = Model()
    before = model.encoder.weight.clone()
    with pytest.raises(ValueError, match=r"m.pth holds .* not finite \(encoder.weight\)"):
        load_checkpoint(model, save(tmp_path, state))
    assert torch.equal(model.encoder.weight, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {k: v.int() for k, v in state.items()}, "whole numbers in the place"),
        (lambda state: dict(enumerate(state.values())), "does not hold a state dict"),
    ],
)
def test_weights_of_another_kind_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load_checkpoint(Model(), save(tmp_path, change(Model().state_dict())))
