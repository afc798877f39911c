import subprocess
from pathlib import Path

from espnet_layerskip.evaluation import environment
from espnet_layerskip.evaluation.environment import (
    cpu_model,
    describe,
    environment_record,
    finish_record,
    git_commit,
    relative,
    typed,
)


def test_record_is_complete_and_names_no_place():
    record = environment_record()
    assert record["load_after"] is None
    done = finish_record(record)
    assert len(done["load_after"]) == 3
    for key in ("date", "torch", "espnet", "espnet_layerskip", "cpu", "cores", "num_threads"):
        assert done[key]
    text = "\n".join(describe(done))
    assert str(done["torch"]) in text
    assert "load average" in text
    assert str(Path.home()) not in text
    assert str(Path(environment.__file__).parents[2]) not in text


def test_describe_without_load():
    record = {**environment_record(), "load_before": None, "commit": None}
    assert "unknown before" in "\n".join(describe(record))
    assert "not in a git checkout" in "\n".join(describe(record))


def test_commit_of_a_checkout(tmp_path):
    assert git_commit(tmp_path) is None

    def git(*args):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", "-C", tmp_path, *identity, *args], check=True, capture_output=True)

    git("init")
    (tmp_path / "__init__.py").write_text("")
    assert git_commit(tmp_path) is None  # there is a checkout, but it does not track the file
    git("add", ".")
    git("commit", "-m", "x")
    commit = git_commit(tmp_path)
    assert len(commit) == 12
    (tmp_path / "__init__.py").write_text("1")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_cpu_model(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Fast CPU @ 3 GHz\n")
    assert cpu_model(info) == "Fast CPU @ 3 GHz"
    assert cpu_model(tmp_path / "none")


def test_command_line_has_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["--row", "ours on", f"{tmp_path}/exp/a,{tmp_path}/exp/b", "exit=4"]
    assert typed(["x", *argv]) == "x --row 'ours on' exp/a,exp/b exit=4"
    assert relative(tmp_path / "a" / "b") == relative("a/b") == "a/b"
    assert relative("/elsewhere/a") == "/elsewhere/a"
