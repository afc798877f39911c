"""The one record of how an encoder skips: read, checked, merged, printed, stored."""

import json
from types import SimpleNamespace

import pytest

from espnet_layerskip.method.settings import OFF, SkipSettings, read_extension, read_threshold

WHOLE = SkipSettings(0.9, (1, 1), "full", (2, 4), 1.0, 0.02)


@pytest.mark.parametrize(
    ("value", "threshold"),
    [
        (None, None),
        ("auto", None),
        ("off", 1.0),
        (False, 1.0),
        ("0.5", 0.5),
        (1, 1.0),
        ("0.9,0.95", (0.9, 0.95)),
        ([0.9, "off"], (0.9, 1.0)),
        ([0.9], 0.9),
    ],
)
def test_blank_threshold(value, threshold):
    assert read_threshold(value) == threshold
    assert SkipSettings(blank_threshold=value).blank_threshold == threshold


@pytest.mark.parametrize("value", ["0", "1.1", "-1", "nan", "on", True, 0, [], "0.5,2", "0.5,auto"])
def test_wrong_blank_threshold(value):
    with pytest.raises(ValueError, match=r"number in \(0, 1\] \(1.0 = off\), 'off' or 'auto'.*got"):
        SkipSettings(blank_threshold=value)


@pytest.mark.parametrize(
    ("value", "extension"), [(None, None), ("1,2", (1, 2)), ("0, 3", (0, 3)), ([2, 0], (2, 0))]
)
def test_spike_extension(value, extension):
    assert read_extension(value) == extension


@pytest.mark.parametrize("value", ["1", "1,2,3", "-1,0", "a,b", [1], "", 3, [1.5, 1], [True, 1]])
def test_wrong_spike_extension(value):
    with pytest.raises(ValueError, match="two integers >= 0, .*'L,R', but got"):
        SkipSettings(spike_extension=value)


def test_exit_layer():
    found = [SkipSettings(exit_layer=v).exit_layer for v in (None, "none", "4", 4)]
    assert found == [None, None, 4, 4]
    with pytest.raises(ValueError, match="a layer number or 'none', but got 'last'"):
        SkipSettings(exit_layer="last")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"skip_context": "all"}, "skip_context must be one of packed, packed_original, full"),
        ({"gates_in_use": "a"}, "gates must be layer numbers"),
        ({"gates_in_use": [1.5]}, "gates must be layer numbers"),
        ({"repeat_threshold": 0}, "repeat_threshold must be a number in"),
        ({"repeat_threshold": "0.5,0.6"}, "repeat_threshold must be one number"),
        ({"min_spike_ratio": 2}, "min_spike_ratio must be in .0, 1., but got 2"),
        ({"min_spike_ratio": "few"}, "min_spike_ratio must be in"),
        ({"min_skipped_frames": -1}, "min_skipped_frames must be a whole number >= 0.*got -1"),
        ({"min_skipped_frames": "1.5"}, "min_skipped_frames must be a whole number"),
        ({"min_skipped_frames": True}, "min_skipped_frames must be a whole number"),
    ],
)
def test_other_wrong_values(wrong, message):
    with pytest.raises(ValueError, match=message):
        SkipSettings(**wrong)


def test_what_is_left_open_is_taken_from_the_base_but_for_the_exit():
    base = SkipSettings(0.9, (1, 1), "full", (4,), 0.5, 0.02, exit_layer=4)
    assert SkipSettings().over(base) == SkipSettings(0.9, (1, 1), "full", (4,), 0.5, 0.02)
    mine = SkipSettings(0.5, (0, 0), "packed", (2,), 1.0, 0.0, exit_layer=2)
    assert mine.over(base) == mine


def test_thresholds_of_the_gates_in_use():
    assert WHOLE.thresholds([4, 2]) == {2: 0.9, 4: 0.9}
    each = SkipSettings(blank_threshold=(0.8, 0.9), gates_in_use=[4])
    assert each.thresholds([2, 4]) == {4: 0.9}
    assert SkipSettings(blank_threshold=0.8).thresholds([2]) == {2: 0.8}


def test_full_depth():
    assert OFF.full_depth
    assert SkipSettings(blank_threshold=(1.0, 1.0)).full_depth
    assert not SkipSettings(blank_threshold=(1.0, 0.9)).full_depth
    assert not SkipSettings(blank_threshold=1.0, exit_layer=4).full_depth


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blank_threshold": (0.9, 0.9, 0.9)}, r"one for each of the gate layers \[2, 4\]"),
        ({"gates_in_use": [3]}, r"some of the gate layers \[2, 4\].*got \[3\]"),
        ({"gates_in_use": []}, "at least one"),
        ({"exit_layer": 3}, r"one of the gate layers \[2, 4\].*got 3"),
    ],
)
def test_settings_that_do_not_fit_the_gates(wrong, message):
    with pytest.raises(ValueError, match=message):
        SkipSettings(**wrong).checked([2, 4])


def test_resolved_for_an_encoder():
    encoder = SimpleNamespace(gate_layer_idx=[2, 4], settings=WHOLE)
    assert SkipSettings().resolved(encoder) == WHOLE
    assert SkipSettings(blank_threshold=0.5).resolved(encoder).blank_threshold == 0.5
    with pytest.raises(ValueError, match="some of the gate layers"):
        SkipSettings(gates_in_use=[1]).resolved(encoder)


def test_an_encoder_without_gates_can_only_be_off():
    encoder = SimpleNamespace()
    for nothing in (OFF, SkipSettings()):
        assert nothing.resolved(encoder) == OFF
    for wrong in ({"blank_threshold": 0.9}, {"skip_context": "full"}, {"exit_layer": 2}):
        with pytest.raises(ValueError, match="SimpleNamespace without a gate: train with"):
            SkipSettings(**wrong).resolved(encoder)


def test_items_and_their_description():
    text = (
        "threshold=0.9,0.95 extension=1,2 context=packed exit=4 gates=4,8 repeats=0.5 fallback=0.1 "
        "min_skipped=16"
    )
    found = SkipSettings.from_items(text.split())
    assert found.describe() == text
    assert found == SkipSettings((0.9, 0.95), (1, 2), "packed", (4, 8), 0.5, 0.1, 4, 16)
    assert SkipSettings(0.9, min_skipped_frames=0).describe() == "threshold=0.9", "no rule"
    assert SkipSettings.from_items(["threshold=off", "exit=none"]) == OFF
    assert WHOLE.describe() == "threshold=0.9 extension=1,1 context=full gates=2,4"
    with pytest.raises(ValueError, match="'treshold=1' is not known"):
        SkipSettings.from_items(["treshold=1"])
    with pytest.raises(ValueError, match="given twice"):
        SkipSettings.from_items(["gates=1", "gates=2"])


def test_json_there_and_back():
    found = SkipSettings((0.9, 1.0), (1, 2), "packed", (4, 8), 0.5, 0.1, 4, 16)
    assert SkipSettings.from_json(json.loads(json.dumps(found.to_json()))) == found
    before = {k: v for k, v in found.to_json().items() if k != "min_skipped_frames"}
    base = SkipSettings(min_skipped_frames=7)  # files without it keep what the model has
    assert SkipSettings.from_json(before).over(base).min_skipped_frames == 7
