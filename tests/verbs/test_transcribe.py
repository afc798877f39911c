import json
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
from espnet_layerskip.inference.speech2text import load_model

ENV = {**os.environ, "PYTHONPATH": str(Path(espnet_layerskip.__file__).parents[1])}
KEYS = [
    "audio_seconds",
    "encoder_seconds",
    "total_seconds",
    "rtf",
    "skip_ratio",
    "utterances",
    "failed",
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
    assert content["utterances"] == 4
    assert content["failed"] == []
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
        (["a.wav", "b/a.wav"], "AUDIO: two utterances are named 'a' (a.wav and b/a.wav)"),
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
