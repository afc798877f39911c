import pytest

from espnet_layerskip.evaluation.benchmark_figure import draw_benchmark
from espnet_layerskip.evaluation.benchmark_report import (
    HEADER,
    MORE,
    benchmark_page,
    scope_tables,
    summary,
)
from espnet_layerskip.evaluation.contenders import FULL, ON, STOCK
from espnet_layerskip.evaluation.environment import environment_record
from espnet_layerskip.evaluation.measure import MEASURED
from espnet_layerskip.evaluation.speedups import speedups


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


def cells(table):
    return [line[2:-2].split(" | ") for line in table.splitlines()[2:]]


def test_failed_rows_are_printed_as_failed(rows):
    main, more = scope_tables(rows)
    assert main.splitlines()[0] == f"| {' | '.join(HEADER)} |"
    on, _, _, stopped, gone = cells(main)
    assert len(on) == len(HEADER)
    assert on[1:4] == ["20.00 (18.00 to 20.00)", "1.50", "2.50"]
    assert stopped[1:4] == gone[1:4] == ["failed"] * 3
    assert (stopped[5], gone[-1]) == ("19.00", "failed")
    assert "0.001" not in main
    assert "1.00 (" not in main
    on, _, _, stopped, gone = cells(more)
    assert len(on) == len(MORE)
    assert (on[1], stopped[1], gone[1]) == ("10.00", "19.00", "failed")
    assert stopped[-2:] == gone[-2:] == ["failed"] * 2


def test_the_page_says_what_the_times_are_compared_with(rows):
    rows = [{**r, "measured_seconds": 9.9, "num_inputs": 4} for r in rows]
    environment = {
        **environment_record(),
        "command": "espnet-layerskip benchmark --model exp/x",
        "model": {"exp": "exp/x", "checkpoint": "a.pth", "sha256": "0" * 64, "skipping": "s"},
        "data": {
            "wav_scp": "w",
            "utterances": 8,
            "words": 16,
            "seconds": 4.0,
            "speakers": "not known",
        },
        "settings": {"repeats": 5, "max_wer_increase_percent": 1.0},
        "start_s": {},
        "load_s": 0.4,
        "load_after": None,
    }
    found = speedups(rows, 1.0)
    page = benchmark_page(
        {"environment": environment, "rows": rows, "speedups": found, "profile": []}
    )
    title = "## encoder: 10 s (mean 9.9 s, inputs: 4), batch 1, 2 threads"
    assert title in page
    assert f"Times off: times as fast as {FULL};\ntimes stock: as {STOCK}." in page
    assert "- exit_at_1: failed: WER +9.00 over full depth (allowed +0.10)" in page
    assert "| times as fast | 10 s, batch 1, 2 threads |" in page
    assert "- e2e_vs_stock_beam1: scope e2e was not run" in page
    assert page.count("<details>") == page.count("</details>") == 4
    assert "    --model exp/x" in page


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
