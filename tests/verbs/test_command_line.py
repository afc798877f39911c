"""The command line itself: suggestions, spelling, versions, completion, examples."""

import errno
import os
import shlex
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from espnet_layerskip import cli
from espnet_layerskip.cli import VERBS, get_parser, main
from espnet_layerskip.verbs.command_line import check_inputs, check_output, make_folder


def refused(capsys, *args):
    with pytest.raises(SystemExit) as end:
        main(list(args))
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trancribe"], "did you mean transcribe?"),
        (["--versoin"], "no option --versoin: did you mean --version?"),
        (["transcribe", "--batchsize", "4"], "no option --batchsize: did you mean --batch-size?"),
        (["transcribe", "--modle=x", "a"], "there is no option --modle: did you mean --model?"),
        (["transcribe", "--decoder", "prefix-beam"], "none of .*: did you mean prefix_beam?"),
        (["calibrate", "--ex"], "ambiguous"),
        (["export", "--xyzzy"], "there is no option --xyzzy\n"),
        ([], "a VERB is needed: transcribe, "),
    ],
)
def test_what_is_meant_is_suggested_in_one_line(capsys, args, message):
    import re

    error = refused(capsys, *args)
    assert re.search(message.replace("?", r"\?"), error)
    assert len(error.splitlines()) == 2
    assert "--help" in error.splitlines()[1]


def test_underscores_and_dashes_are_the_same():
    words = "transcribe --model m --batch_size=3 --wav_scp a_b.scp --inference-nj 2 --num_th 1"
    args = get_parser().parse_args(words.split())
    assert (args.batch_size, args.wav_scp, args.inference_nj, args.num_threads) == (
        3,
        "a_b.scp",
        2,
        1,
    )
    after = get_parser().parse_args(["transcribe", "--model", "m", "--", "--batch_size"])
    assert after.audio == ["--batch_size"]


def test_files_stand_on_both_sides_of_an_option(capsys):
    words = shlex.split("transcribe a --model m b c --allow-pipes - --format json d")
    args = get_parser().parse_args(words)
    assert (args.audio, args.format, args.allow_pipes) == (["a", "b", "c", "-", "d"], "json", True)
    assert get_parser().parse_args(["transcribe", "--model", "m"]).audio == []
    dashed = get_parser().parse_args([*words, "--", "-x.wav", "--", "--format"])
    assert (dashed.audio, dashed.format) == ([*args.audio, "-x.wav", "--", "--format"], "json")
    assert "unrecognized arguments: -x" in refused(capsys, *words, "-x", "e")
    assert "unrecognized arguments: b" in refused(capsys, "export", "--model=m", "--output=o", "b")


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    line = capsys.readouterr().out
    assert line.startswith("espnet-layerskip 0.")
    assert " espnet 202" in line


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("try --model gone --data .", "--model gone is neither an experiment directory nor"),
        ("report --exp . --compare twin=gone --output o", "--compare gone is neither"),
        ("compare --exp a=.,gone --data . --output o", "--exp gone is neither an experiment"),
        ("calibrate --exp . --data . gone --max-wer-increase 1", "--data .: wav.scp missing"),
        ("retrofit --model . --data gone --output o", "--data gone: no such data directory"),
        ("benchmark --model . --wav-scp gone --text . --output o", "--wav-scp gone: no such file"),
    ],
)
def test_paths_are_looked_at_before_a_verb_runs(call, message, capsys, tmp_path, monkeypatch):
    """What is imported then takes seconds."""
    monkeypatch.chdir(tmp_path)
    for module, *_ in VERBS.values():
        monkeypatch.setattr(module, "run", None)
    assert main(call.split()) == 2
    assert message in capsys.readouterr().err


