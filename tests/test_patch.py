"""Skipping for a loaded model: in place, with its own parameters, and back again."""

import copy
import logging
import shutil

import numpy as np
import pytest
import torch

from espnet_layerskip import add_skipping, remove_skipping
from espnet_layerskip._compat import ConformerEncoder
from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.encoders.convert import from_stock, make_ours, to_stock
from espnet_layerskip.inference.posteriors import encode, extract_features
from espnet_layerskip.inference.speech2text import ESPnetSpeech2Text, load_model
from espnet_layerskip.method.settings import OFF
from tests.support.experiments import write_calibration
from tests.support.numerics import assert_same

GATES = {"gate_layer_idx": [1, 2], "blank_threshold": 0.6, "spike_extension": (0, 1)}


@pytest.fixture
def stock(models):
    config, checkpoint = models["stock"] / "config.yaml", models["stock"] / "valid.loss.ave.pth"
    model = ESPnetSpeech2Text(config, checkpoint, beam_size=2, ctc_weight=1.0)
    with torch.no_grad():  # so that some frames are blank at the gates, and some are not
        model.asr_model.ctc.ctc_lo.bias[0] = 0.5
    return model


@torch.no_grad()
def assert_hears_of_loaded_weights(encoder, x, lens):
    """The fast form shares some weights and has others rearranged: both must be the new ones."""
    assert encoder.fast_form() is not None
    halved = {n: v / 2 for n, v in encoder.encoders.state_dict().items() if v.is_floating_point()}
    encoder.encoders.load_state_dict(halved, strict=False)
    found = encoder.run(x, lens, skip=False).out
    encoder.optimize_for_inference()
    assert_same(found, encoder.run(x, lens, skip=False).out)


def text(nbest):
    return nbest[0][:3]


def test_espnets_own_object_skips_and_goes_back(stock, waves):
    """What skips is what `layerskip_conformer` with these weights skips."""
    before, expected = dict(stock.asr_model.state_dict()), text(stock(waves[0]))
    encoder = stock.asr_model.encoder
    assert add_skipping(stock, **GATES) is stock
    assert stock.asr_model.encoder is encoder
    assert type(encoder) is ENCODERS["layerskip_conformer"]
    assert encoder.gate_layer_idx == [1, 2]
    after = stock.asr_model.state_dict()
    assert list(after) == list(before)
    assert all(after[name].data_ptr() == value.data_ptr() for name, value in before.items())
    feats = [extract_features(stock.asr_model, torch.from_numpy(waves[0]))]
    with torch.no_grad():
        encoded = encode(stock.asr_model, feats)
        off = encode(stock.asr_model, feats, OFF)
    assert 0 < encoded.trace.num_skipped() < encoded.trace.num_frames()
    assert off.trace is None
    assert not torch.allclose(encoded.out, off.out)
    skipping = text(stock(waves[0]))
    encoder.blank_threshold = 1.0
    assert text(stock(waves[0])) == expected
    encoder.blank_threshold = 0.6
    assert text(stock(waves[0])) == skipping
    attributes = set(vars(encoder))
    assert remove_skipping(stock) is stock
    assert type(encoder) is ConformerEncoder
    assert encoder.ctc_trim is False
    assert len(vars(encoder)) < len(attributes)
    assert text(stock(waves[0])) == expected
    add_skipping(stock, **GATES)  # and again
    assert text(stock(waves[0])) == skipping


