import os
import subprocess
import sys
from pathlib import Path

import pytest

import espnet_layerskip
from espnet_layerskip.__main__ import _safe, main
from espnet_layerskip.training import resume


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
    monkeypatch.syspath_prepend(str(tmp_path))  # puts sys.path back as it was, too
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    return tmp_path / "shown_module.py"


def test_arguments_pass_through(script, capsys):
    for how in (["-m", "shown_module"], [str(script)], ["-u", str(script)]):
        assert main([*how, "--a", "-m", "b"]) == 0
        assert capsys.readouterr().out == "__main__ ['--a', '-m', 'b']\n"
    assert main(["-c", "import sys; print(__name__, sys.argv)", "x"]) == 0
    assert capsys.readouterr().out == "__main__ ['-c', 'x']\n"


def test_a_script_imports_what_is_beside_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "beside_the_script.py").write_text("HERE = 1\n")
    (tmp_path / "run.py").write_text("import beside_the_script\nprint(beside_the_script.HERE)\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    assert main([str(tmp_path / "run.py")]) == 0
    assert capsys.readouterr().out == "1\n"


CHILD = """
import multiprocessing
import sys

def show():
    print([type(f).__module__ for f in sys.meta_path if "layerskip" in type(f).__module__])

if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=show)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("launcher", [["-m", "espnet_layerskip"], []])
def test_processes_that_are_started_afresh_register_too(tmp_path, launcher):
    """As those of a training on several GPUs, whatever program it is."""
    (tmp_path / "run.py").write_text(CHILD)
    env = {**os.environ, "PYTHONPATH": str(Path(espnet_layerskip.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *launcher, "run.py"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{['espnet_layerskip.registry'] if launcher else []}\n"


def test_exit_status_passes_through():
    with pytest.raises(SystemExit) as exit_:
        main(["-c", "raise SystemExit(3)"])
    assert exit_.value.code == 3


@pytest.mark.parametrize("args", [[], ["-m"], ["--fast"], ["--skip"], ["--skip", "gates=1"]])
def test_wrong_calls_get_the_usage(args, capsys):
    assert main(args) == 2
    error = capsys.readouterr().err
    assert "usage: python -m espnet_layerskip [--skip SETTINGS] -m MODULE" in error
    assert "is needed" in error


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-m", "nosuch.module"], "no module nosuch.module that can be run"),
        (["-m", "espnet2.bin.asr_inferance"], "no module espnet2.bin.asr_inferance that"),
        (["-m", "espnet2/bin/asr_train.py"], "no module espnet2/bin/asr_train.py that"),
        (["-m", "espnet_layerskip.bin"], "no module espnet_layerskip.bin that"),  # a package
        (["no such.py"], "no such.py: no such script"),
    ],
)
def test_what_is_not_there_is_told_without_a_traceback(args, message, capsys):
    assert main(args) == 2
    assert f"error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["option", "variable"])
def test_settings_that_cannot_be_read_stop_at_once(how, script, capsys, monkeypatch):
    args = ["-m", "shown_module"]
    if how == "option":
        args = ["--skip", "treshold=0.9", *args]
    else:
        monkeypatch.setenv("ESPNET_LAYERSKIP", "treshold=0.9")
    assert main(args) == 2
    captured = capsys.readouterr()
    assert "setting 'treshold=0.9' is not known" in captured.err
    assert "--skip or ESPNET_LAYERSKIP" in captured.err
    assert not captured.out


@pytest.mark.parametrize(
    ("variable", "args", "expected"),
    [
        ("", [], None),
        ("threshold=0.8", [], "threshold=0.8"),
        ("threshold=0.8", ["--skip", "threshold=0.9 gates=1,2"], "threshold=0.9 gates=1,2"),
        ("", ["--skip=threshold=0.9"], "threshold=0.9"),
        ("threshold=0.8", ["--skip", ""], None),  # the option goes before the variable
    ],
)
def test_skipping_by_option_or_variable(variable, args, expected, script, monkeypatch):
    told = []
    monkeypatch.setattr("espnet_layerskip.inference.when_built.SkipWhenBuilt", told.append)
    monkeypatch.setenv("ESPNET_LAYERSKIP", variable)
    assert main(["-u", *args, "-m", "shown_module"]) == 0
    assert [settings.describe() for settings in told] == ([expected] if expected else [])


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--resume", "true", "--output_dir", "exp"], Path("exp")),
        (["--resume=true", "--output_dir=exp"], Path("exp")),
        (["--resume", "True", "--output_dir", "exp"], Path("exp")),
        (["--resume", "1", "--output_dir", "exp"], Path("exp")),
        (["--resume", "false", "--output_dir", "exp"], None),
        (["--output_dir", "exp"], None),
    ],
)
def test_other_trainings_go_on_however_it_is_spelled(args, expected, monkeypatch):
    monkeypatch.setattr(resume, "going_on", lambda path: path)
    assert _safe("espnet2.bin.lm_train", args) == expected
