import pytest
import yaml

from espnet_layerskip.recipe.add_gate import add_gate, main

CONF = {"num_blocks": 4, "output_size": 16, "attention_heads": 2, "linear_units": 8}
CONF |= {"rel_pos_type": "latest", "cnn_module_kernel": 3}


@pytest.fixture
def stock(tmp_path):
    exp = tmp_path / "stock"
    exp.mkdir()
    conf = {
        "encoder": "conformer",
        "encoder_conf": {**CONF, "interctc_layer_idx": [1, 2, 3]},
        "model": "espnet",
        "model_conf": {"interctc_weight": 0.3},
    }
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
    options = {**CONF, "gate_layer_idx": [2], "spike_extension": [1, 1]}
    assert conf["encoder_conf"] == {**options, "interctc_layer_idx": [1, 2, 3]}
    assert conf["model"] == "espnet"
    assert (target / "valid.cer_ctc.best.pth").read_bytes() == b"weights"


def test_other_gates_for_an_experiment_of_ours(stock, tmp_path):
    add_gate(stock, tmp_path / "x", {"gate_layer_idx": [2], "spike_extension": [1, 1]})
    add_gate(tmp_path / "x", tmp_path / "y", {"gate_layer_idx": [1, 3]})
    conf = yaml.safe_load((tmp_path / "y" / "config.yaml").read_text())
    assert conf["encoder"] == "layerskip_conformer"
    options = {**CONF, "gate_layer_idx": [1, 3], "spike_extension": [1, 1]}
    assert conf["encoder_conf"] == {**options, "interctc_layer_idx": [1, 2, 3]}
    assert (tmp_path / "y" / "valid.cer_ctc.best.pth").read_bytes() == b"weights"


def test_no_training_is_overwritten(stock, tmp_path):
    before = (stock / "config.yaml").read_text()
    for target in (stock, tmp_path / "another"):
        target.mkdir(exist_ok=True)
        if target != stock:
            (target / "valid.loss.best.pth").write_bytes(b"other weights")
        with pytest.raises(ValueError, match=f"{target.name} is a training"):
            add_gate(stock, target, {"gate_layer_idx": [2]})
    assert (stock / "valid.cer_ctc.best.pth").read_bytes() == b"weights"
    assert (stock / "config.yaml").read_text() == before


def test_bad_input(stock, tmp_path):
    with pytest.raises(ValueError, match="is not an experiment: there is no"):
        add_gate(tmp_path, tmp_path / "x", {"gate_layer_idx": [2]})
    for options, got in (
        ({"blank_threshold": 0.9}, r"\[\]"),
        ({"gate_layer_idx": [2, 4]}, r"\[2, 4\]"),
    ):
        with pytest.raises(ValueError, match=rf"of \[1, 2, 3\], but got {got}"):
            add_gate(stock, tmp_path / "x", options)
    for options, message in (
        ({"gate_layer_idx": [2], "blank_threshold": 0}, "blank_threshold must be a number"),
        ({"gate_layer_idx": [2], "num_blocks": 3}, "options are those of skipping .*num_blocks"),
    ):
        with pytest.raises(ValueError, match=message):
            add_gate(stock, tmp_path / "x", options)
    conf = yaml.safe_load((stock / "config.yaml").read_text())
    (stock / "config.yaml").write_text(yaml.safe_dump({**conf, "model_conf": {}}))
    with pytest.raises(ValueError, match=r"of \[\], but got \[2\]"):
        add_gate(stock, tmp_path / "x", {"gate_layer_idx": [2]})
    conf["model_conf"] = {"interctc_weight": 0.3, "interctc_head": "own"}
    (stock / "config.yaml").write_text(yaml.safe_dump(conf))
    with pytest.raises(ValueError, match="interctc_head: own, heads for its own gates alone"):
        add_gate(stock, tmp_path / "x", {"gate_layer_idx": [2]})
    with pytest.raises(ValueError, match="options are KEY=VALUE, but got gate"):
        main([str(stock), str(tmp_path / "y"), "gate"])


def test_an_encoder_that_cannot_skip(stock, tmp_path):
    conf = yaml.safe_load((stock / "config.yaml").read_text())
    conf |= {"encoder": "multiconv_conformer"}
    conf["encoder_conf"] = {"num_blocks": 4, "output_size": 16, "interctc_layer_idx": [2]}
    (stock / "config.yaml").write_text(yaml.safe_dump(conf))
    with pytest.raises(ValueError, match="a MultiConvConformerEncoder, which cannot skip; known"):
        add_gate(stock, tmp_path / "x", {"gate_layer_idx": [2]})
    assert not (tmp_path / "x").exists()
