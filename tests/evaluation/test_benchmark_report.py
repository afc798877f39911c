import pytest

from espnet_layerskip.evaluation.benchmark_figure import draw_benchmark
from espnet_layerskip.evaluation.benchmark_report import HEADER, scope_table, summary
from espnet_layerskip.evaluation.measure import MEASURED
from espnet_layerskip.evaluation.speedups import speedups
from espnet_layerskip.evaluation.variants import FULL, ON, STOCK


def row(name, median, status="ok", wer=10.0, scope="encoder"):
    times = {"median_s": median, "min_s": median and 0.9 * median, "max_s": median}
    return {
        **dict.fromkeys(MEASURED),
        **times,
        "name": name,
        "scope": scope,
        "wer": wer,
        "cer": wer,
        "status": status,
        "audio_seconds": 10.0,
        "batch_size": 1,
        "threads": 2,
    }


@pytest.fixture
def rows():
    return [
        row(ON, 0.02),
        row(FULL, 0.03),
        row(STOCK, 0.05),
        row("exit_at_1", 0.001, "failed: WER +9.00 over full depth (allowed +0.10)", 19.0),
        row("gone", None, "failed: cannot be built", None),
    ]


def test_failed_rows_are_printed_as_failed(rows):
    lines = scope_table("encoder", rows).splitlines()
    assert f"times as fast as {FULL} | times as fast as {STOCK}" in lines[0]
    on, _, _, stopped, gone = [line.split(" | ") for line in lines[2:]]
    assert len(on) == len(HEADER)
    assert on[1:4] == ["20.00 (18.00 to 20.00)", "1.50", "2.50"]
    assert stopped[1:4] == ["failed"] * 3
    assert stopped[9:11] == ["19.00", "19.00"]
    assert gone[1:4] == ["failed"] * 3
    assert gone[9:11] == ["failed"] * 2
    assert "0.001" not in lines[5]
    assert "1.00 (" not in lines[5]


def test_summary_says_why_a_ratio_is_missing(rows):
    text = summary({"speedups": speedups(rows, 1.0)})
    assert "| encoder_vs_stock | 2.50 |  |" in text
    assert "| e2e_vs_stock_beam1 |  | scope e2e was not run |" in text
    assert "10 s, batch 1, 2 threads" in text


def test_summary_of_another_condition_than_the_headline(rows):
    rows = [{**r, "audio_seconds": 3.0, "batch_size": 8} for r in rows]
    text = summary({"speedups": speedups(rows, 1.0)})
    assert "times as fast, 3 s, batch 8, 2 threads" in text
    assert "| encoder_vs_stock | 2.50 |  |" in text


def test_figure_shows_times_of_rows_that_count(rows):
    drawing = draw_benchmark({"rows": [*rows, row("stock_beam1", 0.3, scope="e2e")]}, "made so")
    assert drawing.png.startswith(b"\x89PNG")
    assert "made so" in drawing.svg
    assert "10 s of audio, batch 1, 2 threads" in drawing.caption