def test_gates_are_as_calibrated_unless_a_threshold_is_given(exps, tmp_path):
    """Our object knows its calibration; for ESPnet's the checkpoint leads to it."""
    exp = shutil.copytree(exps["ours"], tmp_path / "exp")
    write_calibration(exp, 0.7)
    calibrated = "threshold=0.7 extension=1,2 context=packed gates=1"
    ours = load_model(exp, decoder_type="greedy")
    files = ours.model_files
    theirs = ESPnetSpeech2Text(files.train_config, files.model_file, ctc_weight=1.0)
    for model, known in ((ours, {}), (theirs, {"model_file": files.model_file})):
        encoder = model.asr_model.encoder
        add_skipping(model, [1], **known)
        assert encoder.settings.describe() == calibrated
        add_skipping(model, [1], skip_context="full", **known)
        assert encoder.settings.describe() == calibrated.replace("packed", "full")
        add_skipping(model, [1], blank_threshold=0.8, **known)
        assert encoder.settings.describe() == "threshold=0.8 extension=1,1 context=full gates=1"
        for other in ([2], [1, 2]):  # gates that nobody calibrated
            add_skipping(model, other, **known)
            assert encoder.settings.blank_threshold == 0.9
            assert encoder.settings.gates_in_use == tuple(other)


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_the_precision_stays(models, precision):
    model = load_model(models["skip"], decoder_type="greedy", precision=precision)
    for gates in ([1], [2]):
        encoder = add_skipping(model, gates, blank_threshold=0.5).asr_model.encoder
        assert encoder.fast_form().precision == precision


def test_our_object_and_its_batches(models, waves):
    model = load_model(models["stock"], decoder_type="greedy")
    alone = [model(wave) for wave in waves]
    with torch.no_grad():
        model.asr_model.ctc.ctc_lo.bias[0] = 0.5
    add_skipping(model, **GATES)
    found = model.recognize(waves)
    assert sum(one.skips.num_skipped for one in found) > 0
    assert [text(one.nbest) for one in found] == [text(model(wave)) for wave in waves]
    assert model.asr_model.encoder.fast_form() is not None
    remove_skipping(model)
    with torch.no_grad():
        model.asr_model.ctc.ctc_lo.bias[0] = 2.0
    assert [text(model(wave)) for wave in waves] == [text(nbest) for nbest in alone]


def test_other_gates_for_one_of_ours(models, waves):
    model = load_model(models["skip"], decoder_type="greedy")
    full = model.recognize(waves, settings=OFF)
    add_skipping(model, gate_layer_idx=[2], blank_threshold=0.6)
    assert model.asr_model.encoder.gate_layer_idx == [2]
    assert [text(r.nbest) for r in model.recognize(waves, settings=OFF)] == [
        text(r.nbest) for r in full
    ]
    remove_skipping(model)
    assert type(model.asr_model.encoder) is ConformerEncoder


def test_what_fails_or_copies_leaves_one_of_ours_as_it_was(models):
    """Its fast form still hears of weights that are loaded."""
    encoder = load_model(models["skip"], decoder_type="greedy").asr_model.encoder
    settings, x, lens = encoder.settings, torch.randn(1, 60, 20), torch.tensor([60])
    with pytest.raises(ValueError, match="layers between 1 and 2"):
        make_ours(encoder, [7])
    from_stock(encoder, [2], blank_threshold=0.9)
    to_stock(encoder)
    assert (encoder.settings, encoder.gate_layer_idx) == (settings, [1, 2])
    assert_hears_of_loaded_weights(encoder, x, lens)


def test_other_gates_again_and_again_leave_no_hooks(models):
    encoder = load_model(models["skip"], decoder_type="greedy").asr_model.encoder
    numbers = []
    for gates in ([1], [2], [1, 2]):
        make_ours(encoder, gates)
        numbers.append(len(encoder.encoders._load_state_dict_post_hooks))
    assert numbers == [1, 1, 1]
    assert encoder.ctc_trim is True
    make_ours(encoder, [])
    assert encoder.ctc_trim is False


def test_a_model_in_training(models, waves):
    model = load_model(models["stock"], decoder_type="greedy").asr_model.train()
    add_skipping(model, gate_layer_idx=[1], blank_threshold=0.6, train_skip_prob=1.0)
    assert model.encoder.fast_form() is None
    assert model.encoder.train_skip_prob == 1.0


