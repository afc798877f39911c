"""MkDocs hooks: make the site of mkdocs.yml from the pages as GitHub shows them.

A page may link any file of the repository. A linked file outside docs/ becomes a page of the site
too, and so do those that it links: Markdown as it is, other text as a listing, a folder as its
README.md or a list of its files; what is no text is copied. A link that leads nowhere ends the
build. README.md is the start page, docs/notebook.ipynb becomes a page with its stored outputs, and
the API reference is made from the docstrings of `API`.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "docs/notebook.ipynb"
TEXT = {".py": "python", ".sh": "sh", ".yaml": "yaml", ".conf": "text", ".in": "text", "": "text"}
LINK = re.compile(r"(\]\()([^)\s]+)(\))")  # also that of an image which is a link itself
FENCE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)

# The public names: heading, text, objects and the members shown of each.
API: list[tuple[str, str, list[tuple[str, list[str]]]]] = [
    (
        "Recognise",
        "`espnet_layerskip.Speech2Text`, and the runtime of exported models.",
        [
            (
                "espnet_layerskip.inference.speech2text.Speech2Text",
                ["__call__", "recognize", "decode_batch", "from_pretrained"],
            ),
            ("espnet_layerskip.method.settings.SkipSettings", ["over", "describe"]),
            ("espnet_layerskip.export.speech2text.Speech2Text", ["__call__", "recognize"]),
        ],
    ),
    (
        "Add skipping to a loaded model",
        "`espnet_layerskip.add_skipping` and `espnet_layerskip.remove_skipping`.",
        [
            ("espnet_layerskip.patch.add_skipping", []),
            ("espnet_layerskip.patch.remove_skipping", []),
        ],
    ),
    (
        "Train",
        "`espnet_layerskip.LayerSkipASRTask`, and the encoders that configurations name.",
        [
            ("espnet_layerskip.training.task.LayerSkipASRTask", ["build_model_from_file"]),
            ("espnet_layerskip.encoders.base.LayerSkipEncoder", ["run", "run_layer"]),
            *(
                (f"espnet_layerskip.encoders.{module}.LayerSkip{name}Encoder", [])
                for module, name in (
                    ("conformer", "Conformer"),
                    ("transformer", "Transformer"),
                    ("branchformer", "Branchformer"),
                    ("e_branchformer", "EBranchformer"),
                    ("e_branchformer_ctc", "EBranchformerCTC"),
                )
            ),
        ],
    ),
    (
        "Many processes",
        "What `transcribe` and `retrofit` run on: processes, a Dask cluster or batch jobs.",
        [("espnet_layerskip.parallel.map_chunks", [])],
    ),
]


def api_page() -> str:
    """Return the API reference as Markdown with mkdocstrings' directives."""
    parts = ["# API", "Made from the docstrings. Everything else is internal and may change."]
    for heading, text, objects in API:
        parts += [f"## {heading}", text]
        for name, members in objects:
            parts.append(
                f"::: {name}\n    options:\n      heading_level: 3\n      filters: []\n"
                f"      members: {json.dumps(members) if members else 'false'}"
            )
    return "\n\n".join(parts) + "\n"


def notebook_page(path: Path) -> str:
    """Return a notebook as Markdown, with the outputs that are stored in it."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if png := data.get("image/png"):
                png = "".join(png).replace("\n", "")
                parts.append(f'<img alt="figure of this cell" src="data:image/png;base64,{png}">')
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def listing(path: Path) -> str:
    """Return a file of text, or the names in a folder, as Markdown."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        names = sorted(one.name for one in path.iterdir() if not one.name.startswith(("_", ".")))
        return f"# {name}\n\n" + "".join(f"- `{one}`\n" for one in names)
    text = path.read_text(encoding="utf-8").rstrip()
    return f"# {name}\n\n~~~~{TEXT[path.suffix]}\n{text}\n~~~~\n"


def target_of(page: Path, link: str) -> Path | None:
    """File of the repository that a page's link names; None for a link to elsewhere.

    Raises:
        PluginError: If the file is not there.
    """
    name = link.partition("#")[0]
    if "://" in link or link.startswith("mailto:") or not name:
        return None
    path = Path(posixpath.normpath((page.parent / name).as_posix()))
    if not path.exists() or not path.is_relative_to(ROOT):
        raise PluginError(f"{page.relative_to(ROOT)} links {link}, which is not in the repository")
    return path / "README.md" if (path / "README.md").exists() else path


