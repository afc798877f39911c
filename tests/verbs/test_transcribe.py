import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import espnet_layerskip
from espnet_layerskip.cli import main
from espnet_layerskip.inference import quiet
from espnet_layerskip.inference.audio import AudioBlocks
from espnet_layerskip.inference.speech2text import load_model
from espnet_layerskip.inference.transcriber import Transcriber
from espnet_layerskip.verbs import progress
from espnet_layerskip.verbs.transcribe_inputs import name_files

ENV = {**os.environ, "PYTHONPATH": str(Path(espnet_layerskip.__file__).parents[1])}
KEYS = [
    "audio_seconds",
    "encoder_seconds",
    "total_seconds",
    "rtf",
    "skip_ratio",
    "read",
    "utterances",
    "failed",
    "errors",
]


@pytest.fixture(scope="module")
def lines(models, waves):
    model = load_model(models["skip"], decoder_type="greedy")
    return [f"utt{i} {model(wave)[0][0]}".rstrip() for i, wave in enumerate(waves)]


def transcribe(models, *args, kind="skip"):
    return main(["transcribe", "--model", str(models[kind]), *map(str, args)])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_lines_in_input_order(models, corpus, lines, capsys, tmp_path, batch_size):
    stats = tmp_path / "stats.json"
    files = corpus.files[::-1]
    assert transcribe(models, "--batch-size", batch_size, "--stats", stats, *files) == 0
    assert capsys.readouterr().out.splitlines() == lines[::-1]
    assert [p.name for p in tmp_path.iterdir()] == ["stats.json"]
    content = json.loads(stats.read_text())
    assert list(content) == KEYS
    assert content["read"] == content["utterances"] == 4
    assert content["failed"] == []
    assert content["errors"] == {}
    assert content["audio_seconds"] == pytest.approx(0.9 + 0.4 + 1.3 + 0.7)
    assert 0 < content["encoder_seconds"] < content["total_seconds"]
    assert content["rtf"] == pytest.approx(content["total_seconds"] / content["audio_seconds"])
    assert 0 < content["skip_ratio"] < 1


def test_bad_files_are_named_and_cost_only_themselves(models, corpus, lines, capsys, tmp_path):
    stats = tmp_path / "stats.json"
    assert transcribe(models, "--wav-scp", corpus.bad, "--stats", stats, "--batch-size", 4) == 1
    assert capsys.readouterr().out.splitlines() == lines[:3]
    assert json.loads(stats.read_text())["failed"] == ["broken", "missing", "piped", "nothing"]
    assert transcribe(models, corpus.files[0], corpus.noise, corpus.root / "gone.flac") == 1
    assert capsys.readouterr().out.splitlines() == lines[:1]


def test_a_bad_line_of_a_table_costs_that_line(models, corpus, lines, capsys, caplog, tmp_path):
    table, stats = tmp_path / "wav.scp", tmp_path / "s.json"
    first, second, third, _ = (os.fsencode(file) for file in corpus.files)
    rows = [b"utt0 " + first, b"x caf\xe9.wav", b"utt1 " + second, b"\xff y", b"utt2 " + third]
    table.write_bytes(b"\n".join([*rows, rows[0]]))
    assert transcribe(models, "--wav-scp", table, "--stats", stats, "--batch-size", 4) == 1
    assert capsys.readouterr().out.splitlines() == lines[:3]
    content = json.loads(stats.read_text())
    assert content["failed"] == ["x", "wav.scp:4", "wav.scp:6"]
    assert (
        content["errors"]["x"] == f"{table}:2: the line is not UTF-8 (byte 0xe9); convert the file"
    )
    assert "comes a second time" in content["errors"]["wav.scp:6"]
    assert "read 6 = transcribed 3 + refused 3: wav.scp:4, wav.scp:6, x" in caplog.text
    table.write_bytes(b"\n".join(rows[1::2]))
    assert transcribe(models, "--wav-scp", table) == 2
    assert f"{table}:1: the line is not UTF-8" in capsys.readouterr().err


def test_only_bad_files(models, corpus, capsys, tmp_path):
    stats = tmp_path / "stats.json"
    assert transcribe(models, corpus.noise, "--stats", stats) == 1
    assert capsys.readouterr().out == ""
    assert json.loads(stats.read_text())["rtf"] is None


def test_other_rates_and_channels_are_converted(models, waves, capsys, tmp_path):
    path = tmp_path / "my talk.wav"
    soundfile.write(path, np.stack([waves[0]] * 2, 1), 8000)
    assert transcribe(models, path, "--stats", tmp_path / "s.json") == 0
    assert capsys.readouterr().out.split()[0] == "my_talk"
    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["audio_seconds"] == pytest.approx(2 * 0.9, abs=1e-3)


