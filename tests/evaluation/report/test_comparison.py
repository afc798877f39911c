"""Times taken over from a comparison: of the same weights, data and settings only."""

import json

import pytest

from espnet_layerskip.evaluation.report.comparison import (
    check_comparison,
    lengths,
    read_comparison,
    time_ms,
    with_times,
)
from espnet_layerskip.evaluation.report.sweep import OFF_NAME, ON_NAME

TIMES = {"3": {"median_ms": 2.5}, "10": {"median_ms": 1.5}}


def compared(points):
    for point in points:
        point.record.update(exps=["exp/a"], settings=point.name)
    return {
        "data": {"dir": "test", "utterances": 8, "words": 16},
        "experiments": [{"exp": "exp/a", "sha256": "f"}],
        "settings": {"max_wer_points": 1.0},
        "rows": [
            {"name": f"ours, {name}", "exps": ["exp/a"], "settings": name}
            | {"encoder_time_by_length": TIMES}
            for name in (OFF_NAME, ON_NAME)
        ],
    }


def test_rows_are_found_by_experiment_and_settings(points):
    off, on, other, *_ = with_times(points, compared(points))
    assert lengths(off) == lengths(on) == ["3", "10"]
    assert time_ms(on, "10") == 1.5
    assert time_ms(on) == on.time_ms.difference
    assert lengths(other) == []
    assert time_ms(other, "10") is None


def test_a_comparison_of_something_else_is_refused(points):
    found = compared(points)
    check_comparison(found, "f", 8, 16)
    with pytest.raises(ValueError, match="not of this checkpoint"):
        check_comparison(found, "e", 8, 16)
    with pytest.raises(ValueError, match="of 8 utterances with 16 words"):
        check_comparison(found, "f", 8, 17)
    points[1].record["settings"] = "other"
    with pytest.raises(ValueError, match="no times of skipping on"):
        with_times(points, found)


def test_what_is_no_comparison_is_refused(points, tmp_path):
    file = tmp_path / "compare.json"
    for content, message in (
        ("{", "cannot be read as a comparison"),
        ("{}", "is no compare.json"),
        (json.dumps(compared(points) | {"rows": [{"name": "a"}]}), "no times by length"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_comparison(file)
    file.write_text(json.dumps(compared(points)))
    assert read_comparison(file)["data"]["words"] == 16
