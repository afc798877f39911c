import dataclasses
import json
import logging
import math
from types import SimpleNamespace

import pytest

from espnet_layerskip.evaluation.calibration_page import calibration_page
from espnet_layerskip.inference.calibration import (
    Calibration,
    calibrated_temperature,
    calibration_file,
    choose_skipping,
    read_calibration,
)
from espnet_layerskip.method.settings import OFF, SkipSettings
from espnet_layerskip.training.checkpoint import file_digest


def row(threshold, flops, rate=10.0, fits=True):
    interval = {"difference": 0.1, "low": -0.2, "high": 0.4}
    return {
        "settings": SkipSettings(threshold, (0, 1)).to_json(),
        "rate": rate,
        "increase": interval,
        "excess": interval,
        "skip_ratio": 0.25,
        "encoder_flops": flops,
        "utterances_needed": 1234,
        "fits": fits,
    }


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "valid.loss.ave.pth"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def calibration(weights):
    return Calibration(
        settings=SkipSettings(0.95, (0, 1), "packed", (4,)),
        metric="wer",
        max_increase=1.0,
        kept_by="upper bound",
        warnings=[],
        checkpoint=weights.name,
        sha256=file_digest(weights),
        data={"name": "dev", "utterances": 100, "sha256": "0"},
        full_depth=row(1.0, 100),
        chosen=row(0.95, 75),
        sweep=[row(0.99, 80), row(0.95, 75)],
        environment={},
        command="",
    )


def encoder(gates=(2, 4)):
    settings = SkipSettings(0.9, (1, 1), "full", gates, 1.0, 0.02)
    return SimpleNamespace(gate_layer_idx=list(gates), settings=settings)


def use_calibration(encoder, weights, **settings):
    return choose_skipping(encoder, weights, "auto", SkipSettings(**settings))


def test_file_round_trip(calibration, weights):
    path = calibration_file(weights)
    assert path == weights.parent / "calibration.json"
    calibration.save(path)
    assert read_calibration(path) == calibration


def test_it_is_used_where_it_fits(calibration, weights):
    model = encoder()
    assert use_calibration(model, weights) is None, "there is none yet"
    calibration.save(calibration_file(weights))
    assert use_calibration(model, weights) == calibration
    assert model.settings == SkipSettings(0.95, (0, 1), "packed", (4,), 1.0, 0.02)
    assert model.gate_layer_idx == [2, 4]
    assert use_calibration(SimpleNamespace(), weights) is None
    assert choose_skipping(model, weights, 0.5, SkipSettings(0.5)) is None, "it was not asked for"
    assert model.settings.blank_threshold == 0.5


def test_the_temperature_belongs_to_the_weights(calibration, weights, caplog):
    """However they skip: a threshold of one's own, or none."""
    assert calibrated_temperature(None, weights, encoder(), 0.5) == 1.0, "there is none yet"
    known = dataclasses.replace(
        calibration, confidence={"temperature": 1.5, "words": 9, "right": 8}
    )
    known.save(calibration_file(weights))
    assert choose_skipping(encoder(), weights, "off", SkipSettings("off")) is None
    for used, asked in ((known, "auto"), (None, "off"), (None, 0.5)):
        assert calibrated_temperature(used, weights, encoder(), asked) == 1.5
    assert calibrated_temperature(None, weights, encoder(), None) == 1.0, "as configured"
    assert calibrated_temperature(None, None, encoder(), 0.5) == 1.0
    assert calibrated_temperature(None, weights, SimpleNamespace(), 0.5) == 1.0, "it cannot skip"
    calibration_file(weights).write_text("{}")
    assert calibrated_temperature(None, weights, encoder(), 0.5) == 1.0
    assert "confidences are not corrected" in caplog.text


def test_an_option_beside_auto_wins(calibration, weights, caplog):
    calibration.save(calibration_file(weights))
    model = encoder()
    assert use_calibration(model, weights, spike_extension="2,2") == calibration
    assert model.settings == SkipSettings(0.95, (2, 2), "packed", (4,), 1.0, 0.02)
    assert "win over what was calibrated" in caplog.text


def test_one_line_says_what_is_used(calibration, weights, caplog):
    def said(model_file, threshold, settings):
        caplog.clear()
        choose_skipping(encoder(), model_file, threshold, settings)
        [line] = caplog.messages
        return line

    caplog.set_level(logging.INFO)
    assert said(weights, "auto", SkipSettings()).startswith("skipping is as configured: threshold")
    assert said(weights, "off", SkipSettings("off")) == "skipping is as asked for: off"
    calibration.save(calibration_file(weights))
    line = said(weights, "auto", SkipSettings())
    assert line == f"skipping is as calibrated: {calibration.describe()}"
    assert "=2,2" in said(weights, "auto", SkipSettings(spike_extension=(2, 2)))
    weights.write_bytes(b"trained on")
    assert "it is not used" in said(weights, "auto", SkipSettings())