def test_options(models, corpus, capsys, tmp_path):
    stats = tmp_path / "stats.json"
    file = corpus.files[0]
    assert transcribe(models, file, "--blank-threshold", "off", "--stats", stats) == 0
    assert json.loads(stats.read_text())["skip_ratio"] == 0
    threads = torch.get_num_threads()
    try:
        options = ["--decoder", "espnet", "--beam-size", 2, "--ctc-weight", 0.3]
        assert transcribe(models, file, *options, "--num-threads", 1, kind="hybrid") == 0
        assert torch.get_num_threads() == 1
        assert transcribe(models, file, "--precision", "int8") == 0
        assert transcribe(models, file, "--precision", "int8", kind="stock") == 2
    finally:
        torch.set_num_threads(threads)
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "either AUDIO files or --wav-scp FILE is needed, and not both"),
        (["a.wav", "--wav-scp", "x"], "either AUDIO files or --wav-scp FILE"),
        (["b/a.wav", "b/a.wav"], "AUDIO: two utterances are named 'a' (b/a.wav and b/a.wav)"),
        (["--wav-scp", "none.scp"], "none.scp: no such file"),
        (["a.wav", "--batch-size", "0"], "--batch-size must be at least 1, but got 0"),
        (["a.wav", "--stats", "/no/such/dir/s.json"], "there is no such directory"),
        (["a.wav", "--blank-threshold", "7"], "must be a number in (0, 1]"),
        (["a.wav", "--spike-extension", "x"], "two integers >= 0"),
        (["a.wav", "--model-file", "no.pth"], "no checkpoint no.pth in"),
    ],
)
def test_wrong_calls_are_explained(models, capsys, args, message):
    assert transcribe(models, *args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        f"espnet-layerskip transcribe: error: {message}" in captured.err or message in captured.err
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--lexicon", "x"], "lexicon is of no use to decoder_type greedy"),
        (["--decoder", "ngram"], "--decoder ngram needs --ngram-file, --lexicon or both"),
        (["--decoder", "ngram", "--ngram-file", "no.arpa"], "--ngram-file no.arpa: no such file"),
        (["--drop-threshold", "0.2"], "drop_threshold must be 'off' or in (0.5, 1]"),
        (["--segment-size", "0"], "segment_size must be a number of seconds above 0"),
        (["--device", "gpu"], "--device must be auto, cpu, cuda or cuda:N, but got 'gpu'"),
        (["--ctc-weight", "2"], "--ctc-weight must be in [0, 1]"),
        (["--times", "."], "--times . is a directory"),
        (
            ["--confidence-temperature", "0"],
            "--confidence-temperature must be a number above 0, but got 0",
        ),
        (["b.wav", "--format", "srt"], "--format srt has no place for the name of an utterance"),
        (["--model", "none.zip"], "--model none.zip: no such file or directory"),
        (["--model", __file__], "is neither an experiment directory"),
        (["--model", "none.onnx"], "is not an exported model"),
    ],
)
def test_wrong_values_are_found_before_anything_is_loaded(
    capsys, monkeypatch, models, args, message
):
    monkeypatch.setattr(Transcriber, "load", lambda self: pytest.fail("the model was loaded"))
    assert transcribe(models, "a.wav", *args) == 2
    assert message in capsys.readouterr().err


def test_a_wrong_path_is_named_without_the_model(monkeypatch, models, capsys, caplog, tmp_path):
    monkeypatch.setattr(Transcriber, "load", lambda self: pytest.fail("the model was loaded"))
    stats = tmp_path / "s.json"
    assert transcribe(models, "gone.wav", tmp_path, "--stats", stats) == 1
    assert capsys.readouterr().out == ""
    assert "gone failed: utterance gone: gone.wav: no such audio file" in caplog.text
    assert "is a directory" in caplog.text
    content = json.loads(stats.read_text())
    assert (content["read"], content["utterances"], len(content["errors"])) == (2, 0, 2)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_whatever_an_entry_raises_costs_that_entry(
    models, corpus, lines, capsys, caplog, monkeypatch, tmp_path, batch_size
):
    table, files = tmp_path / "wav.scp", corpus.files
    rows = [("utt0", files[0]), ("a", files[1]), ("utt1", files[1]), ("b", files[2])]
    rows += [("utt2", files[2]), ("long", "x" * 5000), ("dir", tmp_path), ("utt3", files[3])]
    table.write_text("".join(f"{name} {path}\n" for name, path in rows))
    read = AudioBlocks.read

    def broken(self):
        if self.utt.utt_id == "a":
            raise ZeroDivisionError("of some library")
        if self.utt.utt_id == "b":
            raise MemoryError
        return read(self)

    monkeypatch.setattr(AudioBlocks, "read", broken)
    stats = tmp_path / "s.json"
    args = ["--wav-scp", table, "--batch-size", batch_size, "--stats", stats]
    assert transcribe(models, *args) == 1
    assert capsys.readouterr().out.splitlines() == lines
    content = json.loads(stats.read_text())
    assert content["failed"] == ["a", "b", "long", "dir"]
    assert content["errors"]["a"] == "ZeroDivisionError: of some library"
    assert "read 8 = transcribed 4 + refused 4: a, b, dir, long" in caplog.text


def test_names_of_files():
    assert name_files(["x/a b.wav", "y/a b.flac", "c.wav"]) == ["x_a_b", "y_a_b", "c"]
    assert name_files(["x/a.wav", "x/a.flac", "a.wav"]) == ["a.wav", "a.flac", "a"]
    assert name_files(["p/x/a.wav", "q/x/a.wav"]) == ["p_x_a", "q_x_a"]
    assert name_files(["a.wav", "a.wav"]) == ["a", "a"]