def test_a_tag_and_what_is_there_are_let_through(tmp_path):
    (tmp_path / "wav.scp").touch()
    args = ["--model", "owner/of_model", "--data", str(tmp_path)]
    check_inputs(get_parser().parse_args(["try", *args]))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_examples_that_it_takes(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    assert "Exit status: 0; 1 if" in shown
    assert ("; 3 if no setting" in " ".join(shown.split())) == (verb == "calibrate")
    lines = VERBS[verb][2].replace("\\\n", " ").strip().splitlines()
    for line in lines:
        words = shlex.split(line.split("|")[-1].split(">")[0])
        assert words[0] == "espnet-layerskip"
        assert " ".join(words[:2]) in shown
        assert get_parser().parse_args(words[1:]).verb == words[1]


def test_bash_completes(tmp_path, capsys):
    assert main(["--completion"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    code = (
        f"source {script}; c() {{ COMP_WORDS=(espnet-layerskip $1); COMP_CWORD=$2; "
        "_espnet_layerskip; echo ${COMPREPLY[@]}; }; "
        "c tra 1; c 'transcribe --dec' 2; c 'transcribe --decoder g' 3; c 'transcribe a' 2"
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["transcribe", "--decoder", "greedy", ""]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (BrokenPipeError(), 1, "the program that reads the output has ended"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "the disk is full"),
        (PermissionError(13, "Permission denied", "x"), 2, "Permission denied: 'x'"),
        (ImportError("No module named 'kenlm'"), 2, "No module named 'kenlm'"),
        (MemoryError(), 2, "not enough memory"),
        (RuntimeError("Symlink loop from 'x'"), 2, "Symlink loop from 'x'"),
    ],
)
def test_what_cannot_go_on_is_said_in_one_line(monkeypatch, capsys, error, status, message):
    def run(args):
        raise error

    monkeypatch.setattr(cli, "_give_up_stdout", lambda: None)
    monkeypatch.setattr(cli.transcribe, "run", run)
    assert main(["transcribe", "--model", "m", "a.wav"]) == status
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert ("whole lines" in line) == (getattr(error, "errno", None) == errno.ENOSPC)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("transcribe --model m --num-threads 100000 a", "at most 1024 is possible, but got 100000"),
        ("transcribe --model m --beam-size 99999999999 a", "but got 99999999999"),
        ("benchmark --model m --lm-weight nan", "a finite number is needed, but got nan"),
    ],
)
def test_numbers_that_no_library_takes(capsys, words, message):
    assert message in refused(capsys, *words.split())


@pytest.fixture
def signals(monkeypatch):
    """The handlers are those of a program that has just started, and as before afterwards."""
    monkeypatch.setattr(cli, "_ending", [])
    monkeypatch.setattr(cli, "start_sooner", lambda check_types: None)
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:  # under nohup one is ignored, and stays so
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_command_and_the_next_do_not_disturb_it(signals, monkeypatch, number):
    cleaned = []

    def hang_up():
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            signal.raise_signal(signal.SIGINT)
            cleaned.append(1)

    def gone(*_):
        raise OSError(errno.EIO, "the terminal is gone")

    monkeypatch.setattr(cli, "main", hang_up)
    monkeypatch.setattr(os, "write", gone)
    with pytest.raises(SystemExit) as end:
        cli.command()
    assert (end.value.code, cleaned) == (128 + number, [1])
    monkeypatch.setattr(cli, "GRACE_SECONDS", -1.0)
    monkeypatch.setattr(os, "_exit", cleaned.append)
    signal.raise_signal(number)
    assert cleaned == [1, 128 + number]


def test_a_closed_stdout_ends_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as end:
        cli.command()
    assert end.value.code == 2
    assert "standard output is closed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "why"), [(os.ST_RDONLY, "read-only file system"), (0, "permission denied")]
)
def test_why_nothing_can_be_written_is_said(tmp_path, monkeypatch, flags, why):
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=flags))
    with pytest.raises(ValueError, match=f"--stats .*a.json cannot be written: {why}"):
        check_output("--stats", tmp_path / "a.json")
    with pytest.raises(ValueError, match=f"--output .* cannot be written to: {why}"):
        make_folder("--output", tmp_path)


def test_an_output_that_is_an_input_is_refused(tmp_path):
    (tmp_path / "a.wav").write_text("x")
    (tmp_path / "link").symlink_to("a.wav")
    with pytest.raises(ValueError, match="--stats .*link is an input, and would be lost"):
        check_output("--stats", tmp_path / "link", ["none", "\0", tmp_path / "a.wav"])
    check_output("--stats", tmp_path / "b", [tmp_path / "a.wav", tmp_path / "b"])
    (tmp_path / "dangling").symlink_to("gone/b")
    with pytest.raises(ValueError, match="there is no such directory"):
        check_output("--stats", tmp_path / "dangling")
