"""Sentences of the synthetic corpus."""

from __future__ import annotations

import re

import pytest
from numpy.random import RandomState

import espeak_prompts as prompts


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "ZERO"),
        (7, "SEVEN"),
        (10, "TEN"),
        (20, "TWENTY"),
        (99, "NINETY NINE"),
        (100, "ONE HUNDRED"),
        (612, "SIX HUNDRED TWELVE"),
        (5000, "FIVE THOUSAND"),
        (9081, "NINE THOUSAND EIGHTY ONE"),
    ],
)
def test_cardinal(number: int, words: str) -> None:
    assert prompts.cardinal(number) == words


@pytest.mark.parametrize("number", [-1, 10000])
def test_cardinal_has_limits(number: int) -> None:
    with pytest.raises(ValueError, match=f"0 to 9999 is needed, but got {number}"):
        prompts.cardinal(number)


def test_days_of_a_month_are_31() -> None:
    days = [prompts.ordinal(day) for day in range(1, 32)]
    assert len(set(days)) == 31
    assert days[20] == "TWENTY FIRST"
    assert days[29] == "THIRTIETH"


def test_every_kind_is_words_in_upper_case() -> None:
    rng = RandomState(0)
    for kind in set(prompts.KINDS):
        for _ in range(50):
            assert re.fullmatch(r"[A-Z]+( [A-Z]+)*", kind(rng)), kind.__name__


def test_sentences_are_new_and_depend_on_the_seed() -> None:
    taken = {"GO NO"}
    first = prompts.draw_sentences(RandomState(1), 500, taken)
    second = prompts.draw_sentences(RandomState(1), 500, taken)
    assert len({*first, *second, "GO NO"}) == len(taken) == 1001
    assert prompts.draw_sentences(RandomState(1), 500, set()) == first
    assert prompts.draw_sentences(RandomState(2), 500, set()) != first


def test_one_utterance_in_six_is_several_sentences() -> None:
    taken: set[str] = set()
    texts = prompts.draw_texts(RandomState(1), 600, taken)
    forms = [text for text in texts if text not in taken]
    assert 60 < len(forms) < 140
    assert all(sum(f" {part} " in f" {form} " for part in taken) >= 2 for form in forms)
    assert 2.5 * len(forms) < len(taken) - (600 - len(forms)) < 6.5 * len(forms)


def test_too_many_sentences_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "KINDS", (lambda rng: prompts.DIGITS[rng.randint(3)],))
    with pytest.raises(ValueError, match="4 new sentences are wanted, but only 3 were found"):
        prompts.draw_sentences(RandomState(1), 4, set())
