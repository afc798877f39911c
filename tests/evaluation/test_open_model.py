import shutil

import pytest
import torch
import yaml

from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.evaluation.open_model import open_model, trained_layers
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.method.settings import OFF, SkipSettings
from tests.support.trials import change, save_random


def test_a_stock_model_gets_our_class_with_a_gate_at_each_trained_head(stock_exps, data):
    opened = open_model(stock_exps.trained)
    assert (opened.stock_class, opened.num_layers) == ("ConformerEncoder", 4)
    assert opened.trained == opened.gates == (1, 2)
    assert opened.usable == (1, 2)
    assert opened.own_settings is None
    assert (opened.no_ours, opened.no_gates, opened.no_fast) == ("", "", "")
    assert isinstance(opened.encoder, LayerSkipEncoder)
    assert opened.encoder.fast_form() is not None
    assert opened.encoder.settings.full_depth  # the gates are off
    assert opened.has_ctc
    assert not opened.has_decoder
    assert sorted(p.name for p in stock_exps.trained.iterdir()) == [
        "config.yaml",
        "valid.cer_ctc.ave.pth",
    ]

    stock, full = opened.stock(), System(opened, OFF)
    assert type(stock.encoder) is type(opened.encoder).STOCK
    batch = full.batch(data.speech[:1])
    torch.testing.assert_close(full.encode(batch).out, stock.encode(batch).out)
    assert not stock.encode(batch).intermediates
    skipping = System(opened, SkipSettings(0.3, (0, 0), "full", (1,)))
    assert skipping.transcribe(data.speech[0])[1].num_skipped > 0


def test_heads_that_were_not_trained_give_no_gate_unless_asked_for(stock_exps):
    opened = open_model(stock_exps.untrained)
    assert (opened.trained, opened.gates, opened.no_gates) == ((), (), "")
    forced = open_model(stock_exps.untrained, gates=[3])
    assert (forced.trained, forced.gates, forced.usable) == ((), (3,), (3,))


def test_a_gate_near_the_top_is_too_deep(tmp_path, stock_exps):
    exp = shutil.copytree(stock_exps.trained, tmp_path / "exp")
    opened = open_model(exp, gates=[1, 2, 3])
    object.__setattr__(opened, "num_layers", 3)
    assert opened.usable == (1, 2)


def test_labels_of_another_kind_do_not_train_a_gate(stock_exps):
    model = open_model(stock_exps.trained).model
    model.encoder.gate_layer_idx = []  # as it was
    assert trained_layers(model) == (1, 2)
    model.aux_ctc = {"1": "language"}
    assert trained_layers(model) == (2,)


def test_a_model_of_ours_keeps_its_own_setting_in_mind(exps):
    opened = open_model(exps["ours"])
    assert opened.trained == (1,)
    assert opened.own_settings.blank_threshold == 0.5
    assert opened.encoder.settings.full_depth


def test_what_has_no_fast_form(stock_exps):
    opened = open_model(stock_exps.legacy)
    assert "legacy" in opened.no_fast
    assert opened.gates == (1, 2)
    assert isinstance(opened.encoder, LayerSkipEncoder)


@pytest.mark.parametrize(
    ("changes", "no_ours", "no_gates"),
    [
        ({"encoder": "vgg_rnn", "encoder_conf": {}}, "which cannot skip; known are", "cannot skip"),
        ({"encoder_conf": {"ctc_trim": True}}, "ctc_trim", "ctc_trim"),
        ({"model_conf": {"ctc_weight": 0.0}}, "", "no CTC head"),
        ({"encoder_conf": {"positionwise_layer_type": "conv1d"}}, "", "positionwise_layer_type"),
        ({"postencoder": "length_adaptor", "postencoder_conf": {}}, "", "postencoder"),
    ],
)
def test_a_part_that_is_not_supported_is_named(stock_exps, tmp_path, changes, no_ours, no_gates):
    exp = shutil.copytree(stock_exps.trained, tmp_path / "exp")
    config = yaml.safe_load((exp / "config.yaml").read_text())
    for name, value in changes.items():
        if name == "encoder_conf" and value:
            changes[name] = config[name] | value
    change(exp, **changes)
    if changes.get("model_conf", {}).get("ctc_weight") == 0.0:
        change(exp, decoder="transformer", decoder_conf={"num_blocks": 1, "linear_units": 16})
    save_random(exp)

    opened = open_model(exp)
    assert no_ours in opened.no_ours
    assert bool(opened.no_ours) == bool(no_ours)
    assert no_gates in opened.no_gates
    assert opened.gates == ()
    with pytest.raises(ValueError, match="cannot have gates after layers"):
        open_model(exp, gates=[1])


@pytest.mark.parametrize(
    ("gates", "message"), [([4], "between 1 and 3"), ([0, 1], "between"), ([], "\\[\\]")]
)
def test_gates_that_the_encoder_cannot_have(stock_exps, gates, message):
    with pytest.raises(ValueError, match=message):
        open_model(stock_exps.trained, gates=gates)


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="experiment directory"):
        open_model(tmp_path / "gone.zip")
