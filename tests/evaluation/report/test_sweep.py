import dataclasses

import pytest

from espnet_layerskip.evaluation.grid import EXTENSIONS
from espnet_layerskip.evaluation.report.sweep import (
    EXIT_KIND,
    OFF_KIND,
    OFF_NAME,
    ON_KIND,
    ON_NAME,
    STOCK_KIND,
    SWEEP_KIND,
    SWEPT,
    points_of,
    sweep_lines,
    sweep_rows,
)
from espnet_layerskip.method.settings import OFF, SkipSettings


def test_rows_cover_every_setting_once(exps):
    stored = SkipSettings(0.7, (0, 3), "full")
    rows = sweep_rows("ours", stored, [1, 2], [f"stock={exps['stock']}"])
    settings = [r.settings for r in rows if r.exps == ("ours",)]
    assert settings[0] == OFF
    assert settings[1] == SkipSettings()
    assert len(settings) == len(set(settings))
    swept = {(s.blank_threshold, s.spike_extension) for s in settings if s.spike_extension}
    thresholds, extensions = {*SWEPT, 0.7}, {*EXTENSIONS, (0, 3)}
    assert SWEPT == (0.5, 0.9, 0.99)
    assert swept == {(t, e) for t in thresholds for e in extensions} - {(0.7, (0, 3))}
    assert [r.name for r in rows if r.settings.exit_layer] == [
        "stopped at layer 1",
        "stopped at layer 2",
    ]
    assert rows[-1].name == "stock"


def test_thresholds_of_the_gates_are_one_of_the_settings(exps):
    stored = SkipSettings((0.7, 0.8), (0, 0), "full")
    rows = sweep_rows("ours", stored, [1, 2], [])
    assert "threshold 0.7,0.8, extension 1,1" in [r.name for r in rows]
    assert "threshold 0.7,0.8, extension 0,0" not in [r.name for r in rows]  # skipping on


def test_a_line_rises_by_threshold(points):
    both = SkipSettings((0.5, 0.9), (0, 0), "full")
    points.append(dataclasses.replace(points[3], settings=both))
    lines = sweep_lines(points)
    assert list(lines) == [(0, 0), (1, 1), (2, 2)]
    thresholds = [p.threshold for p in lines[0, 0]]
    assert thresholds == pytest.approx([0.5, 0.7, 0.8, 0.9, 0.95, 0.99])
    assert all(p.own for line in lines.values() for p in line)


def test_a_missing_experiment_is_named(exps):
    with pytest.raises(ValueError, match="no_such is not an experiment"):
        sweep_rows("ours", SkipSettings(0.7, (0, 0)), [1], ["no_such"])


@pytest.mark.slow
def test_points(data_dir, exps, tmp_path):
    from espnet_layerskip.evaluation.cache import DecodingCache
    from espnet_layerskip.evaluation.compare import Comparison
    from espnet_layerskip.evaluation.rows import Row

    exp = str(exps["ours"])
    rows = sweep_rows(exp, SkipSettings(0.5, (0, 0)), [1], [f"stock={exps['stock']}"])
    wanted = {OFF_NAME, ON_NAME, "stopped at layer 1", "threshold 0.9, extension 0,0", "stock"}
    rows = [r for r in rows if r.name in wanted] + [Row("broken", ("no_such",), OFF)]
    comparison = Comparison(data_dir, DecodingCache(tmp_path), log=lambda line: None)
    results = comparison.measure(rows, repeats=5, threads=1, max_timed=2)
    points = {p.name: p for p in points_of(results, exp, comparison.data.seconds)}
    assert "broken" not in points
    kinds = {name: p.kind for name, p in points.items()}
    assert kinds == {
        OFF_NAME: OFF_KIND,
        ON_NAME: ON_KIND,
        "stopped at layer 1": EXIT_KIND,
        "threshold 0.9, extension 0,0": SWEEP_KIND,
        "stock": STOCK_KIND,
    }
    strict = points_of(results, exp, comparison.data.seconds, max_wer_points=-1000.0)
    assert any("allowed -1000.00" in p.failure for p in strict)
    assert not any("allowed -1000.00" in p.failure for p in points.values())
    off, on = points[OFF_NAME], points[ON_NAME]
    assert off.wer.low <= off.wer.difference <= off.wer.high
    assert off.wer.difference == pytest.approx(off.record["wer"][0])
    assert off.change.difference == 0.0
    assert on.gflops < off.gflops
    assert 0.0 < on.skip_ratio < 1.0
    assert on.time_ms.low <= on.time_ms.difference <= on.time_ms.high
    lines = sweep_lines(list(points.values()))
    assert [p.name for p in lines[0, 0]] == [ON_NAME, "threshold 0.9, extension 0,0"]
    assert results[0].times[0][1] == pytest.approx(1.0)  # two utterances of 0.5 s
