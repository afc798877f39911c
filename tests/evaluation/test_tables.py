import pytest

from espnet_layerskip.evaluation.tables import judge, markdown_table, over_seeds


def test_table_escapes_bars():
    table = markdown_table(("a", "b"), [("1|2", "x")])
    assert table.splitlines() == ["| a | b |", "| --- | --- |", "| 1\\|2 | x |"]
    with pytest.raises(AssertionError):
        markdown_table(("a", "b"), [("1",)])


def test_over_seeds():
    assert over_seeds([7.5]) == "7.50"
    assert over_seeds([7.0, 8.5]) == "7.75 (7.00 to 8.50)"


@pytest.mark.parametrize(
    ("wer", "reference", "ok"),
    [(7.9, 7.6, True), (7.91, 7.6, False), (5.0, 7.6, True), (99.0, None, True)],
)
def test_judge(wer, reference, ok):
    status = judge(wer, reference, 0.3)
    assert (status == "ok") == ok
    assert ok or status == "failed: WER +0.31 over full depth (allowed +0.30)"
