"""transcribe in many processes: the output of one process, whatever dies."""

import contextlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from espnet_layerskip.cli import main
from espnet_layerskip.inference.audio import Utterance
from espnet_layerskip.inference.transcriber import Transcriber, header_seconds, lost

REPO = Path(__file__).resolve().parents[2]
RUN_JOBS = f"{shlex.quote(sys.executable)} -m espnet_layerskip.recipe.run_jobs"
NAMES = [f"{i:02}" for i in range(24)]


@pytest.fixture(scope="module")
def many(corpus, tmp_path_factory):
    """A table of 24 utterances, of which three cannot be used."""
    table = tmp_path_factory.mktemp("many") / "wav.scp"
    bad = {"05": str(corpus.noise), "11": "", "23": f"{corpus.root}/gone.wav"}
    rows = {name: bad.get(name, corpus.files[i % 4]) for i, name in enumerate(NAMES)}
    table.write_text("".join(f"{name} {path}\n" for name, path in rows.items()))
    return table


def options(models, many, directory, *more):
    """Arguments of the verb, and a directory for what it writes."""
    directory.mkdir()
    written = ["--times", directory / "ctm", "--stats", directory / "stats.json"]
    call = ["transcribe", "--model", models["skip"], "--wav-scp", many, *written]
    return [str(word) for word in [*call, "--num-threads", 1, *more]]


def results(out, directory):
    stats = json.loads((directory / "stats.json").read_text())
    same = {k: stats[k] for k in ("audio_seconds", "skip_ratio", "utterances", "failed")}
    return out, (directory / "ctm").read_text(), same


@pytest.fixture(scope="module")
def alone(models, many, tmp_path_factory):
    """What one process gives: this one."""
    directory = tmp_path_factory.mktemp("alone") / "out"
    call, out = options(models, many, directory, "--batch-size", 2), io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(call) == 1
    found = results(out.getvalue(), directory)
    assert found[2]["failed"] == ["05", "11", "23"]
    assert [line.split()[0] for line in found[0].splitlines()] == [
        name for name in NAMES if name not in ("05", "11", "23")
    ]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["dask", "jobs"])  # processes: see the killed worker
def test_the_output_is_that_of_one_process(
    models, many, alone, tmp_path, capfd, caplog, monkeypatch, how
):
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    if how == "dask":
        pytest.importorskip("distributed")
    where = {
        "dask": ["--dask", "local"],
        "jobs": ["--cmd", RUN_JOBS, "--logdir", tmp_path / "log"],
    }[how]
    call = options(models, many, tmp_path / "out", "--batch-size", 2, "--inference_nj", 2, *where)
    assert main(call) == 1
    assert results(capfd.readouterr().out, tmp_path / "out") == alone
    named = [r.getMessage().split()[0] for r in caplog.records if "failed:" in r.getMessage()]
    assert named == ["11", "23", "05"]  # those without a file at once


UNIGNORE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def start(call, stdout):
    """Start the command in a process of its own."""
    process = subprocess.Popen(
        # a shell's background jobs, and all they start, ignore it
        [sys.executable, "-c", f"{UNIGNORE}; from espnet_layerskip.cli import command; command()"]
        + [str(word) for word in call],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stdout=stdout.open("w"),
        stderr=subprocess.PIPE,
        text=True,
    )
    return process


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(models, many, alone, tmp_path):
    call = options(models, many, tmp_path / "out", "--batch-size", 2, "--inference-nj", 2)
    stdout = tmp_path / "stdout"
    process = start(call, stdout)
    while process.poll() is None and not stdout.stat().st_size:
        time.sleep(0.05)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert results(stdout.read_text(), tmp_path / "out") == alone


@pytest.mark.slow
def test_ctrl_c_stops_the_workers(models, many, tmp_path):
    process = start(
        options(models, many, tmp_path / "out", "--inference_nj", 2), tmp_path / "stdout"
    )
    while len(workers := children(process.pid)) < 3:  # and multiprocessing's resource tracker
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_model_that_cannot_be_used_is_said(models, many, tmp_path, capsys):
    call = options(models, many, tmp_path / "out", "--inference_nj", 2, "--dask", "local")
    assert main([*call, "--cmd", "run.pl", "--logdir", "log"]) == 2
    assert "--dask and --cmd are two ways" in capsys.readouterr().err


def test_a_transcriber_travels_without_its_model(models, corpus):
    import pickle

    transcriber = Transcriber(str(models["skip"]), None, {"decoder_type": "greedy"})
    utterances = [Utterance("a", str(corpus.files[0])), Utterance("b", str(corpus.noise))]
    here = list(transcriber(utterances))
    assert [found.error is None for found in here] == [True, False]
    assert transcriber.load() is transcriber.load()
    assert len(pickle.dumps(transcriber)) < 1000
    there = list(pickle.loads(pickle.dumps(transcriber))(utterances))
    assert [found.text for found in there] == [found.text for found in here]
    assert [header_seconds(utt) for utt in utterances] == [pytest.approx(0.9), 0.0]
    assert lost(utterances[0]).error == "its process died each time (killed, or out of memory)"


def test_windows_of_batches_stay_whole():
    transcriber = Transcriber("exp", None, {}, batch_size=3)
    assert transcriber.batches_of == 24
    assert Transcriber("exp", None, {}).batches_of == 1
