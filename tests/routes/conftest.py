"""A recipe directory with a tiny corpus, and a Python that a shell calls and a fork answers.

Importing ESPnet takes seconds, and a route is mostly command lines. So a script runs with a
``python3`` that only writes down how it was called, and the calls run afterwards in forks of the
tests' process, which has ESPnet imported. What has to start from nothing is in test_launcher.py.
"""

from __future__ import annotations

import atexit
import io
import logging
import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml

from tests.support.forking_python import preload

REPO = Path(__file__).resolve().parents[2]
TOKENS = ["<blank>", "<unk>", "<space>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "<sos/eos>"]
TEXTS = ["YES", "NO", "GO HOME", "STOP", "ONE TWO", "HELP"]
# Writes the working directory and its arguments into the file "calls" of the recipe.
PYTHON3 = """#!/usr/bin/env bash
printf '%s\\0' "${PWD}" "$@" $'\\x01' >> RECIPE/calls
"""
# Kaldi's run.pl: options, a log file, a command; JOB stands for the number of the job.
RUN_PL = """#!/usr/bin/env bash
while [[ $1 == --* || $1 == JOB=* ]]; do [[ $1 == --* ]] && shift; shift; done
log=${1//JOB/1}; shift
mkdir -p "$(dirname "${log}")"
"${@//JOB/1}" > "${log}" 2>&1 || { cat "${log}" >&2; exit 1; }
"""
SSH = """#!/usr/bin/env bash
shift
exec bash -c "$*"
"""


class Forked:
    """A call of ``python -m espnet_layerskip ARGS`` in a fork of this process.

    Args:
        args: What follows ``-m espnet_layerskip``.
        cwd: Its working directory.
        env: More of its environment.
        before: Called in the fork before the launcher.
        stdin: File to read standard input from.
    """

    def __init__(
        self,
        args: Sequence[str],
        cwd: Path,
        env: dict[str, str] | None = None,
        before: Callable[[], None] | None = None,
        stdin: Path | None = None,
    ):
        preload()  # once, here
        self.args, self.cwd, self.env = list(args), cwd, env or {}
        self.before, self.stdin = before, stdin
        self.log = cwd / f"fork{len(list(cwd.glob('fork*.log')))}.log"
        self.log.touch()
        self.process = multiprocessing.get_context("fork").Process(target=self._run)
        self.process.start()

    def _run(self) -> None:
        status: Any = 1
        atexit._clear()  # what is to be done at the end of the tests
        try:
            os.chdir(self.cwd)
            os.environ.update(self.env)
            out = os.open(self.log, os.O_WRONLY)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False))
            sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False))
            if self.stdin is not None:
                sys.stdin = self.stdin.open(encoding="utf-8")
            logging.root.handlers.clear()
            torch.set_num_threads(1)  # the threads of a forked pool are not there
            if self.before is not None:
                self.before()
            from espnet_layerskip.__main__ import main

            status = main(self.args)
        except SystemExit as e:
            status = e.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status if isinstance(status, int) else 1)

    def wait(self, check: bool = True) -> str:
        """Return what it wrote; unless ``check`` is off, fail if it failed."""
        self.process.join(timeout=900)
        said = self.log.read_text(encoding="utf-8", errors="replace")
        assert not check or self.process.exitcode == 0, f"{self.args}\n{said[-6000:]}"
        return said


