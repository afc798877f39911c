import shlex

import pytest

from espnet_layerskip.evaluation.tables import (
    bullets,
    folded,
    folded_command,
    markdown_table,
    over_seeds,
    page,
    threads,
)


def test_table_escapes_bars():
    table = markdown_table(("a", "b"), [("1|2", "x")])
    assert table.splitlines() == ["| a | b |", "| --- | --- |", "| 1\\|2 | x |"]
    with pytest.raises(AssertionError):
        markdown_table(("a", "b"), [("1",)])


def test_over_seeds():
    assert over_seeds([7.5]) == "7.50"
    assert over_seeds([7.0, 8.5]) == "7.75 (7.00 to 8.50)"


def test_a_page_leaves_empty_parts_out():
    assert page("T", ["- a", "- b"], "x", "", "y") == "# T\n\n- a\n- b\n\nx\n\ny\n"
    assert folded("S", "x", "", "y").splitlines() == [
        *("<details>", "<summary>S</summary>", "", "x", "", "y", "", "</details>"),
    ]
    assert folded("S", "") == ""
    assert bullets(["a", "b"]) == "- a\n- b"
    assert (threads(1), threads(2)) == ("1 thread", "2 threads")


def test_a_command_is_one_option_a_line_and_can_be_typed_again():
    command = "python -m x --row 'a b' exp/a --n 1"
    text = folded_command(command)
    assert text.splitlines()[4:7] == [
        "python -m x \\",
        "    --row 'a b' exp/a \\",
        "    --n 1",
    ]
    shown = text.split("```")[1].removeprefix("sh\n").replace("\\\n", "")
    assert shlex.split(shown) == shlex.split(command)