def uri_of(path: Path) -> str:
    """Where a file of the repository is in the site's sources."""
    name = path.relative_to(ROOT).as_posix()
    if name == "README.md":
        return "index.md"
    if name.endswith(".ipynb"):
        return name.removeprefix("docs/").removesuffix(".ipynb") + ".md"
    if path.suffix == ".html":  # beside the page of the same name, it needs a place of its own
        return "files/" + path.name
    if path.suffix in TEXT:
        return name + ("/index.md" if path.is_dir() else ".md")
    return name.removeprefix("docs/")


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Change what stands outside of the code blocks of a Markdown text."""
    out, end = [], 0
    for fence in FENCE.finditer(text):
        out += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*out, change(text[end:])])


def adapt(text: str, path: Path) -> str:
    """Return a page as the site needs it: links to its own pages, nested lists by four spaces."""
    here = posixpath.dirname(uri_of(path))

    def link(match: re.Match[str]) -> str:
        target = target_of(path, match[2])
        if target is None:
            return match[0]
        _, hash_, anchor = match[2].partition("#")
        return match[1] + posixpath.relpath(uri_of(target), here or ".") + hash_ + anchor + match[3]

    text = outside_fences(text, lambda part: LINK.sub(link, part))
    return outside_fences(text, lambda part: re.sub(r"^  (?=[-*] )", "    ", part, flags=re.M))


def markdown_of(path: Path) -> str | None:
    """Return the Markdown of a file's page; None for a file that is copied as it is."""
    if path.suffix == ".ipynb":
        return adapt(notebook_page(path), path)
    if path.suffix == ".md":
        return adapt(path.read_text(encoding="utf-8"), path)
    return listing(path) if path.suffix in TEXT else None


def linked(path: Path) -> set[Path]:
    """Files of the repository that a page links."""
    if path.suffix not in (".md", ".ipynb"):
        return set()
    text = notebook_page(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    links = LINK.findall(FENCE.sub("", text))
    return {target for _, link, _ in links if (target := target_of(path, link)) is not None}


def sources() -> list[Path]:
    """Every file of the repository that is in the site."""
    known: set[Path] = set()
    new = {ROOT / "README.md", ROOT / NOTEBOOK, *(ROOT / "docs").glob("*.md")}
    while new:
        known |= new
        new = set().union(*map(linked, new)) - known
    return sorted(known)


def slug(heading: str, separator: str) -> str:
    """Name of a heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", separator)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name anchors as GitHub does."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace what MkDocs found in docs/ by the pages that `sources` names."""
    site = Files([file for file in files if not (Path(config.docs_dir) / file.src_uri).exists()])
    for path in sources():
        text = markdown_of(path)
        how = {"abs_src_path": str(path)} if text is None else {"content": text}
        site.append(File.generated(config, uri_of(path), inclusion=InclusionLevel.INCLUDED, **how))
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs('[data-bs-theme="dark"] .highlight')
    style = f"{light}\n{dark}\n.doc-contents {{ margin-left: 1.5em; }}\nimg {{ max-width: 100%; }}"
    style += "\ntable { display: block; overflow-x: auto; }\n.highlight pre { overflow-x: auto; }"
    style += "\n@media (max-width: 400px) { h1 { font-size: 2rem; overflow-wrap: anywhere; } }"
    site.append(File.generated(config, "site.css", content=style))
    site.append(File.generated(config, "api.md", content=api_page()))
    return site


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show the Sphinx roles of docstrings, :func:`~.x.y`, as code: y."""
    html = re.sub(r":\w+:<code>~[\w.]*?(\w+)</code>", r"<code>\1</code>", html)
    html = re.sub(r":(?:class|func|mod|meth|data):(?=<code>)", "", html)
    return html.replace("::</p>", ":</p>")


def build(**changes: Any) -> None:
    """Build the site as mkdocs.yml says, with changes to it (``site_dir`` ...).

    Raises:
        mkdocs.exceptions.MkDocsException: For a link that leads nowhere, among others.
    """
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config

    build_site(load_config(str(ROOT / "mkdocs.yml"), **changes))
