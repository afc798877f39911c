import pickle

import pytest
import torch

from espnet_layerskip.training.checkpoint import load_checkpoint, load_state


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