def test_standard_input_pipes_and_names_that_are_not_utf8(
    models, corpus, lines, capsysbinary, monkeypatch, tmp_path
):
    said = [line.encode().partition(b" ")[1:] for line in lines]
    said = [b"".join(parts) for parts in said]
    odd = tmp_path / os.fsdecode(b"\xff.wav")
    odd.write_bytes(corpus.files[1].read_bytes())
    with corpus.files[0].open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sys.stdout.buffer, "utf-8"))
        assert transcribe(models, "-", odd) == 0
    expected = [b"stdin" + said[0], b"\xff" + said[1]]
    assert capsysbinary.readouterr().out.splitlines() == expected
    table = tmp_path / "wav.scp"
    table.write_text(f"p cat {corpus.files[2]} |\n")
    assert transcribe(models, "--wav-scp", table) == 1
    assert transcribe(models, "--wav-scp", table, "--allow-pipes") == 0
    assert capsysbinary.readouterr().out.splitlines() == [b"p" + said[2]]


def test_words_with_times_and_confidence(models, corpus, capsys, tmp_path):
    times = tmp_path / "t.ctm"
    assert transcribe(models, *corpus.files, "--format", "json", "--times", times) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    words = [word for one in found for word in one["words"]]
    assert words
    assert all(0 < word["confidence"] <= 1 and word["start"] < word["end"] for word in words)
    for one in found:
        assert " ".join(word["word"] for word in one["words"]) == " ".join(one["text"].split())
        sure = [word["confidence"] for word in one["words"]]
        if sure:
            assert one["confidence"] == pytest.approx(sum(sure) / len(sure), abs=2e-4)
    assert len(times.read_text().splitlines()) == len(words)
    options = ["--format", "json", "--confidence-temperature", 2]
    assert transcribe(models, *corpus.files, *options) == 0
    for one, before in zip(
        map(json.loads, capsys.readouterr().out.splitlines()), found, strict=True
    ):
        sure = [word["confidence"] for word in one["words"]]
        # logits are halved: p / (1 - p) becomes its square root
        odds = [np.sqrt(word["confidence"] / (1 - word["confidence"])) for word in before["words"]]
        assert sure == pytest.approx([o / (1 + o) for o in odds], abs=1e-3)
        if sure:
            assert one["confidence"] == pytest.approx(sum(sure) / len(sure), abs=2e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there(models, corpus, capsys):
    assert transcribe(models, corpus.files[0], "--device", "cuda") == 2
    assert "device cuda: PyTorch finds 0 GPUs here" in capsys.readouterr().err
    assert transcribe(models, corpus.files[0], "--device", "auto") == 0


def test_only_our_own_messages_are_printed(capsys, monkeypatch, request):
    monkeypatch.delenv("ESPNET_LAYERSKIP_DEBUG", raising=False)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    with quiet.nothing_printed():
        print("Failed to import Flash Attention")
        print("Failed to import Flash Attention", file=sys.stderr)
    choice = logging.getLogger("espnet_layerskip.inference.calibration")
    request.addfinalizer(lambda: choice.setLevel(logging.NOTSET))
    quiet.log_ours()
    choice.info("skipping is as configured")
    logging.getLogger("espnet_layerskip.x").info("nor this")
    logging.warning("Set decoder to none as ctc_weight==1.0")
    logging.getLogger("espnet_layerskip.x").warning("ours")
    logging.getLogger("espnet2").error("an error")
    assert capsys.readouterr() == (
        "",
        "INFO: skipping is as configured\nWARNING: ours\nERROR: an error\n",
    )


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, True), (io.StringIO, False)])
def test_a_bar_is_shown_on_a_terminal(models, corpus, capsys, monkeypatch, stream, shown):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setattr(progress, "SHOWN_FROM", 0.5)
    assert transcribe(models, *corpus.files) == 0
    assert ("4/4" in sys.stderr.getvalue()) is shown
    assert transcribe(models, corpus.files[0]) == 0
    assert ("1/1 s" in sys.stderr.getvalue()) is shown
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_choices_are_listed(models, capsys):
    with pytest.raises(SystemExit):
        transcribe(models, "a.wav", "--decoder", "beam")
    error = capsys.readouterr().err
    assert "espnet" in error
    assert "greedy" in error


def test_help_is_fast_and_lists_the_verbs():
    code = (
        "import sys\nsys.argv = ['/usr/bin/espnet-layerskip', '--help']\n"
        "from espnet_layerskip.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'espnet2' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENV, capture_output=True, text=True, check=True
    )
    assert "transcribe" in done.stdout


@pytest.mark.slow
def test_stdout_of_the_process_holds_nothing_else(models, corpus, lines):
    command = [
        sys.executable,
        "-m",
        "espnet_layerskip.cli",
        "transcribe",
        "--model",
        models["skip"],
    ]
    done = subprocess.run(
        [*command, *corpus.files], env=ENV, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == lines
