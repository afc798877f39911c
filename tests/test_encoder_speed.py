"""tools/encoder_speed.py: a small model is measured in all its forms."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "tools" / "encoder_speed.py"


@pytest.fixture
def tool(monkeypatch):
    spec = importlib.util.spec_from_file_location("encoder_speed", SCRIPT)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    tiny = dict(zip(found.NAMES, (20, 16, 2, 32, 4, 7, 0, [2]), strict=True))
    monkeypatch.setitem(found.SIZES, "tiny", tiny)
    return found


def test_table(tool, capsys):
    options = "--models tiny --seconds 0.5 2 --threads 1 --repeats 5 --budget 0.1 --min-skipped 16"
    tool.main([*options.split(), "--vocabulary", "9", "--batch", "2"])
    head, line, short, long = capsys.readouterr().out.splitlines()
    assert line.count("|") == head.count("|") == short.count("|")
    names = [cell.strip() for cell in head.split("|")]
    short, long = (
        dict(zip(names, map(str.strip, r.split("|")), strict=True)) for r in (short, long)
    )
    assert (short["kept %"], short["FLOPs saved %"]) == ("100", "0"), "too short to skip"
    assert long["kept %"] == "15"
    assert 20 < int(long["FLOPs saved %"]) < 50
    assert float(long["ESPnet ms"]) > 0
    assert float(long["off / on"]) > 0


def test_a_reduced_precision_is_named(tool, capsys):
    options = "--models tiny --seconds 1 --threads 1 --repeats 5 --budget 0.1 --min-skipped 0"
    tool.main([*options.split(), "--vocabulary", "9", "--precision", "bfloat16", "--no-espnet"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("| tiny bfloat16 | 1 | 1 | 1 | 0 |")
