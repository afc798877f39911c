"""The documentation as a site (make docs), and the notebook that it shows."""

import importlib.util
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import espnet_layerskip

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs/notebook.ipynb"


def load(name):
    """A program of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def tool():
    pytest.importorskip("mkdocs", reason="needs the extra docs: pip install -e '.[docs]'")
    pytest.importorskip("mkdocstrings", reason="needs the extra docs: pip install -e '.[docs]'")
    return load("docs_site")


@pytest.fixture(scope="module")
def site(tool, tmp_path_factory):
    """The site, built as `make docs` builds it: strictly."""
    folder = tmp_path_factory.mktemp("site")
    tool.build(site_dir=str(folder))
    return folder


class Links(HTMLParser):
    """What a page names: ids, links, and what it loads."""

    def __init__(self, page):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.ids |= {named[name] for name in ("id", "name") if named.get(name)}
        self.links += [named[name] for name in ("href", "src") if named.get(name)]
        if tag in ("script", "img", "link", "iframe") and named.get("rel") != "canonical":
            self.loads += [named[name] for name in ("href", "src") if named.get(name)]


@pytest.mark.slow
def test_links_of_the_site_lead_somewhere(site):
    pages = {page: Links(page) for page in site.rglob("*.html") if page.parent.name != "files"}
    assert len(pages) > 40
    broken = []
    for page, found in pages.items():
        for link in found.links:
            if re.match(r"https?:|mailto:|data:|javascript:", link) or page.name == "404.html":
                continue
            name, _, anchor = unquote(link).partition("#")
            target = (page.parent / name).resolve() if name else page
            ids = pages[target].ids if target in pages else {anchor}
            if not target.exists() or (anchor and anchor not in ids):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert not broken


@pytest.mark.slow
def test_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = Links(page).loads
        assert [link for link in loaded if re.match("https?:|//", link)] == [], page
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"@import[^;]*//|url\(['\"]?(?:https?:)?//", styles)


@pytest.mark.slow
def test_site_has_the_public_api_and_the_notebook(site, tool):
    api = Links(site / "api.html").ids
    documented = {name for _, _, objects in tool.API for name, _ in objects}
    assert documented <= api
    public = {name for name in espnet_layerskip.__all__ if not name.startswith("__")}
    assert public <= {name.rpartition(".")[2] for name in documented}
    assert ":class:" not in (site / "api.html").read_text(encoding="utf-8")
    pictures = [x for x in Links(site / "notebook.html").loads if x.startswith("data:image/png")]
    assert len(pictures) == 1


def test_every_page_is_in_the_navigation(tool):
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"))
    assert config.strict
    assert config.validation.links.anchors == config.validation.links.not_found == 30  # a warning
    named = set(re.findall(r"'([\w./]+\.md)'", str(config.nav)))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= named
    assert {tool.uri_of(path) for path in (ROOT / "README.md", NOTEBOOK)} <= named


def test_link_to_what_is_not_there_ends_the_build(tool):
    from mkdocs.exceptions import PluginError

    page = ROOT / "docs/page.md"
    with pytest.raises(PluginError, match=r"docs/page.md links ../egs2/none.md"):
        tool.adapt("[a](../egs2/none.md)", page)
    with pytest.raises(PluginError, match="not in the repository"):
        tool.adapt("[a](../../elsewhere.md)", page)


def test_links_are_turned_to_pages_of_the_site(tool):
    page = ROOT / "docs/page.md"
    text = (
        "[a](../README.md#transcribe) [b](../egs2/an4/asr1/RESULTS.md) ![c](skipping.png)\n"
        "[d](../tests/routes) [e](../setup.py) [f](https://example.org/x.md) [g](#here)\n"
        "```sh\n[h](none.md)\n```\n- one\n  - two\n"
    )
    assert tool.adapt(text, page) == (
        "[a](index.md#transcribe) [b](egs2/an4/asr1/RESULTS.md) ![c](skipping.png)\n"
        "[d](tests/routes/index.md) [e](setup.py.md) [f](https://example.org/x.md) [g](#here)\n"
        "```sh\n[h](none.md)\n```\n- one\n    - two\n"
    )
    inside = ROOT / "egs2/an4/asr1/pretrained/README.md"
    assert tool.adapt("[a](../../../../docs/speed.md)", inside) == "[a](../../../../speed.md)"
    image = "[![a](docs/skipping.png)](docs/speed.md)"
    assert tool.adapt(image, ROOT / "README.md") == "[![a](skipping.png)](speed.md)"


def shape(cell):
    """Of a cell's outputs their kinds, and how many lines were printed."""
    return [(o["output_type"], len(o.get("text", ()))) for o in cell["outputs"]]


@pytest.mark.slow
def test_notebook_runs_and_gives_what_is_stored_in_it(monkeypatch):
    pytest.importorskip("espeakng_loader", reason="needs the extra espeak")
    pytest.importorskip("matplotlib", reason="needs the extra figures")
    monkeypatch.setattr(sys, "path", [*sys.path])
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    again = load("run_notebook").run_cells(NOTEBOOK)["cells"]
    assert 10 <= len(stored) <= 14
    for old, new in zip(stored, again, strict=True):
        assert old["source"] == new["source"]
        if old["cell_type"] == "code":
            assert shape(old) == shape(new) != []
            assert old["execution_count"] == new["execution_count"]
    text = "".join(
        line for cell in again for o in cell.get("outputs", ()) for line in o.get("text", ())
    )
    assert "stock: ConformerEncoder\ngated: LayerSkipConformerEncoder threshold=0.8" in text
    heard = re.search(r"^ENTER SEVEN ONE FIVE FOUR +(.*)$", text, re.M)
    assert "SEVEN ONE FIVE" in heard[1]
    skipped = int(re.search(r"(\d+)% of the frames skip layers 4 to 8", text)[1])
    assert 60 < skipped < 100


def test_cell_that_fails_is_named(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra figures")
    cells = [{"cell_type": "code", "source": [line]} for line in ("x = 1\n", "assert x == 2\n")]
    path = tmp_path / "page.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    with pytest.raises(RuntimeError, match="code cell 2 failed") as error:
        load("run_notebook").run_cells(path)
    assert isinstance(error.value.__cause__, AssertionError)
