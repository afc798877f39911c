"""Models where users have them: moved, packed, unpacked, under ESPnet3's names, by a tag."""

from __future__ import annotations

import re
import shutil
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from espnet_layerskip import Speech2Text
from espnet_layerskip.cli import main
from espnet_layerskip.inference.pretrained import find_model, is_model_tag

from .conftest import REPO, Recipe

MODEL = REPO / "egs2/an4/asr1/pretrained/an4_layerskip.zip"
PAGE = MODEL.parent / "README.md"


@pytest.fixture
def noise() -> np.ndarray:
    """A second."""
    return np.random.default_rng(0).standard_normal(16000).astype(np.float32) / 9


def test_moved_and_under_every_name_of_a_checkpoint(
    models: dict[str, Path], noise: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ESPnet writes valid.loss.ave.pth as a link to ave_Nbest, ESPnet3 the latter alone."""
    here = Speech2Text.from_pretrained(models["skip"], decoder_type="greedy")(noise)
    moved = shutil.copytree(models["skip"], tmp_path / "elsewhere/asr")
    monkeypatch.chdir(tmp_path)
    assert Speech2Text.from_pretrained("elsewhere/asr", decoder_type="greedy")(noise) == here
    (moved / "valid.loss.ave.pth").rename(moved / "valid.loss.ave_5best.pth")
    shutil.copy(moved / "valid.loss.ave_5best.pth", moved / "valid.loss.ave_10best.pth")
    assert find_model(moved).model_file.name == "valid.loss.ave_10best.pth"
    assert Speech2Text.from_pretrained(moved, decoder_type="greedy")(noise) == here


@pytest.mark.slow
def test_packed_unpacked_and_packed_again(
    models: dict[str, Path], noise: np.ndarray, tmp_path: Path, recipe: Recipe
) -> None:
    """By ESPnet's program, through the launcher; its archive keeps the paths that it was given."""
    here = Speech2Text.from_pretrained(models["skip"], decoder_type="greedy")(noise)
    shutil.copytree(models["skip"], recipe.root / "exp/asr")
    files = "--asr_train_config exp/asr/config.yaml --asr_model_file exp/asr/valid.loss.ave.pth"
    pack = "python3 -m espnet_layerskip -m espnet2.bin.pack asr"
    recipe.run(f"{pack} {files} --outpath model.zip")
    with zipfile.ZipFile(recipe.root / "model.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked/exp/asr"
    for path in (recipe.root / "model.zip", unpacked):
        assert Speech2Text.from_pretrained(path, decoder_type="greedy")(noise) == here
    files = files.replace("exp/asr", str(unpacked))  # absolute paths are another form
    recipe.run(f"{pack} {files} --outpath again.zip")
    again = Speech2Text.from_pretrained(recipe.root / "again.zip", decoder_type="greedy")
    assert again(noise) == here


def test_ours_needs_no_ctc_weight(models: dict[str, Path]) -> None:
    """A model without a decoder is searched by its CTC head, whatever ESPnet's default is."""
    weights = {
        kind: Speech2Text.from_pretrained(models[kind], beam_size=2).beam_search.weights["ctc"]
        for kind in ("skip", "stock", "hybrid")
    }
    assert weights == {"skip": 1.0, "stock": 1.0, "hybrid": 0.5}


def documents() -> list[Path]:
    """Pages for users."""
    patterns = ("README.md", "docs/*.md", "egs?/*/*/README.md", "egs?/*/*/*/README.md")
    return [path for pattern in patterns for path in sorted(REPO.glob(pattern))]


# A page's code: a fenced block of Python, or between single backticks.
CODE = re.compile(r"^```python\n(.*?)^```|(?<!`)`([^`\n]+(?:\n[^`\n]+)*)`(?!`)", re.M | re.S)


def calls_without_weight(text: str) -> list[str]:
    """Calls of ESPnet's own Speech2Text or espnet.load in a page that do not say ctc_weight."""
    code = ["".join(found) for found in CODE.findall(text)]
    stock = [part for part in code if "espnet2.bin.asr_inference" in part or "espnet.load(" in part]
    calls = [re.findall(r"(?:Speech2Text|espnet\.load)\([^)]*\)", part) for part in stock]
    return [call for found in calls for call in found if "ctc_weight=" not in call]


def test_pages_show_no_call_that_gives_garbage() -> None:
    """ESPnet's class searches a model without a decoder rightly with ctc_weight=1.0 only."""
    assert PAGE in documents()
    for page in documents():
        assert not calls_without_weight(page.read_text(encoding="utf-8")), page
    seen = "`espnet2.bin.asr_inference.Speech2Text(asr_train_config=..., asr_model_file=...)`"
    assert calls_without_weight(seen)


def test_the_call_on_the_page_of_the_shipped_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    [block] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32) / 99
    monkeypatch.setattr("soundfile.read", lambda *args, **kwargs: (noise, 16000))
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["speech2text"].beam_search.weights["ctc"] == 1.0
    assert isinstance(names["text"], str)


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch, models: dict[str, Path]) -> None:
    """A stand-in for espnet_model_zoo that knows one tag."""

    class ModelDownloader:
        def download_and_unpack(self, tag: str) -> dict[str, str]:
            if tag == "someone/translates":
                return {"s2t_train_config": "x", "s2t_model_file": "y"}
            if tag != "someone/a_model":
                raise ConnectionError("no network\nand more")
            exp = models["skip"]
            files = {"train_config": "config.yaml", "model_file": "valid.loss.ave.pth"}
            return {f"asr_{key}": str(exp / name) for key, name in files.items()}

    module: Any = types.ModuleType("espnet_model_zoo.downloader")
    module.ModelDownloader = ModelDownloader
    monkeypatch.setitem(sys.modules, "espnet_model_zoo", types.ModuleType("espnet_model_zoo"))
    monkeypatch.setitem(sys.modules, "espnet_model_zoo.downloader", module)


@pytest.mark.usefixtures("zoo")
def test_transcribe_takes_a_tag(
    corpus: Any, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(corpus.files[0])
    for model in (str(models["skip"]), "someone/a_model"):
        assert main(["transcribe", "--model", model, file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0] == lines[1]


@pytest.mark.usefixtures("zoo")
def test_tags_that_give_no_model() -> None:
    with pytest.raises(ValueError, match=r"could not be fetched \(ConnectionError: no network\)$"):
        find_model("someone/nothing")
    with pytest.raises(ValueError, match="not a model of ESPnet's ASR task: .* s2t_train_config"):
        find_model("someone/translates")


def test_without_the_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espnet_model_zoo.downloader", None)
    with pytest.raises(ValueError, match="needs: pip install espnet_model_zoo"):
        find_model("someone/a_model")


def test_what_can_be_a_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exp").mkdir()
    assert is_model_tag("espnet/a_model_valid.acc.best")
    assert is_model_tag("https://zenodo.org/record/1/files/a.zip?download=1")
    for path in ("exp/asr", "x.zip", "other/x.zip", "/exp/asr", "./exp", "a/b/c", "../exp", "exp"):
        assert not is_model_tag(path), path
