"""README.md and the recipes' own: every command, option, path and link in them is real."""

import importlib.util
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    path for path in [ROOT / "README.md", *sorted(ROOT.glob("egs2/*/*/README.md"))] if path.exists()
]
BLOCK = re.compile(r"^```(?:sh|bash|shell|console)\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
# What a recipe or a user makes: not in a fresh checkout.
MADE = re.compile(r"(^|/)(data|dump|exp|downloads|\.venv\w*)(/|$)")


def commands(text):
    """Commands of the shell blocks, continuation lines joined; in a console block after '$ '."""
    found = []
    for block in BLOCK.findall(text):
        lines = re.sub(r"\\\n\s*", " ", block).splitlines()
        prompts = [line[2:] for line in lines if line.startswith("$ ")]
        for line in prompts or lines:
            for part in re.split(r"&&|;|\|(?!\|)", re.sub(r"(^|\s)#.*", "", line)):
                if part.strip():
                    found.append(part.strip())
    return found


def cases():
    """(document, working directory, command) for parametrize; `cd` holds to the document's end."""
    found = []
    for path in DOCUMENTS:
        where = path.parent
        for command in commands(path.read_text(encoding="utf-8")):
            name = f"{path.relative_to(ROOT)}: {command}"[:90]
            found.append(pytest.param(path, where, command, id=name))
            if command.startswith("cd ") and (ROOT / command[3:]).is_dir():
                where = ROOT / command[3:]
    return found


@cache
def help_of(*arguments):
    """What a Python command prints for --help."""
    done = subprocess.run(
        [sys.executable, *arguments, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{arguments} --help failed:\n{done.stderr[-2000:]}"
    return done.stdout


def make_targets():
    """Targets of the Makefile."""
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))


def options(words):
    """Long options among a command's words (one with a space is the value of another)."""
    long = [word for word in words if word.startswith("--") and word != "--" and " " not in word]
    return [word.split("=")[0] for word in long]


def script_options(script):
    """Options that a recipe script takes: `name=default` lines of it and of the asr.sh it calls."""
    text = script.read_text(encoding="utf-8")
    asr = ROOT / "egs2/TEMPLATE/asr1/asr.sh"
    if "asr.sh" in text and asr.exists():
        text += asr.read_text(encoding="utf-8")
    return set(re.findall(r"^([a-zA-Z_]\w*)=", text, re.M)) | {"help"}


def check_python(words):
    """`python -m MODULE --options`: the module exists and takes the options."""
    module = words[1]
    assert importlib.util.find_spec(module), f"no module {module}"
    wanted = options(words[2:])
    if module.startswith("espnet_layerskip.") and wanted:
        text = help_of("-m", module)
        missing = [name for name in wanted if name not in text]
        assert not missing, f"{module} has no {missing}"


def check_console_command(words):
    """`espnet-layerskip VERB --options`: the verb exists and takes the options."""
    verb = [word for word in words[:1] if not word.startswith("-")]
    text = help_of("-c", "from espnet_layerskip.cli import main; main()", *verb)
    missing = [name for name in options(words) if name not in text]
    assert not missing, f"espnet-layerskip {verb} has no {missing}"


def check_make(words):
    """`make TARGET`: the Makefile has it."""
    wanted = {word for word in words if not word.startswith("-") and "=" not in word}
    assert wanted <= make_targets(), f"not in the Makefile: {wanted - make_targets()}"


def check_script(path, words):
    """`./run.sh --options`: the script is there and has them as variables."""
    assert path.exists(), f"no such script: {path}"
    wanted = {name[2:].replace("-", "_") for name in options(words)}
    known = script_options(path)
    assert wanted <= known, f"{path.name} has no options {sorted(wanted - known)}"


def check_paths(words, *directories):
    """Configuration files named in a command are there."""
    for word in words:
        word = word.split("=")[-1]
        if re.fullmatch(r"[\w./-]+\.(yaml|md|py)", word) and not MADE.search(word):
            assert any((base / word).exists() for base in directories), f"no such file: {word}"


@pytest.mark.slow
@pytest.mark.parametrize(("document", "where", "command"), cases())
def test_documented_command_is_real(document, where, command):
    words = shlex.split(command)
    while words and re.fullmatch(r"\w+=.*", words[0]):  # VAR=value command
        words = words[1:]
    if not words:
        return
    program, rest = words[0], words[1:]
    recipes = [path.parent for path in ROOT.glob("egs2/*/*/run.sh")]
    check_paths(words, ROOT, document.parent, *recipes)
    if program == "make":
        check_make(rest)
    elif re.fullmatch(r"(\S*/)?python[\d.]*", program) and rest[:1] == ["-m"]:
        check_python(rest)
    elif program.split("/")[-1] == "espnet-layerskip":
        check_console_command(rest)
    elif program.endswith(".sh"):
        places = [where, document.parent, ROOT]
        script = next((p / program for p in places if (p / program).exists()), ROOT / program)
        check_script(script, rest)
    elif program == "cd":
        assert (
            (ROOT / rest[0]).is_dir()
            or MADE.search(rest[0])
            or rest == [ROOT.name]
            or (rest == ["espnet_layerskip"])
        ), f"no such directory: {rest[0]}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    missing = [
        link
        for link in LINK.findall(document.read_text(encoding="utf-8"))
        if "://" not in link and not link.startswith("mailto:")
        if not (document.parent / link).exists()
    ]
    assert not missing, f"{document.name} links to nothing: {missing}"


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="no README.md yet")
def test_readme_names_the_targets_a_newcomer_needs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in ("setup", "test", "lint"):
        assert f"make {target}" in text


def test_commands_are_found_in_every_kind_of_block():
    text = (
        "```sh\nmake setup  # builds\n./run.sh \\\n  --stage 1\n```\n"
        "```console\n$ make test && cd egs2\n12 passed\n```\n"
        "```python\nmake = 1\n```\n"
    )
    assert commands(text) == ["make setup", "./run.sh  --stage 1", "make test", "cd egs2"]


def test_wrong_target_and_option_are_seen():
    check_make(["test", "VENV=.venv"])
    with pytest.raises(AssertionError, match="nonsense"):
        check_make(["nonsense"])
    with pytest.raises(AssertionError, match="no module"):
        check_python(["-m", "espnet_layerskip_nonsense"])
    with pytest.raises(AssertionError, match="no such file"):
        check_paths(["--asr_config", "conf/nonsense.yaml"], ROOT)
