import dataclasses

import pytest

from espnet_layerskip.evaluation.report.sweep import OFF_NAME, ON_NAME
from espnet_layerskip.evaluation.report.why import explain
from espnet_layerskip.evaluation.scoring import Interval


@pytest.fixture
def on_and_off(points):
    by_name = {p.name: p for p in points}
    return by_name[ON_NAME], by_name[OFF_NAME]  # 40 % skip, FLOPs and time 0.91 of off


def test_from_frames_to_time(on_and_off):
    steps = explain(*on_and_off, [4], 8, 0.4)
    assert [round(s.percent, 6) for s in steps] == [40.0, 20.0, 9.0, 9.0]
    assert "4 of 8 layers" in steps[1].because
    assert "The subsampling, 40 % of the arithmetic" in steps[2].because
    assert "20 % of the rest are 12 %" in steps[2].because
    assert "Less is saved because the kept frames still look at" in steps[2].because


def test_what_makes_the_arithmetic_more_or_less(on_and_off):
    on, off = on_and_off
    assert "More is saved because attention" in explain(on, off, [4], 8, 0.8)[2].because
    packed = dataclasses.replace(
        on, settings=dataclasses.replace(on.settings, skip_context="packed")
    )
    assert "Less is saved" not in explain(packed, off, [4], 8, 0.4)[2].because


@pytest.mark.parametrize(
    ("ms", "percent", "because"),
    [
        (4.2, -5.0, "Nothing is gained here"),
        (3.82, 4.5, "50 % of what the arithmetic promises"),
        (3.0, 25.0, "At least as much as the arithmetic"),
    ],
)
def test_time(on_and_off, ms, percent, because):
    on, off = on_and_off
    step = explain(dataclasses.replace(on, time_ms=Interval(ms, ms, ms)), off, [4], 8, 0.4)[3]
    assert step.percent == pytest.approx(percent)
    assert because in step.because
    assert step.shown == (f"{step.percent:.0f} %" if percent > 0 else "none, 5 % more")


def test_two_gates_and_the_rule_about_short_utterances(on_and_off):
    on, off = on_and_off
    on = dataclasses.replace(on, settings=dataclasses.replace(on.settings, min_skipped_frames=48))
    frames, layers, *_ = explain(on, off, [2, 4], 8, 0.4)
    assert "the gates after layer 2 and 4" in frames.because
    assert "fewer than 48 frames would skip run whole" in frames.because
    assert "6, 4 of 8 layers" in layers.because
