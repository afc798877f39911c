"""Where `transcribe` writes to: nothing is lost, and no option is without effect."""

import io
import json
import sys
from pathlib import Path

import pytest

from espnet_layerskip.cli import main


def transcribe(models, *args):
    return main(["transcribe", "--model", str(models["skip"]), *map(str, args)])


def test_subtitles_of_several_files(models, corpus, capsys, tmp_path):
    """Of the same stem too; a name that no file can have costs that entry."""
    paths = [tmp_path / "x/talk.wav", tmp_path / "y/talk.wav", tmp_path / "talk.mp3"]
    for path, file in zip(paths, corpus.files, strict=False):
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(file)
    folder = tmp_path / "new" / "subtitles"
    options = ["--format", "srt", "--output-dir", folder]
    assert transcribe(models, paths[0], *options, *paths[1:]) == 0
    names = [f"{name}.srt" for name in ("x_talk", "y_talk", f"{tmp_path.name}_talk")]
    assert capsys.readouterr().out.splitlines() == [f"{folder}/{name}" for name in names]
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)
    transcribe(models, paths[0], "--format", "srt")
    assert capsys.readouterr().out == (folder / "x_talk.srt").read_text() != ""
    table, stats = tmp_path / "wav.scp", tmp_path / "s.json"
    ids = ["n" * 252, "m" * 251, "dir", "lost", "loop", "u"]
    (folder / "dir.srt").mkdir()
    (folder / "lost.srt").symlink_to("gone/x")
    (folder / "loop.srt").symlink_to("loop.srt")
    table.write_text("".join(f"{name} {paths[0]}\n" for name in ids))
    assert transcribe(models, "--wav-scp", table, *options, "--stats", stats) == 1
    written = [f"{folder}/{name}.srt" for name in ("m" * 251, "loop", "u")]
    assert capsys.readouterr().out.splitlines() == written
    errors = json.loads(stats.read_text())["errors"]
    assert "its name is too long for a file" in errors.pop("n" * 252)
    assert "dir.srt, where its transcript should go, is a directory" in errors.pop("dir")
    assert "lost.srt is a link to where there is no directory" in errors.pop("lost")
    assert not errors


def test_outputs_of_odd_names(models, corpus, capsys, monkeypatch, tmp_path):
    """A link to itself is replaced; the partial file of a long name has a name too."""
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    name = "s" * 235 + ".ctm"
    assert transcribe(models, corpus.files[0], "--stats", "loop", "--times", name) == 0
    assert json.loads(Path("loop").read_text())["read"] == 1
    assert Path(name).read_text()
    assert transcribe(models, corpus.files[0], "--output-dir", ".", "--stats", "loop") == 0


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_any_name_comes_out_whatever_the_encoding_of_stdout(
    models, corpus, capsysbinary, monkeypatch, tmp_path, encoding
):
    path = tmp_path / "\u65e5\u672c.wav"
    path.symlink_to(corpus.files[0])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sys.stdout.buffer, encoding))
    assert transcribe(models, path) == 0
    assert capsysbinary.readouterr().out.startswith("\u65e5\u672c ".encode())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stats", "a.wav"], "--stats a.wav is an input, and would be lost"),
        (["--times", "x", "--stats", "./x"], "--stats and --times would both be ./x"),
        (["--output-dir", ".", "--stats", "a.txt"], "a would be written to a.txt, which is"),
        (["--ngram-weight", "0.5"], "ngram_weight is of no use to decoder_type greedy"),
        (["--beam-size", "4"], "beam_size is of no use to decoder_type greedy"),
        (["--drop-threshold", "0.9"], "drop_threshold is of no use to decoder_type greedy"),
        (["--ctc-weight", "0.3"], "ctc_weight is of no use to decoder_type greedy"),
        (["--segment-size", "off", "--hop-size", "5"], "--hop-size is of no use"),
        (["--confidence-temperature", "2"], "is of no use to --format text"),
        (["--allow-pipes"], "--allow-pipes is for the paths of a table"),
    ],
)
def test_what_would_be_lost_or_has_no_effect(
    models, corpus, capsys, tmp_path, monkeypatch, options, message
):
    monkeypatch.chdir(tmp_path)
    content = Path(corpus.files[0]).read_bytes()
    Path("a.wav").write_bytes(content)
    assert transcribe(models, *options, "a.wav") == 2
    assert message in capsys.readouterr().err
    assert Path("a.wav").read_bytes() == content


def test_times_of_an_earlier_call_stay_until_there_are_others(models, corpus, tmp_path):
    times = tmp_path / "t.ctm"
    times.write_text("of yesterday\n")
    assert transcribe(models, corpus.files[0], "--times", times, "--decoder", "ngram",
                      "--lexicon", corpus.files[0]) == 2  # fmt: skip
    assert times.read_text() == "of yesterday\n"
