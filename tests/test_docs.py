"""README.md, docs/ and the recipes' pages: commands, options, paths, links, examples are real."""

import contextlib
import importlib.util
import inspect
import io
import re
import runpy
import shlex
import signal
import sys
from argparse import Namespace
from functools import cache
from pathlib import Path

import pytest
import soundfile
import yaml

from tests.support import recognizers

ROOT = Path(__file__).resolve().parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "egs2/an4/asr1/RESULTS.md"
DOCUMENTS = [
    path
    for pattern in ("README.md", "docs/*.md", "egs?/*/*/README.md", "egs?/*/*/*/README.md")
    for path in sorted(ROOT.glob(pattern))
]
PAGES = [path for path in [*DOCUMENTS, ROOT / "CHANGELOG.md", RESULTS] if path.exists()]
BLOCK = re.compile(r"^```(?:sh|bash|shell|console)\n(.*?)^```", re.M | re.S)
FENCED = re.compile(r"^```.*?^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)")  # also that of an image which is a link itself
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
def help_of(module, *arguments):
    """What ``python -m MODULE ARGUMENTS --help`` prints."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [module, *arguments, "--help"])
        patch.setattr(signal, "signal", lambda *_: None)  # a console command sets some
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert not ended.value.code, f"{module} {arguments} --help failed"
    return printed.getvalue()


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
        text = help_of(module)
        missing = [name for name in wanted if name not in text]
        assert not missing, f"{module} has no {missing}"


def check_console_command(words):
    """`espnet-layerskip VERB --options`: the verb exists and takes the options."""
    verb = [word for word in words[:1] if not word.startswith("-")]
    text = help_of("espnet_layerskip.cli", *verb)
    missing = [name for name in options(words) if name not in text]
    assert not missing, f"espnet-layerskip {verb} has no {missing}"


def check_make(words):
    """`make TARGET`: the Makefile has it."""
    wanted = {word for word in words if not word.startswith("-") and "=" not in word}
    assert wanted <= make_targets(), f"not in the Makefile: {wanted - make_targets()}"


def check_pip(words):
    """`pip install -e ".[EXTRA]"`: setup.py has the extras."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    known = set(re.findall(r'^    "(\w+)": \[', text, re.M))
    wanted = set(re.findall(r"\w+", " ".join(re.findall(r"\[(.*?)\]", " ".join(words)))))
    assert wanted <= known, f"setup.py has no extras {wanted - known}"


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
    elif program == "pip":
        check_pip(rest)
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


def anchors(text):
    """Names that a link can have after its #: those of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document):
    """Links of a document to files and headings that are not there."""
    broken = []
    for link in LINK.findall(FENCED.sub("", document.read_text(encoding="utf-8"))):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    return broken


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    assert not broken_links(document)


def test_broken_links_are_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One, two: `x`\n[a](#one-two-x) [b](page.md#one-two-x) [c](https://example.org/no)\n"
        "[d](#nothing) [e](none.md) ![f](none.png) [g](page.md#nothing)\n"
        "```\n# no heading\n[h](none.md)\n```\n[i](#no-heading)\n"
    )
    broken = ["#nothing", "none.md", "none.png", "page.md#nothing", "#no-heading"]
    assert broken_links(page) == broken


def test_readme_names_the_targets_a_newcomer_needs():
    text = README.read_text(encoding="utf-8")
    for target in ("setup", "demo", "test", "lint"):
        assert f"make {target}" in text


def tables(text):
    """Tables of a markdown text: for each its rows of cells, the header first."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        lines = block.splitlines()
        cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        found.append([row for row in cells if not all(re.fullmatch("-+", c) for c in row)])
    return found


def test_readme_is_short():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 130
    [[_, *rows]] = tables(text)
    assert len(rows) <= 8


def test_numbers_of_the_readme_are_in_the_results():
    [[_, *rows]] = tables(README.read_text(encoding="utf-8"))
    second = ("RESULTS", "RESULTS_SEED2", "SPEED_202611")
    pages = (
        "an4/asr1/RESULTS",
        "an4/asr1/RESULTS_ENGLISH",
        *(f"speechocean762/asr1/{name}" for name in second),
    )
    results = "".join((ROOT / f"egs2/{page}.md").read_text(encoding="utf-8") for page in pages)
    shown = " ".join(cell for row in rows for cell in row)
    exact = re.findall(r"[\d.]+ % \([\d.]+ to [\d.]+\)|[-+][\d.]+ points \[.*?\]", shown)
    assert len(exact) >= 5
    for number in exact:
        assert re.sub(" %| points", "", number) in results
    times = re.findall(r"([\d.]+) ms \((?:WER )?([\d.]+) %\)", shown)
    assert len(times) == 9
    medians = re.findall(r"^\| \w+ \| ([\d.]+) \(.*\| ([\d.]+) \|$", results, re.M)
    known = {(f"{float(median):.1f}", wer) for median, wer in medians}
    assert set(times) <= known
    assert ("69.4", "9.99") not in known


def test_differences_in_the_speechocean762_readme_are_in_its_pages():
    recipe = ROOT / "egs2/speechocean762/asr1"
    pages = "".join(path.read_text(encoding="utf-8") for path in recipe.glob("RE[ST]*.md"))
    shown = re.findall(r"[-+][\d.]+ \[.*?\]", (recipe / "README.md").read_text(encoding="utf-8"))
    assert len(shown) > 60
    assert [number for number in shown if number not in pages] == []


