import errno
import json
import os
import re
from collections import namedtuple

import pytest

from espnet_layerskip import files as tables
from espnet_layerskip.cli import main
from espnet_layerskip.verbs import report as command

Usage = namedtuple("Usage", "total used free")


def call(*args):
    return main(["report", *(str(a) for a in args)])


@pytest.mark.slow
def test_report_is_written(report):
    names = {p.name for p in (report / "figures").iterdir()}
    drawn = {n.removesuffix(".png") for n in names if n.endswith(".png")}
    assert {
        *("wer_flops", "wer_time", "wer_change", "skip_ratio"),
        *("gate_precision_recall", "gate_reliability", "training"),
    } <= drawn
    assert any(n.startswith("utterance_") for n in drawn)
    assert {f"{n}.svg" for n in drawn} <= names
    captions = (report / "figures" / "captions.txt").read_text()
    assert captions.startswith("Made by: espnet-layerskip report --exp ")
    assert all(f"\n{name}: " in captions for name in drawn)
    left = [p for p in report.rglob("*") if "partial" in p.name]
    assert not left


@pytest.mark.slow
def test_numbers_agree(report):
    """The page's table, report.json and an own decoding say the same."""
    record = json.loads((report / "report.json").read_text())
    page = (report / "index.html").read_text()
    rows = {r["name"]: r for r in record["rows"]}
    assert {
        "skipping off",
        "skipping on",
        "stopped at layer 1",
        "stock twin",
    } <= set(rows)
    for name, row in rows.items():
        line = re.search(rf'<tr><th scope="row">{re.escape(name)}</th>(.*?)</tr>', page)
        assert line, name
        assert f'<td class="number">{row["wer"][0]:.2f}</td>' in line[1]
        assert row["wer_interval"]["difference"] == pytest.approx(row["wer"][0])
    utterances = record["utterances"]
    assert len(utterances) == 8
    changed = sum(u["skipping_on"] != u["skipping_off"] for u in utterances)
    assert f"changed the text of {changed} of 8" in page
    assert record["training"]["train"]["loss_ctc"] == {"1": 9.5, "2": 7.5}


@pytest.mark.slow
def test_page_says_where_it_comes_from(report):
    page = (report / "index.html").read_text()
    environment = json.loads((report / "report.json").read_text())["environment"]
    for word in (environment["date"], environment["torch"], "SHA-256", "load average"):
        assert word in page
    figures = page.count("<figure ")
    assert figures >= 8
    assert page.count("espnet-layerskip report --exp") == figures + 1
    assert "stopped after epoch" not in page or "of 40" in page
    assert len(page) < 5_000_000


@pytest.mark.slow
def test_page_needs_nothing_from_elsewhere(report):
    page = (report / "index.html").read_text()
    links = re.findall(r'(?:src|href|srcset|poster|data)="([^"]*)"', page)
    assert [x for x in links if not x.startswith(("data:", "#"))] == []
    assert re.findall(r"url\((?!#)[^)]*\)|@import", page) == []
    assert page.count("<script") == 2  # the data and the page's own


@pytest.mark.slow
def test_structure_for_screen_readers(report):
    page = (report / "index.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "ids are unique"
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert page.count("<h1>") == 1
    assert '<html lang="en">' in page
    svgs = re.findall(r"<svg [^>]*>", page)
    assert svgs
    assert all('role="img"' in s and 'aria-label="' in s for s in svgs)
    assert all("aria-label" in a for a in re.findall(r"<audio [^>]{0,200}", page))
    assert page.count("<caption>") == page.count("<table")
    assert '<th scope="col"' in page


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--exp", "no_such", "--output", "out"], "no_such is neither an experiment directory"),
        (["--exp", ".", "--output", "out", "--num-threads", "0"], "at least 1"),
        (["--exp", ".", "--output", "out", "--times-from", "x"], "--times-from x: no such file"),
    ],
)
def test_bad_call(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(*args) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "index.html").exists()


def test_bad_data(exps, data_dir, tmp_path, capsys):
    out = ("--output", tmp_path / "out")
    assert call("--exp", exps["stock"], *out) == 2
    assert "without a gate" in capsys.readouterr().err
    assert call("--exp", exps["ours"], *out) == 2
    assert "give one by --data DIR" in capsys.readouterr().err
    (tmp_path / "wav.scp").write_text("a a.wav\n")
    assert call("--exp", exps["ours"], "--data", tmp_path, *out) == 2
    assert "text, utt2spk missing" in capsys.readouterr().err
    assert call("--exp", exps["ours"], "--data", data_dir, "--utt-id", "nobody", *out) == 2
    assert "nobody is not in" in capsys.readouterr().err


def test_a_missing_audio_file_is_named(exps, data_dir, tmp_path, capsys):
    for name in ("wav.scp", "text", "utt2spk"):
        text = (data_dir / name).read_text()
        (tmp_path / name).write_text(text.replace(f"{data_dir}/", "gone/"))
    assert call("--exp", exps["ours"], "--data", tmp_path, "--output", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "no utterance can be used: utterance s0-u0: gone/s0-u0.wav: no such audio file" in said
    assert [command.status(tmp_path, used) for used in (8, 7)] == [0, 1]


def test_output_that_cannot_be_a_folder(exps, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert call("--exp", exps["ours"], "--output", tmp_path / "file") == 2
    assert "cannot be made" in capsys.readouterr().err


def test_a_disk_that_is_nearly_full(exps, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command.shutil, "disk_usage", lambda path: Usage(1, 1, 5_000_000))
    assert call("--exp", exps["ours"], "--output", tmp_path / "out") == 2
    assert "has 5 MB left" in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_what_was_there(tmp_path, monkeypatch):
    """The old page stays whole, no partial file is left, the message says what to do."""
    page = tmp_path / "index.html"
    page.write_text("old")

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tables.os, "replace", full)
    with (
        pytest.raises(ValueError, match="No space left on device.*free some space"),
        command.writing_to(tmp_path),
    ):
        tables.write_text(page, "new")
    assert page.read_text() == "old"
    assert os.listdir(tmp_path) == ["index.html"]
