"""tools/when_does_it_pay.py: measures, fits what it costs, and has written what is in docs/."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("pay", ROOT / "tools" / "when_does_it_pay.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def made_up(tool, cost):
    """Rows that cost exactly so."""
    rows = []
    for seconds in tool.SECONDS:
        for gate in tool.GATES:
            for skipped in tool.SKIPPED:
                frames, kept = 25 * seconds, 1 - skipped
                price = [cost[name] for name in tool.TERMS]
                on = sum(map(float.__mul__, price, map(float, tool.terms(frames, kept, gate))))
                off = sum(map(float.__mul__, price, map(float, tool.terms(frames, 1.0, 12))))
                stem = cost["stem"] + cost["stem_frame"] * frames
                values = (96, 12, gate, seconds, frames, kept, stem, off, on)
                rows.append(dict(zip(tool.COLUMNS, map(float, values), strict=True)))
    return rows


def test_the_fit_finds_the_costs_that_made_the_times(tool):
    cost = dict(zip(tool.TERMS, (1.0, 0.1, 0.5, 0.05, 0.0002, 0.01, 0.3, 0.02), strict=True))
    rows = made_up(tool, cost)
    assert tool.fit(rows)[96] == pytest.approx(cost, rel=1e-3)
    usual, worst = tool.residual(rows, {96: cost})
    assert worst < 1e-6
    rows[0]["on_ms"] *= 1.1
    usual, worst = tool.residual(rows, {96: cost})
    assert (usual, worst) == (pytest.approx(0.0, abs=1e-6), pytest.approx(10.0))


def test_it_says_where_it_is_not_worth_it(tool):
    free = dict.fromkeys(tool.TERMS, 0.0)
    looks = {**free, "layer": 1.0, "frame": 0.001, "gate_frame": 0.01}
    assert tool.break_even(looks, 0.5, 9, 25.0) == "not worth it"
    assert tool.break_even({**free, "frame": 1.0}, 0.5, 3, 25.0) == "0.5 or less"
    # s seconds take 12 + 0.3 s ms at full depth, 12 + 0.1875 s with half of 9 layers' frames
    seconds = tool.break_even({**free, "layer": 1.0, "frame": 0.001}, 0.5, 3, 25.0)
    assert float(seconds) == pytest.approx(0.6 / (0.3 - 1.05 * 0.1875), abs=0.1)


def test_measured_rows(tool, monkeypatch):
    monkeypatch.setattr(tool, "WIDTHS", {16: (20, 2, 32, 7, 0)})
    rows = list(tool.measure([16], [0.5], 5))
    assert [tuple(row) for row in rows] == [tool.COLUMNS] * 9
    assert {row["gate"] for row in rows} == set(tool.GATES)
    for row in rows:
        assert row["frames"] == 11
        assert 0.0 < row["stem_ms"] < row["off_ms"]
        assert row["on_ms"] > 0.0
    assert sorted({row["kept"] for row in rows}) == pytest.approx(
        [1 / 11, 3 / 11, 6 / 11], abs=1e-3
    )


def test_the_pages_are_written_from_the_measured_points(tool):
    rows = tool.read(ROOT / "docs" / "when_does_it_pay.csv")
    costs = tool.fit(rows)
    assert len(rows) == len(tool.WIDTHS) * len(tool.SECONDS) * len(tool.GATES) * len(tool.SKIPPED)
    assert (ROOT / "docs" / "when_does_it_pay.md").read_text() == tool.markdown(rows, costs)
    page = (ROOT / "docs" / "when_does_it_pay.html").read_text()
    data = json.loads(re.search(r"^const data = (.*);$", page, re.M)[1])
    for width, cost in costs.items():
        assert data["costs"][str(width)] == pytest.approx(cost)
    assert f"by {tool.residual(rows, costs)[1]:.0f} % at\nmost" in page
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == []
    chart = re.search(r"<svg.*?</svg>", page, re.S)[0]
    fitted = re.compile(r"^const data = .*$", re.M)  # rounding may differ from machine to machine
    assert fitted.sub("", page) == fitted.sub("", tool.page(rows, costs, chart))
