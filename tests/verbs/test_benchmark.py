"""The verb benchmark, on tiny models."""

import json

import pytest

from espnet_layerskip.cli import main
from espnet_layerskip.evaluation import benchmark
from espnet_layerskip.evaluation.speedups import SPEEDUPS

ROW_KEYS = {
    *("name", "scope", "batch_size", "audio_seconds", "threads", "median_s", "min_s", "max_s"),
    *("wer", "cer", "skip_ratio", "flops", "ceiling_share", "status", "raw_s"),
}


def call(exps, data_dir, output, *more, model="plain"):
    tables = ["--wav-scp", data_dir / "wav.scp", "--text", data_dir / "text"]
    given = ["--model", exps[model], *tables, "--output", output, *more]
    return main(["benchmark", *map(str, given)])


@pytest.fixture(scope="module")
def written(exps, data_dir, tmp_path_factory):
    output = tmp_path_factory.mktemp("bench") / "out.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "start_seconds", lambda module: 1.5)
        patch.setattr("espnet_layerskip.evaluation.speedups.HEADLINE", (1.0, 1, 1))
        status = call(
            exps, data_dir, output, "--seconds", "1", "--batch-size", "1,2", "--num-threads", "1",
            "--num-inputs", "2", "--max-wer-increase", "1000", "--twin", f"small={exps['stock']}",
        )  # fmt: skip
    assert status == 0
    return output


@pytest.mark.slow
def test_json(written):
    report = json.loads(written.read_text())
    assert {"environment", "rows", "speedups", "profile"} == set(report)
    rows = report["rows"]
    assert all(set(row) >= ROW_KEYS for row in rows)
    assert {row["scope"] for row in rows} == {"encoder", "model", "e2e"}
    keys = [(r["scope"], r["batch_size"], r["name"]) for r in rows]
    sdpa = 2 * any(name == "stock_class_sdpa" for *_, name in keys)  # ESPnet 202611
    assert len(set(keys)) == len(keys) == 2 * (10 + 9 + 12 + sdpa)
    for row in rows:
        if row["status"] == "ok":
            assert len(row["raw_s"]) == 5
            assert 0.0 < row["min_s"] <= row["median_s"] <= row["max_s"]
            assert row["wer"] >= 0.0
            assert (row["flops"] is None) == row["name"].startswith("onnx")
    environment = report["environment"]
    assert environment["load_after"]
    assert environment["start_s"] == {"ours": 1.5, "stock": 1.5}
    assert environment["data"]["speakers"] == "utt2spk beside the text"
    assert environment["command"].startswith("espnet-layerskip benchmark --model ")
    assert report["profile"][0]["name"] == "stock_beam10"


@pytest.mark.slow
def test_speedups_follow_from_the_rows(written):
    report = json.loads(written.read_text())
    found = report["speedups"]
    assert {"encoder_vs_stock", "encoder_vs_full_depth"} <= set(found)
    assert {"e2e_vs_stock_beam1", "e2e_vs_stock_beam10"} <= set(found)
    medians = {(r["scope"], r["batch_size"], r["name"]): r["median_s"] for r in report["rows"]}
    at = medians["encoder", 1, "ours_skip_off"] / medians["encoder", 1, "ours_skip_on"]
    assert found["encoder_vs_full_depth"] == pytest.approx(at)
    assert [c["batch_size"] for c in found["conditions"]] == [1, 2]
    assert all((found[name] is None) == (name in found["reasons"]) for name in SPEEDUPS)


@pytest.mark.slow
def test_page_and_figure(written):
    page = written.with_suffix(".md").read_text()
    for title in ("## encoder: 1 s", "## model: 1 s", "## e2e: 1 s", "## Where the time goes"):
        assert title in page
    assert "PyTorch threads, pinned: 1" in page
    assert "twin_small_fast_greedy" in page
    assert written.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_one_scope(exps, data_dir, tmp_path, capsys):
    output = tmp_path / "o.json"
    options = ("--scope", "encoder", "--seconds", "1", "--batch-size", "2", "--num-threads", "1")
    assert call(exps, data_dir, output, *options, "--skip", "extension=1,1") == 0
    report = json.loads(output.read_text())
    assert report["environment"]["model"]["skipping"].startswith("threshold=0.5 extension=1,1")
    assert report["environment"]["start_s"] == {}
    assert report["profile"] == []
    assert report["speedups"]["e2e_vs_stock_beam1"] is None
    captured = capsys.readouterr()
    assert "decoding 8 utterances: ours_skip_on" in captured.err
    assert captured.out.splitlines()[-1] == str(tmp_path / "o.png")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("stock", (), "ConformerEncoder without a gate"),
        ("plain", ("--seconds", "60"), "about 60 s are needed"),
        ("plain", ("--model-file", "no.pth"), "no checkpoint no.pth"),
        ("plain", ("--text", "none"), "none: no such file"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_timed(
    exps, data_dir, tmp_path, capsys, model, options, message
):
    given = ("--seconds", "1", "--batch-size", "1", *options)
    assert call(exps, data_dir, tmp_path / "o.json", *given, model=model) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_start_of_a_process():
    assert benchmark.start_seconds("json") > 0.0
    assert benchmark.start_seconds("no_such_module") is None
