"""The models in egs2/*/asr1/pretrained: they load everywhere, and still have their error rates."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile

import an4
import espnet_layerskip  # noqa: F401  (registers the encoder and the model with ESPnet)
import so762
from espnet_layerskip._compat import inference_module
from espnet_layerskip.inference.pretrained import find_model
from espnet_layerskip.inference.speech2text import load_model

REPO = Path(__file__).parents[1]
MODEL = REPO / "egs2/an4/asr1/pretrained/an4_layerskip.zip"
ENGLISH = REPO / "egs2/speechocean762/asr1/pretrained/english_layerskip.zip"
AN4 = Path(os.environ.get("ESPNET_LAYERSKIP_AN4_ROOT", REPO.parent / "shared/data/an4"))
SO762 = os.environ.get("ESPNET_LAYERSKIP_SO762_ROOT")
PLACE = re.compile(r"(?<![\w.])/(?:home|root|work|Users|tmp|mnt|var)/")


def test_it_is_small_and_carries_a_calibrated_gate() -> None:
    assert MODEL.stat().st_size < 20e6
    model = load_model(MODEL, decoder_type="greedy", blank_threshold="auto")
    assert model.calibration is not None
    assert (
        model.asr_model.encoder.blank_threshold == model.calibration.settings.blank_threshold == 0.8
    )
    # its development set chose the checkpoint and shows nothing: file and card say so
    assert not model.calibration.shown
    assert list(model.calibration.data["seen"]) == ["chose the checkpoint"]
    card = " ".join(MODEL.with_name("README.md").read_text(encoding="utf-8").split())
    assert "It is not shown to keep its budget" in card
    full, chosen = model.calibration.full_depth["rate"], model.calibration.chosen["rate"]
    assert f"skipping has {chosen:.1f} % where full depth has {full:.1f} %" in card
    assert f"at the temperature {model.confidence_temperature:.2f}" in card


def test_the_english_one_is_small_and_shown_to_keep_its_budget() -> None:
    assert ENGLISH.stat().st_size < 20e6
    model = load_model(ENGLISH, decoder_type="greedy", blank_threshold="auto")
    found = model.calibration
    assert found is not None
    assert found.shown
    assert not found.data["seen"]
    assert found.settings.blank_threshold == model.asr_model.encoder.blank_threshold == 0.9
    card = " ".join(ENGLISH.with_name("README.md").read_text(encoding="utf-8").split())
    assert f"It is shown to keep its budget, {found.max_increase:g} % more errors" in card
    assert f"fewer than {found.settings.min_skipped_frames} frames would skip" in card
    assert f"at the temperature {model.confidence_temperature:.2f}" in card


@pytest.mark.parametrize("model", [MODEL, ENGLISH], ids=["an4", "english"])
def test_it_names_no_place_of_the_machine_that_made_it(model: Path) -> None:
    with zipfile.ZipFile(model) as archive:
        for name in archive.namelist():
            if name.endswith((".json", ".yaml", ".md")):
                text = archive.read(name).decode()
                assert not PLACE.search(text), name


@pytest.mark.parametrize("model", [MODEL, ENGLISH], ids=["an4", "english"])
def test_espnets_own_class_loads_it(model: Path) -> None:
    files = find_model(model)
    stock = inference_module().Speech2Text(
        asr_train_config=files.train_config,
        asr_model_file=files.model_file,
        ctc_weight=1.0,
        beam_size=1,
    )
    noise = np.random.RandomState(0).standard_normal(16000).astype(np.float32)
    ours = load_model(model, decoder_type="greedy")
    assert isinstance(stock(0.01 * noise)[0][0], str)
    assert isinstance(ours(0.01 * noise)[0][0], str)


def decode(
    path: Path, threshold: str, wav: Iterable[str], text: Iterable[str]
) -> tuple[int, float]:
    """Return the number of word errors and the share of frames that skip."""
    model = load_model(path, decoder_type="greedy", blank_threshold=threshold)
    found, num_frames, num_skipped = [], 0, 0
    for one in wav:
        found.append(model(soundfile.read(one, dtype="float32")[0])[0][0] or "")
        num_frames += model.last_skips[0].num_frames
        num_skipped += model.last_skips[0].num_skipped
    scored = jiwer.process_words(list(text), found)
    return scored.substitutions + scored.deletions + scored.insertions, num_skipped / num_frames


# another processor may round a frame to the other side of the threshold
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "threshold", "errors", "skipped"),
    [(MODEL, "auto", 47, 0.18), (MODEL, "off", 47, 0.0), (ENGLISH, "auto", 69, 0.40)],
)
def test_its_error_rate_on_an4(
    tmp_path: Path, model: Path, threshold: str, errors: int, skipped: float
) -> None:
    if not AN4.is_dir():
        pytest.skip(f"no AN4 at {AN4}; set ESPNET_LAYERSKIP_AN4_ROOT to run this")
    test = an4.prepare(AN4, tmp_path)["test"]
    found = decode(model, threshold, test.wav.values(), test.text.values())
    assert found[0] == pytest.approx(errors, abs=3)
    assert found[1] == pytest.approx(skipped, abs=0.01)


@pytest.mark.slow
def test_the_error_rate_of_the_english_one_on_a_tenth_of_speechocean762() -> None:
    if SO762 is None:
        pytest.skip("set ESPNET_LAYERSKIP_SO762_ROOT to run this")
    test = so762.read_part(so762.find_root(Path(SO762)), "test")
    ids = sorted(test.wav)[::10]
    wav, text = ([table[utt] for utt in ids] for table in (test.wav, test.text))
    (off, none), (on, skipped) = (decode(ENGLISH, t, wav, text) for t in ("off", "auto"))
    assert (off, none) == (pytest.approx(1042, abs=5), 0.0)
    assert (on, skipped) == (pytest.approx(1038, abs=5), pytest.approx(0.417, abs=0.01))