class Recipe:
    """A recipe directory; see `write_corpus`. Its ``bin`` is the beginning of PATH."""

    def __init__(self, root: Path):
        self.root = root
        write_corpus(root)
        for name, text in (("python3", PYTHON3), ("run.pl", RUN_PL), ("ssh", SSH)):
            path = root / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.replace("RECIPE", str(root)), encoding="utf-8")
            path.chmod(0o755)

    def shell(self, script: str) -> list[list[str]]:
        """Run a script in bash; return the arguments of the calls of ``python3`` in it."""
        path = f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", f"set -e -u -o pipefail\n{script}"],
            cwd=self.root,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return self.take_calls()

    def take_calls(self) -> list[list[str]]:
        """Return the calls of ``python3`` since the last time."""
        calls = self.root / "calls"
        if not calls.exists():
            return []
        text = calls.read_text(encoding="utf-8")
        calls.unlink()
        found = [call.split("\0")[:-1] for call in text.split("\x01\0")[:-1]]
        assert all(call[0] == str(self.root) for call in found)
        return [call[1:] for call in found]

    def fork(self, call: Sequence[str], **options: Any) -> Forked:
        """Start what ``python3 CALL`` is, if it is a call of the launcher."""
        assert list(call[:2]) == ["-m", "espnet_layerskip"], call
        return Forked(call[2:], self.root, **options)

    def run(self, script: str, **options: Any) -> list[str]:
        """Run a script, then its calls, then the calls that these make; return what they wrote."""
        said, calls = [], self.shell(script)
        options["env"] = {"PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        while calls:
            said.append(self.fork(calls.pop(0), **options).wait())
            calls += self.take_calls()
        return said


def write_corpus(recipe: Path) -> None:
    """Write dump/raw/{train,dev,test} with 6, 2 and 2 utterances, and data/token_list."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 6), ("dev", 2), ("test", 2)):
        folder = recipe / "dump/raw" / name
        folder.mkdir(parents=True)
        tables: dict[str, list[str]] = {"wav.scp": [], "text": [], "utt2spk": []}
        for i in range(count):
            utt, path = f"s{i % 2}-{name}{i}", folder / f"{i}.wav"
            soundfile.write(path, 0.1 * rng.standard_normal(8000 + 1600 * i), 16000)
            tables["wav.scp"].append(f"{utt} {path.relative_to(recipe)}\n")
            tables["text"].append(f"{utt} {TEXTS[i]}\n")
            tables["utt2spk"].append(f"{utt} s{i % 2}\n")
        for table, lines in tables.items():
            (folder / table).write_text("".join(sorted(lines)), encoding="utf-8")
    tokens = recipe / "data/token_list/char/tokens.txt"
    tokens.parent.mkdir(parents=True)
    tokens.write_text("".join(f"{token}\n" for token in TOKENS), encoding="utf-8")


def training(ours: bool = True, **more: Any) -> dict[str, Any]:
    """A tiny CTC training of one epoch: with a gate, or the stock twin."""
    config: dict[str, Any] = {
        "encoder": "layerskip_conformer" if ours else "conformer",
        "encoder_conf": {
            "output_size": 16,
            "attention_heads": 2,
            "linear_units": 32,
            "num_blocks": 3,
            "rel_pos_type": "latest",
            "macaron_style": True,
            "cnn_module_kernel": 7,
            "interctc_layer_idx": [1],
        },
        "model": "layerskip" if ours else "espnet",
        "model_conf": {"ctc_weight": 1.0, "interctc_weight": 0.3},
        "frontend_conf": {"n_fft": 256, "hop_length": 128, "n_mels": 20},
        "batch_type": "unsorted",
        "batch_size": 2,
        "max_epoch": 1,
        "num_workers": 0,
        "num_att_plot": 0,
        "use_matplotlib": False,  # a figure for each loss takes longer than the training
        "optim": "adam",
        "best_model_criterion": [["valid", "loss", "min"]],
    }
    if ours:
        gate = {"gate_layer_idx": [1], "blank_threshold": 0.5, "train_skip_prob": 0.5}
        config["encoder_conf"] |= gate
    return config | more


def write_yaml(path: Path, value: Any) -> Path:
    """Write a configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return path


def data_options(train: str = "train", valid: str = "dev") -> list[str]:
    """ESPnet's options that name the corpus; its tables stand in for shape files."""
    options = ["--token_type", "char", "--token_list", "data/token_list/char/tokens.txt"]
    for part, name in (("train", train), ("valid", valid)):
        folder = f"dump/raw/{name}"
        options += [f"--{part}_data_path_and_name_and_type", f"{folder}/wav.scp,speech,sound"]
        options += [f"--{part}_data_path_and_name_and_type", f"{folder}/text,text,text"]
        options += [f"--{part}_shape_file", f"{folder}/wav.scp"]
    return options


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A fresh recipe directory."""
    return Recipe(tmp_path_factory.mktemp("recipe"))
