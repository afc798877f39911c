import copy

import pytest
import torch

from espnet_layerskip._compat import CTC, ConformerEncoder, ESPnetASRModel, inference_module
from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.settings import OFF
from espnet_layerskip.evaluation.stock import fast_class, stock_class, stock_speech2text
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.method.ctc import LayerSkipCTC


def test_stock_class_has_the_same_output(experiment, data):
    off = System(experiment, OFF)
    stock = stock_class(off)
    assert type(stock.encoder) is ConformerEncoder
    batch = off.batch(data.speech[:1])
    assert torch.allclose(stock.encode(batch)[0], off.encode(batch)[0], atol=1e-6)
    stock.prepare()
    assert off.model.encoder is stock.encoder
    off.prepare()
    assert off.model.encoder is experiment.encoder


def test_fast_class_has_the_same_output(stock_twin, data):
    plain = System(stock_twin, OFF)
    fast = fast_class(plain)
    assert fast.encoder.fast_layers() is not None
    batch = plain.batch(data.speech[:1])
    assert torch.allclose(fast.encode(batch)[0], plain.encode(batch)[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "experiment", "stock_twin"])
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
    ours.prepare()
    assert torch.allclose(log_probs, ours.posteriors([wave])[0], atol=1e-4)


def test_stock_speech2text_has_weights_of_its_own(plain, data):
    """What is done to it does not change our rows."""
    stock = stock_speech2text(plain, beam_size=2)
    ours = System(plain, OFF)
    before = ours.transcribe(data.speech[0])[0]
    with torch.no_grad():
        for parameter in stock.asr_model.parameters():
            parameter.zero_()
    assert ours.transcribe(data.speech[0])[0] == before


def test_intermediate_outputs_are_not_computed(plain, data):
    """They would cost stock ESPnet time that nobody asked for."""
    other = copy.copy(plain)
    conf = {**plain.speech2text.asr_train_args.encoder_conf, "interctc_layer_idx": [2]}
    args = copy.copy(plain.speech2text.asr_train_args)
    args.encoder_conf = conf
    speech2text = copy.copy(plain.speech2text)
    speech2text.asr_train_args = args
    object.__setattr__(other, "speech2text", speech2text)
    assert stock_class(System(other, OFF)).encoder.interctc_layer_idx == []


def test_weights_that_do_not_fit(exps):
    narrow = load_experiment(exps["narrow"])
    with pytest.raises(ValueError, match=r"does not fit the model.*embed"):
        stock_speech2text(narrow, beam_size=1)
    with pytest.raises(ValueError, match=r"does not fit the model.*embed"):
        stock_class(System(narrow, OFF))
    object.__setattr__(narrow, "encoder", torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="Linear is not a Conformer"):
        stock_speech2text(narrow, beam_size=1)
