import contextlib
import errno
import json

import numpy as np
import pytest
import soundfile

from espnet_layerskip.bin import compare_exps
from espnet_layerskip.cli import main

pytestmark = pytest.mark.slow


def test_compare_exps(data_dir, exps, tmp_path, capsys):
    command = [
        *("--data", str(data_dir), "--output", str(tmp_path), "--repeats", "5"),
        *("--exp", f"stock={exps['stock']}", f"ours={exps['ours']}"),
        *("--row", "ours, 0.7", str(exps["ours"]), "threshold=0.7"),
        *("--cache", str(tmp_path / "kept"), "--max_timed", "3"),
    ]
    compare_exps.main(command)
    report = json.loads((tmp_path / "compare.json").read_text())
    assert [r["name"] for r in report["rows"]] == [
        "stock",
        "ours, skipping off",
        "ours, skipping on",
        "ours, stopped at layer 1",
        "ours, 0.7",
    ]
    assert all(len(r["encoder_time_per_second"]["raw_ms"]) == 5 for r in report["rows"])
    assert report["environment"]["load_after"]
    page = (tmp_path / "compare.md").read_text()
    said = capsys.readouterr()
    assert page in said.out
    assert "row: " in said.err
    assert "row: " not in said.out
    assert "python -m espnet_layerskip.bin.compare_exps \\\n    --data" in page
    assert page.count("<details>") == page.count("</details>") == 4
    assert "5 interleaved passes (min to max) over 3 utterances" in " ".join(page.split())
    assert "95 %" in page
    assert len(list((tmp_path / "kept").glob("*.json"))) == 5


@pytest.fixture
def two_rows(data_dir, exps, tmp_path):
    """Arguments that compare skipping on with off, without timing."""
    ours = str(exps["ours"])
    rows = ["--row", "on", ours, "--row", "off", ours, "threshold=off"]
    return ["--data", str(data_dir), "--output", str(tmp_path), "--repeats", "0", *rows]


def read_status(tmp_path, points):
    report = json.loads((tmp_path / "compare.json").read_text())
    assert report["settings"]["max_wer_points"] == points
    return report["rows"][0]["status"]


def test_what_was_measured_is_printed_where_it_cannot_be_stored(two_rows, capsys, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("espnet_layerskip.verbs.compare.write_text", full)
    assert main(["compare", *two_rows]) == 2
    printed = capsys.readouterr()
    assert "# Comparison of experiments" in printed.out
    assert "written: " not in printed.out
    assert "the disk is full" in printed.err
    assert "compare.json" in printed.err


@pytest.mark.parametrize(("points", "status"), [(1000, "ok"), (-1000, "failed: WER")])
def test_the_verb(two_rows, tmp_path, points, status):
    assert main(["compare", *two_rows, "--max-wer-points", str(points)]) == 0
    assert read_status(tmp_path, points).startswith(status)
    command = json.loads((tmp_path / "compare.json").read_text())["command"]
    assert command.startswith("espnet-layerskip compare --data ")


def test_utterances_that_cannot_be_used_are_told(two_rows, data_dir, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros(300), 16000)
    for name in ("wav.scp", "text", "utt2spk"):
        table = (data_dir / name).read_text()
        table = table.replace(f"{data_dir}/s0-u2.wav", f"{tmp_path}/short.wav")
        (tmp_path / name).write_text(table.replace(f"{data_dir}/s0-u3.wav", "gone.wav"))
    command = [*two_rows[:1], str(tmp_path), *two_rows[2:]]
    assert main(["compare", *command]) == 1
    data = json.loads((tmp_path / "compare.json").read_text())["data"]
    assert (data["utterances"], set(data["refused"])) == (7, {"s0-u3"})
    assert data["too_short"] == ["s0-u2"]
    said = "1 utterance(s) too short for the encoder, counted with an empty transcript: s0-u2"
    assert said in (tmp_path / "compare.md").read_text()
    with pytest.raises(SystemExit) as ended:
        compare_exps.main(command)
    assert ended.value.code == 1


def test_the_old_name_of_the_allowed_loss(two_rows, tmp_path, caplog):
    """It counts points, as it did: only its name has changed."""
    compare_exps.main([*two_rows, "--max_wer_points", "-1000"])
    assert read_status(tmp_path, -1000).startswith("failed: WER")
    assert "--max_wer_increase" not in caplog.text
    compare_exps.main([*two_rows, "--max_wer_increase", "-900"])
    assert read_status(tmp_path, -900).startswith("failed: WER")
    assert "--max_wer_increase is --max_wer_points now" in caplog.text


def test_compare_exps_looks_for_what_is_named_first(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(compare_exps.compare, "compare", None)
    with pytest.raises(ValueError, match="--exp gone is neither an experiment directory"):
        compare_exps.main(["--data", str(data_dir), "--output", str(tmp_path), "--exp", "gone"])


def test_compare_exps_without_a_result(data_dir, tmp_path):
    with pytest.raises(ValueError, match=r"every row failed.*x: .*no_such"):
        compare_exps.main(
            ["--data", str(data_dir), "--output", str(tmp_path), "--row", "x", "no_such"]
        )
    assert not (tmp_path / "compare.md").exists()
    with pytest.raises(ValueError, match="--max_timed 0: at least 1"):
        compare_exps.main(
            [
                *("--data", str(data_dir), "--output", str(tmp_path)),
                *("--row", "x", "y", "--max_timed", "0"),
            ]
        )
    for options, message in (
        (("--repeats", "4"), r"--repeats must be 0 \(no timing\) or at least 5, .*got 4 and"),
        (("--max_timed", "3", "--seconds", "5"), "--max_timed and --seconds cannot go together"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_exps.main(
                ["--data", str(data_dir), "--output", str(tmp_path), "--row", "x", "y", *options]
            )
    with pytest.raises(ValueError, match="nothing to compare"):
        compare_exps.main(["--data", str(data_dir), "--output", str(tmp_path)])


def test_an_output_that_cannot_be_is_refused_at_once(data_dir, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "compare.md").mkdir(parents=True)
    for output, options, message in (
        (tmp_path / "taken", (), "compare.md is a directory: name a file"),
        (tmp_path / "new", ("--cache", str(tmp_path / "file")), "--cache"),
        ("", (), "--output: a value is needed, but it is empty"),
        (tmp_path / "file", (), "file cannot be made (File exists)"),
        (tmp_path / "new", ("--repeats", "-1"), "--repeats must be 0 (no timing) or"),
    ):
        command = [
            "compare",
            "--exp",
            str(tmp_path),
            "--data",
            str(data_dir),
            "--output",
            str(output),
        ]
        with contextlib.suppress(SystemExit):  # the parser's
            assert main([*command, *options]) == 2
        assert message in capsys.readouterr().err
