"""The model in egs2/an4/asr1/pretrained: it loads everywhere, and still has its error rate."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile

import an4
import espnet_layerskip  # noqa: F401  (registers the encoder and the model with ESPnet)
from espnet_layerskip._compat import inference_module
from espnet_layerskip.inference.pretrained import find_model
from espnet_layerskip.inference.speech2text import load_model

REPO = Path(__file__).parents[1]
MODEL = REPO / "egs2/an4/asr1/pretrained/an4_layerskip.zip"
AN4 = Path(os.environ.get("ESPNET_LAYERSKIP_AN4_ROOT", REPO.parent / "shared/data/an4"))
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


def test_it_names_no_place_of_the_machine_that_made_it() -> None:
    with zipfile.ZipFile(MODEL) as archive:
        for name in archive.namelist():
            if name.endswith((".json", ".yaml", ".md")):
                text = archive.read(name).decode()
                assert not PLACE.search(text), name


def test_espnets_own_class_loads_it() -> None:
    files = find_model(MODEL)
    stock = inference_module().Speech2Text(
        asr_train_config=files.train_config,
        asr_model_file=files.model_file,
        ctc_weight=1.0,
        beam_size=1,
    )
    noise = np.random.RandomState(0).standard_normal(16000).astype(np.float32)
    ours = load_model(MODEL, decoder_type="greedy")
    assert isinstance(stock(0.01 * noise)[0][0], str)
    assert isinstance(ours(0.01 * noise)[0][0], str)


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "errors", "skipped"), [("auto", 47, 0.18), ("off", 47, 0.0)])
def test_its_error_rate_on_an4(tmp_path: Path, threshold: str, errors: int, skipped: float) -> None:
    if not AN4.is_dir():
        pytest.skip(f"no AN4 at {AN4}; set ESPNET_LAYERSKIP_AN4_ROOT to run this")
    test = an4.prepare(AN4, tmp_path)["test"]
    model = load_model(MODEL, decoder_type="greedy", blank_threshold=threshold)
    found, num_frames, num_skipped = [], 0, 0
    for path in test.wav.values():
        found.append(model(soundfile.read(path, dtype="float32")[0])[0][0] or "")
        num_frames += model.last_skips[0].num_frames
        num_skipped += model.last_skips[0].num_skipped
    scored = jiwer.process_words(list(test.text.values()), found)
    # another processor may round a frame to the other side of the threshold
    assert abs(scored.substitutions + scored.deletions + scored.insertions - errors) <= 3
    assert num_skipped / num_frames == pytest.approx(skipped, abs=0.01)
