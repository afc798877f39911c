"""What a call takes: anything but samples as floats is refused by name."""

import logging

import numpy as np
import pytest
import torch

from espnet_layerskip.inference.samples import as_array, check_samples, names_of
from espnet_layerskip.inference.speech2text import load_model
from espnet_layerskip.method.settings import OFF, SkipSettings, check_count

WAVE = np.linspace(-1, 1, 9, dtype=np.float32)


@pytest.mark.parametrize("wave", [WAVE, WAVE.astype(float), torch.from_numpy(WAVE), WAVE[:0]])
def test_floats_pass(wave):
    assert check_samples(wave, "a") is wave


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "wave",
    [
        WAVE.astype(">f4"),
        WAVE.astype(np.longdouble),
        WAVE[::-1].copy()[::-1],
        np.repeat(WAVE, 2)[::2],
        np.frombuffer(WAVE.tobytes(), "f4"),
        torch.from_numpy(WAVE).clone().requires_grad_(),
        torch.from_numpy(WAVE).bfloat16(),
    ],
    ids=["big-endian", "longdouble", "backwards", "gaps", "read-only", "gradient", "bfloat16"],
)
def test_floats_of_any_kind_are_taken(wave):
    found = check_samples(wave, "a")
    tensor = torch.as_tensor(found)  # without a warning
    for array in (as_array(found), tensor.numpy()):
        assert array.dtype in (np.float32, np.float64)
        np.testing.assert_allclose(array, WAVE, atol=1e-2)


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        ((WAVE * 32767).astype(np.int16), r"^a: samples \(N,\) are needed.* got int16 \(9,\)"),
        (torch.ones(9, dtype=torch.int16), r"got torch.int16 \(9,\)"),
        (WAVE[None], r"got float32 \(1, 9\)"),
        (WAVE[0], r"got float32 \(\)"),
        (WAVE.astype(complex), "got complex128"),
        ("a.wav", "got str 'a.wav' .files are read by soundfile"),
        (0.5, "got float 0.5"),
        (WAVE * 32767, r"^a: samples in \[-1, 1\] are needed, but the largest is 32767: divide"),
        (-torch.ones(9) * 32768, "the largest is 32768"),
    ],
)
def test_other_samples_are_refused(wave, message):
    with pytest.raises(ValueError, match=message):
        check_samples(wave, "a")


def test_samples_that_are_not_finite_are_told_elsewhere():
    for value in (np.nan, np.inf, 1e30):
        check_samples(np.full(9, value, np.float32), "a")


def test_names():
    assert names_of([WAVE], ["a"]) == ["a"]
    assert names_of([WAVE, WAVE], None) == ["utterance 0 of the batch", "utterance 1 of the batch"]
    with pytest.raises(ValueError, match="2 utterances need as many utt_ids, but got 1"):
        names_of([WAVE, WAVE], ["a"])
    for value in (None, "a.wav", {"speech": WAVE}, iter([WAVE]), WAVE):
        with pytest.raises(ValueError, match=r"samples \(N,\) or a list of them are needed, but"):
            names_of(value, None)


@pytest.mark.parametrize("decoder", ["greedy", "espnet"])
def test_every_way_in_is_guarded(models, waves, decoder):
    model, integers = load_model(models["stock"], decoder_type=decoder), np.ones(9000, np.int16)
    for call in (model, lambda wave: model([wave]), lambda wave: model.recognize([wave])):
        with pytest.raises(ValueError, match="got int16"):
            call(integers)
    if decoder == "greedy":
        with pytest.raises(ValueError, match="^b: .*got int16"):
            model.recognize_blocks([waves[0], integers], "b")
    with pytest.raises(ValueError, match="'threshold=0.9' need gates, but the encoder is a"):
        model.recognize(waves, settings=SkipSettings(0.9))
    with pytest.raises(ValueError, match="settings must be a SkipSettings, but got 'off'"):
        model.recognize(waves, settings="off")
    assert len(model.recognize(waves[:1], settings=OFF)) == 1


@pytest.mark.parametrize("decoder", ["greedy", "espnet"])
def test_arrays_that_pytorch_does_not_take(models, waves, decoder):
    model, wave = load_model(models["stock"], decoder_type=decoder), waves[1]
    expected = model(wave)[0][:3]
    for odd in (wave.astype(">f4"), wave[::-1].copy()[::-1], wave.astype(np.longdouble)):
        assert model(odd)[0][:3] == expected
    if decoder == "greedy":
        assert model.recognize_blocks([wave.astype(">f4")]).nbest[0][:3] == expected


@pytest.mark.parametrize("value", [0, -1, 2.5, "2", None, True])
def test_numbers_of_things(value):
    with pytest.raises(ValueError, match="at least 1, but got .*: a whole number"):
        check_count("beam_size", value)
    assert check_count("beam_size", np.int64(2)) == 2


@pytest.mark.parametrize("decoder", ["greedy", "prefix_beam", "espnet"])
def test_numbers_of_hypotheses_are_checked_for_every_decoder(models, decoder):
    for name, value in (("nbest", 0), ("beam_size", 0), ("beam_size", 2.5)):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, but got {value}"):
            load_model(models["stock"], decoder_type=decoder, **{name: value})


def test_a_beam_wider_than_the_vocabulary(models, waves, caplog):
    with caplog.at_level(logging.WARNING):
        model = load_model(models["stock"], decoder_type="espnet", beam_size=1000)
    tokens = len(model.asr_model.token_list)
    assert f"beam_size 1000 is more than the {tokens} tokens: it is {tokens}" in caplog.text
    assert model(waves[0])
