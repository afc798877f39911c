"""tools/record_session.py: what a terminal shows, as a film and as a picture."""

import importlib.util
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

TOOL = Path(__file__).parents[1] / "tools/record_session.py"


@pytest.fixture
def tool(monkeypatch):
    spec = importlib.util.spec_from_file_location("record_session", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TYPING", 0.0)
    return module


def test_a_session(tool, tmp_path):
    (tmp_path / "talk").write_text("of this folder\n")
    commands = ["cat talk; tput cols; [ -t 2 ] && printf '50 %%\\r100 %%\\n<ü>'; exit 3"]
    events = tool.record(commands, tmp_path)
    expected = [f"$ {commands[0]}", "of this folder", "132", "100 %", "<ü>"]
    assert tool.screen("".join(text for _, text in events)) == expected
    head, *rows = map(json.loads, tool.cast(events, "a title").splitlines())
    assert (head["version"], head["width"], head["title"]) == (2, 132, "a title")
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert {row[1] for row in rows} == {"o"}
    assert "".join(row[2] for row in rows) == "".join(text for _, text in events)
    svg = ElementTree.fromstring(tool.picture(expected, "a title"))
    texts = svg.findall("{http://www.w3.org/2000/svg}text")
    assert [text.text for text in texts] == expected
    assert [text.get("class") for text in texts] == ["typed", None, None, None, None]


def test_what_is_longer_than_a_line_goes_on_in_the_next(tool):
    assert tool.screen("x" * 133 + "\r\n\x1b[Ay") == ["x" * 132, "y"]
    assert tool.screen("$ " + "x" * 130 + "\r\nab\r\n") == ["$ " + "x" * 130, "ab"]


def test_a_place_on_this_machine_is_refused(tool, tmp_path):
    with pytest.raises(ValueError, match=f"names a place on this machine: {tmp_path}"):
        tool.record(["pwd"], tmp_path)
    assert not tool.PLACE.search("see docs/usr/x, 1/tmp or .venv/lib")


def test_the_kept_one_shows_these_commands_and_no_places(tool):
    film, svg = (TOOL.parents[1] / f"docs/session.{kind}" for kind in ("cast", "svg"))
    text = film.read_text(encoding="utf-8")
    assert not tool.PLACE.search(text + svg.read_text(encoding="utf-8"))
    sent = "".join(json.loads(line)[2] for line in text.splitlines()[1:])
    for command in tool.COMMANDS.format(
        model="egs2/an4/asr1/pretrained/an4_layerskip.zip"
    ).splitlines():
        assert f"$ {command}\r\n" in sent
    title = json.loads(text.splitlines()[0])["title"]
    assert svg.read_text(encoding="utf-8") == tool.picture(tool.screen(sent), title)