def test_tables_of_the_results_fit_a_screen():
    found = tables(RESULTS.read_text(encoding="utf-8"))
    assert len(found) > 50
    assert max(len(row) for table in found for row in table) <= 8


PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
WITH_PYTHON = [path for path in DOCUMENTS if PYTHON.search(path.read_text(encoding="utf-8"))]


def run_examples(document):
    """Run the Python blocks of a document one after the other, as a reader would."""
    text = document.read_text(encoding="utf-8")
    names = {"__name__": "__main__"}
    for block in PYTHON.finditer(text):
        lines = "\n" * (text[: block.start()].count("\n") + 1)  # errors name the document's line
        exec(compile(lines + block[1], document.name, "exec", dont_inherit=True), names)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, waves):
    """A folder with the models (8 tiny layers) and the audio that the examples name."""
    folder = tmp_path_factory.mktemp("workplace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recognizers.ENCODER, "num_blocks", 8)
        # as many tokens as ESPnet's beam is wide
        patch.setattr(recognizers, "TOKENS", [*recognizers.TOKENS[:-1], *"FGHIJKLMNOPQ", "<eos>"])
        for name, kind in (("asr_layerskip", "skip"), ("asr_conformer", "stock")):
            exp = recognizers.make_exp(folder / "exp" / name, kind)
            (exp / "valid.loss.ave.pth").rename(exp / "valid.cer_ctc.ave.pth")
    for name, wave in zip(("a.wav", "b.flac"), waves, strict=False):
        soundfile.write(folder / name, wave, recognizers.FS)
    (folder / "egs2").symlink_to(ROOT / "egs2")
    return folder


def test_pages_with_examples_are_found():
    names = {path.name for path in WITH_PYTHON}
    assert {"README.md", "decoding.md", "deployment.md", "extending.md"} <= names


@pytest.mark.parametrize("document", WITH_PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_run(document, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    run_examples(document)


def test_example_that_fails_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n```python\nx = 1\n```\n\n```python\nassert x == 2, 'page says'\n```\n")
    with pytest.raises(AssertionError, match="page says") as error:
        run_examples(page)
    assert error.traceback[-1].lineno == 6


@pytest.mark.parametrize("name", ["README.md", "docs/configuration.md"])
def test_configurations_build(name):
    """The YAML of the pages, with the tiny model's other parts."""
    from espnet_layerskip.training.task import LayerSkipASRTask

    blocks = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.M | re.S
    )
    assert blocks
    for block in blocks:
        # what a configuration has before; of ESPnet's options only what makes it tiny
        config = {**recognizers.make_config("stock"), "encoder_conf": {"output_size": 16}}
        for key, value in yaml.safe_load(block).items():
            config[key] = {**config[key], **value} if isinstance(value, dict) else value
        args = Namespace(**{**LayerSkipASRTask.get_default_config(), **config})
        model = LayerSkipASRTask.build_model(args)
        assert model.encoder.gate_layer_idx == [4]
        assert model.ctc.head_type == "plain"


def documented(heading):
    """Option and default of the table below a heading of configuration.md."""
    _, _, text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8").partition(heading)
    [header, *rows] = tables(text)[0]
    assert header[:2] == ["option", "default"]
    return {row[0].split("`")[1]: yaml.safe_load(row[1].strip("`")) for row in rows}


def test_encoder_options_are_documented_with_their_defaults():
    from espnet_layerskip.encoders.base import OPTIONS

    assert documented("## `encoder_conf`") == OPTIONS


def test_model_options_are_documented_with_their_defaults():
    from espnet_layerskip._compat import ESPnetASRModel
    from espnet_layerskip.training.model import LayerSkipASRModel

    ours = inspect.signature(LayerSkipASRModel).parameters
    new = ours.keys() - inspect.signature(ESPnetASRModel).parameters.keys()
    defaults = {name: ours[name].default for name in {*new, "interctc_weight"}}
    found = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in documented("## `model_conf`").items()
    }
    assert found == defaults


def test_settings_are_documented():
    from espnet_layerskip.method.settings import KEYS

    _, _, text = (ROOT / "docs/decoding.md").read_text(encoding="utf-8").partition("## Settings")
    [_, *rows] = tables(text)[0]
    assert {row[0].strip("`"): row[1].strip("`") for row in rows} == KEYS


def test_commands_are_found_in_every_kind_of_block():
    text = (
        "```sh\nmake setup  # builds\n./run.sh \\\n  --stage 1\n```\n"
        "```console\n$ make test && cd egs2\n12 passed\n```\n"
        "```python\nmake = 1\n```\n"
    )
    assert commands(text) == ["make setup", "./run.sh  --stage 1", "make test", "cd egs2"]


def test_wrong_target_and_option_are_seen():
    check_make(["test", "VENV=.venv"])
    check_pip(["install", "-e", ".[figures,espeak]"])
    with pytest.raises(AssertionError, match="no extras"):
        check_pip(["install", "-e", ".[nonsense]"])
    with pytest.raises(AssertionError, match="nonsense"):
        check_make(["nonsense"])
    with pytest.raises(AssertionError, match="no module"):
        check_python(["-m", "espnet_layerskip_nonsense"])
    with pytest.raises(AssertionError, match="no such file"):
        check_paths(["--asr_config", "conf/nonsense.yaml"], ROOT)
