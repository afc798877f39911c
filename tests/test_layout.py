"""The direction of imports: no ring, no arrow upwards, and who may name whom."""

import ast
import functools
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "espnet_layerskip"
# From the ground up: a room may import those before it. "root" is what all may import.
ROOMS = [
    {"root"},
    {"method"},
    {"encoders"},
    {"training", "decoding"},
    {"registry"},
    {"inference"},
    {"evaluation", "export"},
    {"verbs", "recipe", "bin"},
]
# Modules at the top of the package, by the room that they stand in.
TOP = {
    "_compat": "root",
    "_late_imports": "root",
    "files": "root",
    "parallel": "root",
    "__init__": "root",
    "registry": "registry",
    "task": "training",
    "patch": "inference",
    "cli": "verbs",
    "__main__": "verbs",
}


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


parsed = functools.cache(ast.parse)  # nobody changes what it returns


def imported(source, lazily=True):
    """Modules of ours that a source imports; ``lazily``: in functions and for types too."""
    tree = parsed(source)
    nodes = ast.walk(tree) if lazily else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("espnet_layerskip.")}


SOURCES = {module_name(path): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def room(name):
    part = name.split(".")[1]
    return TOP.get(part, part)


def level(name):
    return next(i for i, rooms in enumerate(ROOMS) if room(name) in rooms)


def test_every_module_has_its_room():
    assert {room(name) for name in SOURCES} == set().union(*ROOMS)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_arrow_upwards(name):
    if name == "espnet_layerskip.__init__":  # hands out public names on first use
        return
    up = [other for other in imported(SOURCES[name]) & SOURCES.keys() if level(other) > level(name)]
    assert not up, f"{name} imports from above it: {up}"


def test_an_arrow_upwards_would_be_seen():
    assert level("espnet_layerskip.verbs.report") > level("espnet_layerskip.method.gate")
    source = "def f():\n    from espnet_layerskip.verbs import report"
    assert "espnet_layerskip.verbs.report" in imported(source)


def test_no_ring():
    graph = {
        name: imported(source, lazily=False) & SOURCES.keys() for name, source in SOURCES.items()
    }
    done, path = set(), []

    def visit(name):
        if name in path:
            raise AssertionError("a ring: " + " -> ".join([*path[path.index(name) :], name]))
        if name not in done:
            path.append(name)
            for other in sorted(graph[name] - {name}):
                visit(other)
            path.pop()
            done.add(name)

    for name in sorted(graph):
        visit(name)


def test_the_method_imports_nothing_of_ours_but_espnets_names():
    for name, source in SOURCES.items():
        if room(name) == "method":
            others = {o for o in imported(source) & SOURCES.keys() if room(o) != "method"}
            assert others <= {"espnet_layerskip._compat"}, name


def test_only_the_encoders_name_conformer():
    allowed = {"espnet_layerskip._compat"}
    named = [
        name
        for name, source in SOURCES.items()
        if "Conformer" in source and room(name) != "encoders" and name not in allowed
        if "Conformer" in code_of(source)
    ]
    assert not named


def code_of(source):
    """The source without docstrings and comments."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            body[0] = ast.Pass()
    return ast.unparse(tree)
