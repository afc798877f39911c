"""The page of AN4's local/retrofit.sh."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import retrofit_page

RECIPE = Path(retrofit_page.__file__).parents[1]


def report(data: str, *exps: str) -> dict[str, Any]:
    return {"data": {"dir": data}, "experiments": [{"exp": exp} for exp in exps]}


def test_each_retrofit_is_listed_once_and_each_set_has_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(retrofit_page, "compare_page", lambda report: f"# T\n{report['data']}")
    stock = "exp/asr_conformer_seed1"
    made = (f"{stock}_retrofit_labelled", f"{stock}_retrofit_unlabelled/rejected")
    for exp in made:
        Path(exp).mkdir(parents=True)
        record = {
            "training": {"epochs": 4, "seconds": 60.0, "cpu_seconds": 50.0},
            "found": {
                "kept_by": "nothing" if "rejected" in exp else "point estimate",
                "chosen": {
                    "increase": {"difference": 0.5, "low": -0.1, "high": 1.1},
                    "skip_ratio": 0.42,
                },
            },
        }
        (Path(exp) / "retrofit.json").write_text(json.dumps(record))
    sets = "dump/raw/test", "dump/raw/train_dev"
    page = retrofit_page.retrofit_results([report(data, stock, *made) for data in sets])
    rows = [line for line in page.splitlines() if line.startswith("| asr_")]
    assert rows == [
        "| asr_conformer_seed1 | labelled |  | 60 | 50 | +0.50 [-0.10, +1.10] | 42.0 "
        "| point estimate |",
        "| asr_conformer_seed1 | unlabelled |  | 60 | 50 | +0.50 [-0.10, +1.10] | 42.0 "
        "| rejected |",
    ]
    assert [line for line in page.splitlines() if line.startswith("## On")] == [
        "## On test: conformer",
        "## On train_dev: conformer",
    ]


def test_the_time_of_a_training_that_another_one_has_begun_is_not_known(tmp_path: Path) -> None:
    line = "[host] 2026-11-27 21:{:02}:00,000 (trainer:1) INFO: {}"
    ends = [line.format(9, "20epoch results: [train] a=1")]
    (tmp_path / "train.log").write_text("\n".join([line.format(3, "11/20epoch started"), *ends]))
    assert retrofit_page.training_seconds(tmp_path) == 0.0
    (tmp_path / "train.1.log").write_text(
        "\n".join(
            [line.format(0, "1/20epoch started"), line.format(2, "10epoch results: [train] a=1")]
        )
    )
    assert retrofit_page.training_seconds(tmp_path) == 480.0


STAND_IN = """#!/bin/sh
# In the place of Python: notes what it is asked for; a retrofit ends with the status $STATUS.
[ "$1" = -m ] || [ "$1" = local/retrofit_page.py ] || exit 0
echo "$*" >> calls.txt
case "$*" in *.cli*) exit "${STATUS:-0}" ;; esac
"""


def test_the_script_goes_on_where_some_data_could_not_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("path.sh", "utils", "local"):
        (tmp_path / name).symlink_to((RECIPE / name).resolve())
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    stock = tmp_path / "exp/asr_conformer_seed1"
    stock.mkdir(parents=True)
    (stock / "valid.cer_ctc.ave.pth").touch()
    made = [Path(f"{stock}_retrofit_{way}") for way in ("untrained", "unlabelled", "labelled")]

    def run(status: int) -> int:
        monkeypatch.setenv("STATUS", str(status))
        command = ["local/retrofit.sh", "--python", "./python", "--kinds", "conformer"]
        command += ["--tests", "dump/raw/test other/test"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert "not found" not in done.stderr
        assert "No such file" not in done.stderr
        return done.returncode

    assert run(1) == 1, "nothing was made"
    for folder in made:
        folder.mkdir()
        (folder / "retrofit.json").touch()
    assert run(2) == 2
    (tmp_path / "calls.txt").unlink()
    assert run(1) == 0
    pages = (tmp_path / "calls.txt").read_text().splitlines()[-1].split()[-2:]
    assert len(set(pages)) == 2, "sets of one name"
