"""utils/parse_options.sh: every option is checked, an unknown one is an error."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .conftest import REPO, TEMPLATE

SCRIPT = """#!/usr/bin/env bash
set -e -u -o pipefail
internal=$(echo secret)
stage=1          # first stage
flag=false       # a switch
name=            # any text
{known}
. {options}
name_late=3      # not an option: below
echo "stage=${{stage}} flag=${{flag}} name=[${{name}}] internal=${{internal}} rest=[$*] n=$#"
"""


def run(tmp_path: Path, *args: str, known: bool = False) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "x.sh"
    options = TEMPLATE / "utils" / "parse_options.sh"
    known_line = "parse_known_options=true" if known else ""
    script.write_text(SCRIPT.format(options=options, known=known_line), encoding="utf-8")
    return subprocess.run(
        ["bash", str(script), *args], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], "stage=1 flag=false name=[]"),
        (["--stage", "3", "--flag=true"], "stage=3 flag=true name=[]"),
        (["--name", "a b --c"], "name=[a b --c]"),
        (["--name", "--max_epoch 1"], "name=[--max_epoch 1]"),
        (["--name", ""], "name=[]"),
        (["--name=k=v"], "name=[k=v]"),
    ],
)
def test_options_set_variables(tmp_path: Path, args: list[str], expected: str) -> None:
    done = run(tmp_path, *args)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--unknown", "1"], "unknown option --unknown"),
        (["--internal", "x"], "unknown option --internal"),
        (["--PATH", "x"], "unknown option --PATH"),
        (["--name_late", "1"], "unknown option --name_late"),
        (["--stage"], "--stage: a value is missing"),
        (["--stage", "x"], "--stage 'x': an integer is needed"),
        (["--flag", "yes"], "--flag 'yes': choose true or false"),
        (["word"], "unexpected argument 'word'"),
        (["--.*", "1"], "unknown option"),
    ],
)
def test_bad_options_are_errors(tmp_path: Path, args: list[str], message: str) -> None:
    done = run(tmp_path, *args)
    assert done.returncode == 2
    assert message in done.stderr
    assert "stage=" not in done.stdout


HOSTS = """#!/usr/bin/env bash
set -e -u -o pipefail
stage=0       # start from 0
valid_ratio=0.1
lang="en"
. {options}
echo "ratio=${{valid_ratio}} stage=${{stage}} lang=${{lang}} root=${{1:-data}} n=$#"
"""


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], "ratio=0.1 stage=0 lang=en root=data n=0"),
        (["--valid-ratio", "0.05", "data/x"], "ratio=0.05 stage=0 lang=en root=data/x n=1"),
        (["--stage", "x", "a", "--lang", "b"], "ratio=0.1 stage=x lang=en root=a n=3"),
        (["--lang=", "a b"], "ratio=0.1 stage=0 lang= root=a b n=1"),
    ],
)
def test_scripts_of_the_host_are_read_as_there(
    tmp_path: Path, args: list[str], expected: str
) -> None:
    script = tmp_path / "data.sh"
    script.write_text(HOSTS.format(options=TEMPLATE / "utils/parse_options.sh"))
    command = ["bash", str(script)]
    done = subprocess.run([*command, *args], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == (expected, 0), done.stderr
    refused = subprocess.run(
        [*command, "--vaild", "1"], capture_output=True, text=True, check=False
    )
    assert (refused.returncode, "unknown option --vaild" in refused.stderr) == (2, True)


def test_known_options_only_leaves_the_rest_in_its_order(tmp_path: Path) -> None:
    done = run(tmp_path, "--other", "a b", "--name", "n", "--last=1", known=True)
    assert done.returncode == 0, done.stderr
    assert "name=[n] internal=secret rest=[--other a b --last=1] n=3" in done.stdout


def test_help_lists_the_options_and_their_defaults(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert done.returncode == 0
    assert "--stage  first stage [default: 1]" in done.stdout
    assert "internal" not in done.stdout
    assert "name_late" not in done.stdout


def test_every_option_of_asr_sh_has_a_comment() -> None:
    lines = (TEMPLATE / "asr.sh").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("stage="))
    end = next(i for i, line in enumerate(lines) if "parse_options.sh" in line)
    options = [line for line in lines[start:end] if line and not line.startswith("#")]
    assert len(options) > 50
    assert [line for line in options if " # " not in line] == []


def test_the_an4_recipe_uses_the_template() -> None:
    recipe = REPO / "egs2" / "an4" / "asr1"
    for name in ("asr.sh", "path.sh", "cmd.sh", "utils"):
        assert (recipe / name).is_symlink()
        assert (recipe / name).resolve() == (TEMPLATE / name).resolve()
    assert (recipe / "run.sh").read_text(encoding="utf-8").rstrip().endswith('"$@"')
