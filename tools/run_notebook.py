"""Run a notebook's cells in order and store their outputs; needs no Jupyter.

What a cell prints and the matplotlib figures that it leaves open become its outputs, as in Jupyter
with inline figures. stderr is not stored.

Example::

    python tools/run_notebook.py docs/notebook.ipynb
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any


def run_cells(path: Path) -> dict[str, Any]:
    """Run a notebook in its own folder; return it with the new outputs.

    Raises:
        RuntimeError: A cell failed; the message names it, the cause is what it raised.
    """
    import matplotlib
    from matplotlib import pyplot

    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    backend = matplotlib.get_backend()
    matplotlib.use("agg")
    pyplot.close("all")  # those of others in this process
    try:
        with contextlib.chdir(path.parent):
            for number, cell in enumerate(cells, 1):
                code = compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec")
                printed = io.StringIO()
                try:
                    with contextlib.redirect_stdout(printed):
                        exec(code, names)
                except Exception as e:
                    raise RuntimeError(f"{path}: code cell {number} failed: {e}") from e
                cell["outputs"] = [*_text(printed.getvalue()), *_figures()]
                cell["execution_count"] = number
    finally:
        matplotlib.use(backend)
    return notebook


def _text(printed: str) -> list[dict[str, Any]]:
    lines = printed.splitlines(keepends=True)
    return [{"name": "stdout", "output_type": "stream", "text": lines}] if lines else []


def _figures() -> list[dict[str, Any]]:
    """Return the open figures as outputs, and close them."""
    from matplotlib import pyplot

    found = []
    for number in pyplot.get_fignums():
        png = io.BytesIO()
        pyplot.figure(number).savefig(png, format="png", dpi=100)
        data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": ["<Figure>"]}
        found.append({"data": data, "metadata": {}, "output_type": "display_data"})
        pyplot.close(number)
    return found


def write(path: Path, notebook: dict[str, Any]) -> None:
    """Write a notebook as Jupyter does, in one step."""
    part = path.with_suffix(".partial")
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    path: Path = parser.parse_args().notebook.resolve()
    write(path, run_cells(path))


if __name__ == "__main__":
    main()
