import dataclasses

import pytest

from espnet_layerskip.evaluation.report.changes import (
    BETTER,
    SAME,
    UNCHANGED,
    WORSE,
    compare_texts,
    marked_words,
)


def texts(trace, utt_id, ref, off, on):
    return dataclasses.replace(trace, utt_id=utt_id, ref=ref, text_off=off, text_on=on)


@pytest.fixture
def changed(traces):
    return [
        texts(traces[0], "same", "A B", "A B", "A B"),
        texts(traces[0], "better", "A B", "A X", "A B"),
        texts(traces[0], "worse", "A B", "A B", ""),
        texts(traces[0], "other", "A B", "A X", "A Y"),
    ]


def test_texts_the_most_damaged_first_and_the_unchanged_last(changed):
    found = compare_texts(changed)
    assert [(c.trace.utt_id, c.effect) for c in found] == [
        ("worse", WORSE),
        ("other", SAME),
        ("better", BETTER),
        ("same", UNCHANGED),
    ]
    assert (found[0].errors_off, found[0].errors_on) == (0, 2)


@pytest.mark.parametrize(
    ("ref", "hyp", "expected"),
    [
        ("A B C", "A X C D", "A x C d"),
        ("A B C", "A C", "A * C"),
        ("A B", "", "* *"),
        ("", "A", "a"),
        ("A A B", "A B", "* A B"),
    ],
)
def test_wrong_words_are_marked(ref, hyp, expected):
    shown = " ".join(word.lower() if wrong else word for word, wrong in marked_words(ref, hyp))
    assert sorted(shown) == sorted(expected)
    assert shown == expected or ref == "A A B"  # either A may be the missing one
