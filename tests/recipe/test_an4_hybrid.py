"""The programs behind HYBRID.md: joint CTC/attention and word times, with skipping on and off."""

import json

import pytest
import torch

import align
import hybrid
import hybrid_page
from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.method.settings import OFF, SkipSettings

TOKENS = ["A", "B", "<space>", "C"]
IDS = [3, 4, 2, 5]


def posteriors(frames, sure=8.0, length=20):
    """(T, 9) with a spike of each token at its frame, blank elsewhere."""
    logits = torch.zeros(length, 9)
    logits[:, 0] = sure
    for token, frame in zip(IDS, frames, strict=True):
        logits[frame, 0], logits[frame, token] = 0.0, sure
    return logits.log_softmax(-1)


def shifts(before, after, right=True):
    spans = [align.forced_words(p, TOKENS, IDS, "char") for p in (before, after)]
    words = ["AB", "C"]
    return [
        align.Shift("u", w, a, b, ("AB C", "AB C"), right)
        for w, a, b in zip(words, *spans, strict=True)
    ]


def test_words_stay_where_skipping_leaves_their_spikes():
    before = posteriors([2, 5, 8, 12])
    skipped = before.clone()  # as the trace of a gate has it: blank, and even labels
    silent = skipped.argmax(-1) == 0
    skipped[silent] = torch.tensor([0.91] + [0.09 / 8] * 8).log()
    assert align.summary(shifts(before, skipped)) == {
        "words": 2,
        "same": 100.0,
        "within_half": 100.0,
        "within_one": 100.0,
        "within_two": 100.0,
        "largest": 0.0,
    }


def test_a_word_counts_by_its_larger_difference():
    found = shifts(posteriors([2, 5, 8, 12]), posteriors([3, 5, 8, 15]))
    assert [(s.word, s.off, s.on, s.frames) for s in found] == [
        ("AB", (2, 6), (3, 6), 1),
        ("C", (12, 13), (15, 16), 3),
    ]
    shares = align.summary(found)
    assert (shares["same"], shares["within_one"], shares["largest"]) == (0.0, 50.0, 3)
    assert align.summary([])["within_one"] is None
    with pytest.raises(ValueError, match="4 tokens have no path through 3 frames"):
        align.forced_words(posteriors([0, 1, 2, 2], length=3), TOKENS, IDS, "char")


def test_an_alignment_is_of_the_frames_that_the_system_has(models, data):
    pytest.importorskip("ctc_segmentation", reason="pip install espnet-ctc-segmentation")
    experiment = load_experiment(models["hybrid"])
    few = data.speech[:2]
    same, skipped = align.compare_row(experiment, System(experiment, OFF), few, data.text)
    assert skipped.ratio == 0.0
    assert {m: align.summary(s)["largest"] for m, s in same.items()} == dict.fromkeys(same, 0.0)
    low = SkipSettings(blank_threshold=0.05)
    moved, skipped = align.compare_row(experiment, System(experiment, low), few, data.text)
    assert skipped.ratio > 0.0
    assert all(align.summary(s)["largest"] > 0.0 for s in moved.values())  # of random weights
    record = align.row_record("x", System(experiment, low), moved, skipped)
    page = align.align_tables([record])
    assert page.count("CTC segmentation (asr_align)") >= 1
    assert (
        f"<summary>The {sum(len(m['outliers']) for m in record['methods'].values())} words" in page
    )


@pytest.mark.slow
def test_rows_of_a_joint_search(models, data_dir, tmp_path, capsys):
    """The same weights on and off, and dropping, each with its time."""
    exp, output = str(models["hybrid"]), tmp_path / "hybrid.json"
    for table in data_dir.iterdir():
        if table.suffix != ".wav":
            lines = table.read_text().splitlines(keepends=True)
            (tmp_path / table.name).write_text("".join(lines[:3]))
    rows = ["--row", "off", exp, "threshold=off", "--row", "on", exp, "threshold=0.05"]
    rows += ["--row", "on, dropping", exp, "threshold=0.05", "drop=0.9"]
    command = ["--data", str(tmp_path), "--output", str(output), *rows, "--beam-size", "2"]
    hybrid.main([*command, "--ctc-weight", "0.3", "--max-timed", "2"])
    found = {(r["under"], r["name"]): r for r in json.loads(output.read_text())["rows"]}
    beam = "beam 2, CTC weight 0.3"
    assert [*found] == [
        *(("greedy CTC", name) for name in ("off", "on")),
        *((beam, name) for name in ("off", "on", "on, dropping")),
    ]
    off, on = found[beam, "off"], found[beam, "on"]
    assert off["off"] is None
    assert on["off"] == "off"
    assert off["skip_ratio"] == 0.0 < on["skip_ratio"]
    assert on["wer_against_off"]["difference"] == pytest.approx(on["wer"] - off["wer"])
    for record in found.values():
        parts = zip(*(record[p]["raw_ms"] for p in ("encoder", "search", "total")), strict=True)
        assert all(e > 0 and s > 0 and e + s == pytest.approx(t) for e, s, t in parts)
        assert len(record["total"]["raw_ms"]) == 5
    assert found[beam, "on, dropping"]["off"] == "off"
    assert "### Beam 2, CTC weight 0.3" in capsys.readouterr().out
    hybrid_page.main(
        ["--search", str(output), "--align", "none", "--output", f"{tmp_path}/PAGE.md"]
    )
    page = (tmp_path / "PAGE.md").read_text()
    assert page.startswith("<!-- Generated")
    assert "## Joint CTC/attention" in page
    assert "## Word times" not in page
    assert "2 utterances spread over the durations, 1 thread(s)" in page


def test_what_is_left_of_a_gain():
    def row(name, off, encoder, total):
        times = {"encoder": encoder, "total": total}
        times = {k: {"raw_ms": v, "median_ms": sorted(v)[1]} for k, v in times.items()}
        return {"name": name, "off": off, **times}

    full = row("off", None, [10.0, 20.0, 12.0], [100.0, 200.0, 120.0])
    skipping = row("on", "off", [5.0, 10.0, 6.0], [95.0, 190.0, 114.0])
    untimed = {"name": "not timed", "off": "off"}
    [gain] = hybrid.gains([full, skipping, untimed])
    assert gain == {"name": "on", "share": 10.0, "encoder": 50.0, "total": pytest.approx(5.0)}


def test_a_row_says_what_it_drops():
    row, drop = hybrid.hybrid_row(["x", "exp", "drop=0.99", "threshold=0.9"])
    assert (row.name, row.exps, row.settings.blank_threshold, drop) == ("x", ("exp",), 0.9, "0.99")
    assert hybrid.hybrid_row(["x", "exp"])[1] is None
    with pytest.raises(ValueError, match="drip=0.99.* is not known"):
        hybrid.hybrid_row(["x", "exp", "drip=0.99"])
