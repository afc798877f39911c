"""The wheel: what is in it, and that it runs where no checkout is."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import espnet_layerskip
from tests.support.experiments import make_experiment

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "espnet_layerskip"
# setuptools builds wheels itself since 70.1; before, the package wheel does.
CANNOT_BUILD = int(version("setuptools").split(".")[0]) < 71 and find_spec("wheel") is None
INSTALLER = (
    ["-m", "pip", "install", "--no-index", "--no-deps", "--no-compile", "--ignore-installed"]
    if find_spec("pip")
    else None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CANNOT_BUILD, reason="needs the package wheel: pip install -e '.[dev]'"),
]

# Runs the verbs in one process: importing torch and ESPnet takes longest.
PROGRAM = """
import json, os, sys

import espnet_layerskip
from espnet_layerskip._late_imports import start_sooner
from espnet_layerskip.cli import main

start_sooner(check_types=False)  # as the console command does
for name, argv in json.loads(sys.argv[1]).items():
    print("STATUS", name, main(argv), flush=True)
package = os.path.dirname(espnet_layerskip.__file__)
ours = {n: m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "espnet_layerskip"}
print("PACKAGE", package)
print("ELSEWHERE", [n for n, path in ours.items() if not path.startswith(package + os.sep)])
print("CHECKOUT", sys.argv[2] in map(os.path.abspath, sys.path))
"""


def run(*command, **more):
    """Run a command without this checkout on its path; return what it prints."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in command],
        env={**clean, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        **more,
    )
    assert done.returncode == 0, f"{command[:4]}:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    print(done.stderr)  # shown where a test fails
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Wheel built from a copy: setuptools writes build/ and *.egg-info beside setup.py."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("espnet_layerskip", "tests", "docs"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    output = tmp_path_factory.mktemp("dist")
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    run(sys.executable, "-c", build, output, cwd=tree)
    [path] = output.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Python of a new environment with the wheel, which finds its dependencies in this one."""
    place = tmp_path_factory.mktemp("env") / "venv"
    venv.create(place, with_pip=False, symlinks=True)
    python = place / "bin/python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", where).strip())
    # A line of a .pth is a folder to search; the .pth files in it, and so the editable install
    # of the checkout, are not read.
    (site / "dependencies.pth").write_text(
        "\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    )
    shim = Path(sysconfig.get_path("purelib")) / "distutils-precedence.pth"
    if shim.exists():  # setuptools' distutils, without which ESPnet does not run on Python 3.12
        shutil.copy(shim, site)
    if INSTALLER:
        run(python, *INSTALLER, wheel)
    elif shutil.which("uv"):
        run("uv", "pip", "install", "--python", python, "--no-index", "--no-deps", wheel)
    else:
        pytest.skip("needs pip or uv in this environment, to install the wheel")
    return python


def test_wheel_has_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    ours = espnet_layerskip.__version__
    assert wheel.name == f"espnet_layerskip-{ours}-py3-none-any.whl"
    wanted = {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {Path(name).suffix for name in wanted} == {".py", ".typed", ".css", ".js", ".j2"}
    info = f"espnet_layerskip-{ours}.dist-info/"
    assert {name for name in names if not name.startswith(info)} == wanted


def test_installed_wheel_runs_the_verbs(installed, data_dir, tmp_path):
    make_experiment(tmp_path / "exp" / "asr_x")
    wavs = sorted(map(str, data_dir.glob("*.wav")))[:2]
    exp = ["--exp", "exp/asr_x", "--data", str(data_dir)]
    setting = ["--thresholds", "0.9", "--extensions", "0,0", "--allow-point-estimate"]
    calls = {
        "calibrate": [
            "calibrate",
            *exp,
            "--max-wer-increase",
            "1000",
            "--shifts",
            "none",
            *setting,
        ],
        "transcribe": ["transcribe", "--model", "exp/asr_x", "--format", "json", *wavs],
        "report": ["report", *exp, "--output", "report", "--utt-id", "s0-u0"],
        "export": ["export", "--model", "exp/asr_x", "--output", "asr.onnx", "--longest", "2"],
        "transcribe_onnx": ["transcribe", "--model", "asr.onnx", wavs[0]],
    }
    script = installed.parent / "espnet-layerskip"
    assert run(script, "--version", cwd=tmp_path).split()[1] == espnet_layerskip.__version__
    printed = run(installed, "-c", PROGRAM, json.dumps(calls), ROOT, cwd=tmp_path).splitlines()
    *_, package, elsewhere, checkout = printed
    assert Path(package.removeprefix("PACKAGE ")).is_relative_to(installed.parents[1])
    assert (elsewhere, checkout) == ("ELSEWHERE []", "CHECKOUT False")
    statuses = dict(line.split()[1:] for line in printed if line.startswith("STATUS"))
    # 3: calibrated, and no setting pays for utterances this short on this machine
    assert statuses.pop("calibrate") in ("0", "3")
    assert statuses == {name: "0" for name in calls if name != "calibrate"}
    assert (tmp_path / "exp/asr_x/calibration.json").exists()
    transcripts = [json.loads(line) for line in printed if line.startswith("{")]
    assert [line["utt_id"] for line in transcripts] == ["s0-u0", "s0-u1"]
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert (PACKAGE / "evaluation/report/page.css").read_text(encoding="utf-8").strip() in page
    assert {"model.onnx", "full.onnx"} <= {p.name for p in (tmp_path / "asr.onnx").iterdir()}
