import pytest
import yaml

from espnet_layerskip.recipe.add_gate import add_gate, main


@pytest.fixture
def stock(tmp_path):
    exp = tmp_path / "stock"
    exp.mkdir()
    conf = {"encoder": "conformer", "encoder_conf": {"num_blocks": 4}, "model": "espnet"}
    (exp / "config.yaml").write_text(yaml.safe_dump(conf))
    (exp / "3epoch.pth").write_bytes(b"weights")
    (exp / "valid.cer_ctc.best.pth").symlink_to("3epoch.pth")
    return exp


def test_only_the_encoder_changes_and_the_checkpoints_are_the_same(stock, tmp_path):
    target = tmp_path / "deeper" / "gated"
    for _ in range(2):  # repeatable
        main([str(stock), str(target), "gate_layer_idx=[2]", "spike_extension=[1, 1]"])
    conf = yaml.safe_load((target / "config.yaml").read_text())
    assert conf["encoder"] == "layerskip_conformer"
    options = {"num_blocks": 4, "gate_layer_idx": [2], "spike_extension": [1, 1]}
    assert conf["encoder_conf"] == options
    assert conf["model"] == "espnet"
    assert (target / "valid.cer_ctc.best.pth").read_bytes() == b"weights"


def test_other_gates_for_an_experiment_of_ours(stock, tmp_path):
    add_gate(stock, tmp_path / "x", {"gate_layer_idx": [2], "spike_extension": [1, 1]})
    add_gate(tmp_path / "x", tmp_path / "y", {"gate_layer_idx": [1, 3]})
    conf = yaml.safe_load((tmp_path / "y" / "config.yaml").read_text())
    assert conf["encoder"] == "layerskip_conformer"
    options = {"num_blocks": 4, "gate_layer_idx": [1, 3], "spike_extension": [1, 1]}
    assert conf["encoder_conf"] == options
    assert (tmp_path / "y" / "valid.cer_ctc.best.pth").read_bytes() == b"weights"


def test_bad_input(stock, tmp_path):
    with pytest.raises(ValueError, match="is not an experiment: there is no"):
        add_gate(tmp_path, tmp_path / "x", {"gate_layer_idx": [2]})
    with pytest.raises(ValueError, match=r"gate_layer_idx=\[K\] is needed"):
        add_gate(stock, tmp_path / "x", {"blank_threshold": 0.9})
    conf = {"encoder": "layerskip_conformer", "model_conf": {"interctc_head": "own"}}
    (stock / "config.yaml").write_text(yaml.safe_dump(conf))
    with pytest.raises(ValueError, match="interctc_head: own, heads for its own gates alone"):
        add_gate(stock, tmp_path / "x", {"gate_layer_idx": [2]})
    with pytest.raises(ValueError, match="options are KEY=VALUE, but got gate"):
        main([str(stock), str(tmp_path / "y"), "gate"])
