"""The templates beside this module: the page (report.html.j2) and the captions (captions.j2).

The one module that imports jinja2, and only when something is rendered: it is an extra.
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=select_autoescape(["html.j2"], default=False),  # captions are plain text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_page(**values: Any) -> str:
    """Return the page; every value but ``Markup`` is escaped."""
    return str(_environment().get_template("report.html.j2").render(values)).lstrip()


def caption(figure: str, **values: Any) -> str:
    """Return the caption of a kind of figure in one line of plain text.

    Args:
        figure: Name of its macro in captions.j2.
        values: What the macro takes.
    """
    macros = _environment().get_template("captions.j2").module
    return " ".join(str(getattr(macros, figure)(**values)).split())