def test_untrained_heads_are_warned_of(stock, caplog):
    with caplog.at_level(logging.WARNING):
        add_skipping(stock, gate_layer_idx=[2])
    assert "not known to be trained for layers [2]" in caplog.text
    remove_skipping(stock)
    caplog.clear()
    stock.asr_model.encoder.interctc_layer_idx = [2]
    add_skipping(stock, gate_layer_idx=[2])
    assert not caplog.records


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate_layer_idx": [3]}, "layers between 1 and 2"),
        ({"gate_layer_idx": [1], "blank_threshold": 0}, "blank_threshold must be a number"),
        ({"gate_layer_idx": [1], "skip_context": "dense"}, "skip_context must be one of"),
        ({"gate_layer_idx": [1], "blank_threshold": (0.5, 0.6)}, "one for each of the gate layers"),
        ({"gate_layer_idx": ()}, "add_skipping needs a gate"),
        ({"gate_layer_idx": None}, "add_skipping needs a gate"),
        ({"gate_layer_idx": [1.5]}, "gate_layer_idx must be layer numbers"),
        (
            {"gate_layer_idx": [1], "train_skip_prob": "often"},
            "train_skip_prob must be in",
        ),
        ({"gate_layer_idx": [1], "train_spike_extensions": [None]}, "must be a list of"),
        ({"gate_layer_idx": [1], "train_spike_extensions": 3}, "must be a list of"),
        ({"gate_layer_idx": [1], "model_file": "exp/none.pth"}, "exp/none.pth: no such file"),
    ],
)
def test_what_does_not_fit_leaves_the_model_as_it_was(stock, waves, options, message):
    expected, attributes = text(stock(waves[0])), set(vars(stock.asr_model.encoder))
    with pytest.raises(ValueError, match=message):
        add_skipping(stock, **options)
    assert type(stock.asr_model.encoder) is ConformerEncoder
    assert set(vars(stock.asr_model.encoder)) == attributes
    assert text(stock(waves[0])) == expected
    with pytest.raises(TypeError, match="no setting blank_treshold; it has blank_threshold, exit"):
        add_skipping(stock, gate_layer_idx=[1], blank_treshold=0.5)
    assert type(stock.asr_model.encoder) is ConformerEncoder


@pytest.mark.parametrize("gates", [1, "1", [np.int64(1)], torch.tensor([1]), iter([1]), [1, 1]])
def test_gates_in_any_form(stock, gates):
    encoder = add_skipping(stock, gates, blank_threshold=np.array([0.6])).asr_model.encoder
    assert (encoder.gate_layer_idx, encoder.settings.blank_threshold) == ([1], 0.6)
    add_skipping(stock, [1, 2], blank_threshold=np.array([0.5, 0.75]))
    assert encoder.settings.blank_threshold == (0.5, 0.75)


def test_wrapped_and_quantized_models(stock, waves):
    held = torch.nn.DataParallel(stock.asr_model)
    add_skipping(held, **GATES)
    assert stock.asr_model.encoder.gate_layer_idx == [1, 2]
    remove_skipping(held)
    torch.ao.quantization.quantize_dynamic(stock.asr_model.encoder, inplace=True)
    expected = text(stock(waves[0]))
    encoder = add_skipping(stock, **GATES).asr_model.encoder
    assert encoder.fast_form() is None
    encoder.blank_threshold = 1.0
    assert text(stock(waves[0])) == expected


def test_models_that_cannot_be_taken(stock):
    with pytest.raises(ValueError, match="with an encoder is needed, but got a Linear"):
        add_skipping(torch.nn.Linear(1, 1), [1])
    with pytest.raises(ValueError, match="ConformerEncoder, which does not skip"):
        remove_skipping(stock)
    headless = copy.copy(stock.asr_model)
    headless._modules = {**headless._modules, "ctc": None}
    with pytest.raises(ValueError, match="has no CTC head"):
        add_skipping(headless, [1])
    other = copy.copy(stock.asr_model)
    other._modules = {**other._modules, "encoder": torch.nn.GRU(2, 2)}
    with pytest.raises(ValueError, match="is a GRU, which cannot skip; known are .*ConformerEnc"):
        add_skipping(other, [1])


def test_copies_share_the_modules(stock):
    encoder = stock.asr_model.encoder
    ours = from_stock(encoder, [1], blank_threshold=0.6)
    assert type(encoder) is ConformerEncoder
    assert ours.encoders is encoder.encoders
    ours.optimize_for_inference()
    assert type(to_stock(ours)) is ConformerEncoder
    assert ours.gate_layer_idx == [1]
    x, lens = torch.randn(1, 60, 20), torch.tensor([60])
    assert_hears_of_loaded_weights(ours, x, lens)
