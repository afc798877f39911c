import os
import subprocess
import sys
from pathlib import Path

import pytest

import espnet_layerskip
from espnet_layerskip.__main__ import main


@pytest.mark.slow
def test_modules_run_with_our_classes_registered(tmp_path):
    command = [sys.executable, "-m", "espnet_layerskip", "-m", "espnet2.bin.asr_train"]
    options = ["--print_config", "--encoder", "layerskip_conformer", "--model", "layerskip"]
    env = {**os.environ, "PYTHONPATH": str(Path(espnet_layerskip.__file__).parents[1])}
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "gate_layer_idx" in done.stdout


@pytest.fixture
def script(tmp_path, monkeypatch):
    (tmp_path / "shown_module.py").write_text("import sys\nprint(__name__, sys.argv[1:])\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    return tmp_path / "shown_module.py"


def test_arguments_pass_through(script, capsys):
    for how in (["-m", "shown_module"], [str(script)], ["-u", str(script)]):
        assert main([*how, "--a", "-m", "b"]) == 0
        assert capsys.readouterr().out == "__main__ ['--a', '-m', 'b']\n"
    assert main(["-c", "import sys; print(__name__, sys.argv)", "x"]) == 0
    assert capsys.readouterr().out == "__main__ ['-c', 'x']\n"


def test_exit_status_passes_through():
    with pytest.raises(SystemExit) as exit_:
        main(["-c", "raise SystemExit(3)"])
    assert exit_.value.code == 3


@pytest.mark.parametrize("args", [[], ["-m"], ["--fast"]])
def test_wrong_calls_get_the_usage(args, capsys):
    assert main(args) == 2
    error = capsys.readouterr().err
    assert "usage: python -m espnet_layerskip -m MODULE" in error
    assert "is needed" in error


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "usage" in capsys.readouterr().out
