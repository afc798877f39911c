"""A tiny corpus of noise and a recipe directory that uses the repository's scripts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_layerskip.files import DataDir
from tests.support.forking_python import forking_python

REPO = Path(__file__).resolve().parents[2]
TEMPLATE = REPO / "egs2" / "TEMPLATE" / "asr1"
WORDS = ["YES", "NO", "GO HOME", "STOP", "ONE TWO"]

RunRecipe = Callable[..., subprocess.CompletedProcess[str]]


def write_noise(path: Path, seconds: float = 0.3, rate: int = 16000, seed: int = 0) -> None:
    """Write a mono file of noise; the suffix gives the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0.0, 0.1, int(seconds * rate)).astype(np.float32)
    kind = {".sph": "NIST", ".flac": "FLAC"}.get(path.suffix, "WAV")
    soundfile.write(str(path), noise, rate, subtype="PCM_16", format=kind)


def make_data_dir(directory: Path, audio: Path, names: list[str], suffix: str = ".wav") -> DataDir:
    """Write a data directory with a noise file for each name; return its content."""
    data = DataDir({}, {}, {})
    for i, name in enumerate(names):
        path = audio / f"{name}{suffix}"
        write_noise(path, seed=i)
        data.wav[name] = str(path)
        data.text[name] = WORDS[i % len(WORDS)]
        data.utt2spk[name] = name.split("-")[0]
    data.save(directory)
    return data


@pytest.fixture
def recipe_dir(tmp_path: Path) -> Path:
    """Return a recipe directory with data/{train,dev,test} of 6, 2 and 3 utterances.

    Its path has a space, as people's have.
    """
    directory = tmp_path / "egs2" / "mini corpus" / "asr1"
    (directory / "local").mkdir(parents=True)
    for name in ("asr.sh", "path.sh", "cmd.sh", "utils"):
        (directory / name).symlink_to(TEMPLATE / name)
    script = directory / "local" / "data.sh"
    script.write_text('#!/usr/bin/env bash\necho local data "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    for dset, count in (("train", 6), ("dev", 2), ("test", 3)):
        names = [f"s{i % 2}-{dset}{i}" for i in range(count)]
        make_data_dir(directory / "data" / dset, tmp_path / "some audio", names)
    return directory


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return a Python whose programs have ESPnet imported already."""
    with forking_python(tmp_path_factory.mktemp("python")) as program:
        yield str(program)


@pytest.fixture
def run_recipe(recipe_dir: Path, python: str) -> RunRecipe:
    """Return a function that runs asr.sh there with the options that are given."""

    def run(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = ["./asr.sh", "--python", python, "--nj", "1"]
        command += ["--train_set", "train", "--valid_set", "dev", "--test_sets", "test"]
        command += ["--token_type", "char", *options]
        return subprocess.run(
            command,
            cwd=recipe_dir,
            env=os.environ | env,
            capture_output=True,
            text=True,
            timeout=1200,  # ESPnet imports slowly on a busy machine
            check=False,
        )

    return run