def test_a_setting_that_is_not_shown_is_used_with_a_warning(calibration, weights, caplog):
    with caplog.at_level(logging.WARNING):
        calibration.save(calibration_file(weights))
        use_calibration(encoder(), weights)
        assert caplog.text == ""
        luck = dataclasses.replace(calibration, kept_by="point estimate")
        luck.save(calibration_file(weights))
        assert use_calibration(encoder(), weights) == luck
    assert "as calibrated, not shown to keep its budget: threshold=0.95" in caplog.text


def test_other_weights_or_gates_are_warned_of_and_change_nothing(calibration, weights, caplog):
    calibration.save(calibration_file(weights))
    other = encoder((3,))
    with caplog.at_level(logging.WARNING):
        assert use_calibration(other, weights) is None
        assert r"is for gates [4], the model has [3]" in caplog.text
        weights.write_bytes(b"trained on")
        model = encoder()
        assert use_calibration(model, weights) is None
    assert "is of other weights (valid.loss.ave.pth)" in caplog.text
    assert "skipping is as configured" in caplog.text
    assert (vars(model), vars(other)) == (vars(encoder()), vars(encoder((3,))))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"blank_threshold": 0.5}'])
def test_a_damaged_file_is_named(weights, content):
    calibration_file(weights).write_text(content)
    with pytest.raises(ValueError, match="calibration.json is not a calibration .*delete it"):
        use_calibration(encoder(), weights)


@pytest.mark.parametrize(
    "entry",
    [
        {"settings": {"blank_threshold": math.nan}},
        {"settings": {"spike_extension": [-1, 0]}},
        {"settings": {"spike_extension": [0, 10**9]}},
        {"settings": {"min_skipped_frames": 10**30}},
        {"settings": {"gates_in_use": "all"}},
        {"settings": [0.9]},
        {"max_increase": "much"},
        {"max_increase": math.inf},
        {"kept_by": ["luck"]},
        {"data": {}},
        {"confidence": {"temperature": -1}},
        {"confidence": {"temperature": math.nan}},
        {"data": "dev"},
        {"sweep": "\x1b[2J" * 2_000_000},
    ],
    ids=lambda entry: str(entry)[:40],
)
def test_absurd_values_are_refused(calibration, weights, entry):
    path = calibration_file(weights)
    calibration.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | entry))
    model = encoder()
    with pytest.raises(ValueError, match="calibration.json is not a calibration") as refused:
        use_calibration(model, weights)
    assert model.settings == encoder().settings
    assert len(str(refused.value)) < 1000


def test_depth_without_end_is_refused(weights):
    calibration_file(weights).write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not a calibration"):
        use_calibration(encoder(), weights)


def test_a_later_version_may_add_entries(calibration, weights):
    path = calibration_file(weights)
    calibration.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "new": 1}))
    assert read_calibration(path) == calibration


def test_described_for_people(calibration):
    line = calibration.describe()
    assert "threshold=0.95 extension=0,1 context=packed gates=4: its upper bound keeps" in line
    assert "a WER increase of 1 % (relative) on 100 utterances of dev" in line
    seen = calibration.data | {"seen": {"chose the checkpoint": "all"}, "speakers": 7}
    luck = dataclasses.replace(calibration, kept_by="point estimate", data=seen)
    assert "gates=4: not shown: only its point estimate keeps a WER" in luck.describe()
    assert luck.describe().endswith("utterances of dev (which chose the checkpoint)")
    off = dataclasses.replace(calibration, settings=OFF, kept_by="nothing")
    assert off.is_off
    assert off.describe().startswith("off: no setting is shown to keep")


def test_a_page_of_it(calibration):
    rows = [row(0.99, 80), row(0.95, 75), row(0.5, 60, fits=False)]
    rows[0]["excess"] = {"difference": -1.0, "low": -2.0, "high": -0.5}
    page = calibration_page(dataclasses.replace(calibration, sweep=rows))
    assert "at most 1 % (relative) over the 10.00 % of full depth, that is +0.100 points" in page
    lines = [line for line in page.splitlines() if line.startswith("| 0.") or "| off" in line]
    assert [line.split(" | ")[0] for line in lines] == ["| off", "| 0.99", "| 0.95", "| 0.5"]
    assert "| 100.0 % |  |  |" in lines[0]
    assert "| -0.50 | 25.0 % | 80.0 % | 1234 | shown |" in lines[1]
    assert "| 1234 | shown, chosen |" in lines[2]
    assert "| 60.0 % | 1234 | not shown, not measured either |" in lines[3]
