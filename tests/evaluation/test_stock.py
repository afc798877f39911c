import shutil

import pytest
import torch
import yaml

from espnet_layerskip._compat import CTC, ConformerEncoder, ESPnetASRModel, inference_module
from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.stock import (
    StockSearch,
    fast_class,
    stock_class,
    stock_speech2text,
)
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.method.ctc import LayerSkipCTC
from espnet_layerskip.method.settings import OFF
from tests.support.numerics import assert_same


@pytest.mark.numerics
def test_stock_class_has_the_same_output(experiment, data):
    off = System(experiment, OFF)
    stock = stock_class(experiment)
    assert type(stock.encoder) is ConformerEncoder
    batch = off.batch(data.speech[:1])
    assert_same(stock.encode(batch).out, off.encode(batch).out)
    assert stock.model.encoder is stock.encoder
    assert type(off.model.encoder) is type(experiment.encoder)


@pytest.mark.numerics
def test_fast_class_has_the_same_output(stock_twin, data):
    plain, fast = System(stock_twin, OFF), fast_class(stock_twin)
    assert fast.encoder.fast_form() is not None
    assert type(stock_twin.encoder) is type(plain.encoder) is ConformerEncoder
    batch = plain.batch(data.speech[:1])
    assert_same(fast.encode(batch).out, plain.encode(batch).out)


@pytest.mark.parametrize("kind", ["plain", "experiment", "stock_twin"])
@pytest.mark.numerics
def test_stock_speech2text_is_made_of_espnets_classes(kind, data, request):
    experiment = request.getfixturevalue(kind)
    stock = stock_speech2text(experiment, beam_size=1)
    assert type(stock) is inference_module().Speech2Text
    assert type(stock.asr_model) is ESPnetASRModel
    assert type(stock.asr_model.encoder) is ConformerEncoder
    # ESPnet has no factorized head
    assert type(stock.asr_model.ctc) is (LayerSkipCTC if kind == "experiment" else CTC)
    assert stock.beam_search.scorers["ctc"].ctc is stock.asr_model.ctc
    assert stock.beam_search.weights["ctc"] == 1.0
    assert list(stock.beam_search.scorers) == ["ctc"]
    ours = System(experiment, OFF)
    wave = torch.from_numpy(data.speech[0].samples)
    with torch.no_grad():
        out, _ = stock.asr_model.encode(wave[None], torch.tensor([wave.numel()]))
        log_probs = stock.asr_model.ctc.log_softmax(out)
    assert_same(log_probs, ours.posteriors([wave])[0], rtol=1e-5)


def test_stock_speech2text_has_weights_of_its_own(plain, data):
    """What is done to it does not change our rows."""
    stock = stock_speech2text(plain, beam_size=2)
    ours = System(plain, OFF)
    before = ours.transcribe(data.speech[0])[0]
    with torch.no_grad():
        for parameter in stock.asr_model.parameters():
            parameter.zero_()
    assert ours.transcribe(data.speech[0])[0] == before


def test_intermediate_outputs_are_not_computed(exps, tmp_path):
    """They would cost stock ESPnet time that nobody asked for."""
    exp = shutil.copytree(exps["plain"], tmp_path / "exp")
    config = yaml.safe_load((exp / "config.yaml").read_text())
    config["encoder_conf"]["interctc_layer_idx"] = [1]
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    experiment = load_experiment(exp)
    assert experiment.encoder.interctc_layer_idx == [1]
    assert stock_class(experiment).encoder.interctc_layer_idx == []


def test_weights_that_do_not_fit(exps):
    narrow = load_experiment(exps["narrow"])
    with pytest.raises(ValueError, match=r"does not fit the model.*embed"):
        stock_speech2text(narrow, beam_size=1)
    with pytest.raises(ValueError, match=r"does not fit the model.*embed"):
        stock_class(narrow)
    narrow.model.encoder = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="Linear is not an encoder of ESPnet"):
        stock_speech2text(narrow, beam_size=1)
    with pytest.raises(ValueError, match="Linear"):
        fast_class(narrow)


def test_espnets_search_describes_itself(plain, data):
    stock = StockSearch(stock_speech2text(plain, beam_size=1))
    classes = "ESPnetASRModel, ConformerEncoder, CTC, BatchBeamSearch"
    assert stock.describe().startswith(f"ESPnet's Speech2Text: {classes}, beam 1")
    assert isinstance(stock.transcribe(data.speech[0])[0], str)
