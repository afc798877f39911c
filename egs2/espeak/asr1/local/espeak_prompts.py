"""Sentences for the synthetic corpus: AN4's kinds of prompts, drawn at random, in words of our own.

Spelled names, numbers and codes, dates, control words with an argument, short addresses; upper
case, no punctuation. Drawing uses numpy's ``RandomState``, whose stream is frozen for good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from numpy.random import RandomState

DIGITS = "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE".split()
TEENS = "TEN ELEVEN TWELVE THIRTEEN FOURTEEN FIFTEEN SIXTEEN SEVENTEEN EIGHTEEN NINETEEN".split()
TENS = "TWENTY THIRTY FORTY FIFTY SIXTY SEVENTY EIGHTY NINETY".split()
ORDINALS = (
    "FIRST SECOND THIRD FOURTH FIFTH SIXTH SEVENTH EIGHTH NINTH TENTH ELEVENTH TWELFTH "
    "THIRTEENTH FOURTEENTH FIFTEENTH SIXTEENTH SEVENTEENTH EIGHTEENTH NINETEENTH TWENTIETH"
).split()
MONTHS = (
    "JANUARY FEBRUARY MARCH APRIL MAY JUNE JULY AUGUST SEPTEMBER OCTOBER NOVEMBER DECEMBER"
).split()
COMMANDS = "ENTER ERASE REPEAT DELETE".split()
CONTROLS = "GO HELP NO START STOP YES CANCEL".split()
FIRST_NAMES = (
    "ALICE AMY ANNA BEN BOB CARL CLARA DAVID DORA EDITH ERIC FELIX FRANK GAVIN GRACE HAZEL HUGH "
    "IRIS IVAN JACK JANE KAREN KEITH LAURA LEWIS MABEL MAX NINA OSCAR OWEN PAUL PETRA QUINN ROSE "
    "RUPERT SARAH SIMON TESS TOBY URSULA VERA VICTOR WALTER WENDY XAVIER YVONNE ZACK ZOE"
).split()
# Names that are said as a word, few enough that each is heard often; all others are spelled.
SPOKEN_NAMES = "ALICE BEN CLARA DAVID EDITH FRANK GRACE HENRY JACK LAURA OSCAR WENDY".split()
LAST_NAMES = (
    "ADAMS BAKER BISHOP BROWN CLARK COOPER DIXON DUNCAN ELLIS EVANS FISHER FOX GIBSON GREEN "
    "HAMILTON HUGHES INGRAM JACKSON JONES KELLY KNIGHT LAMB LOPEZ MARTIN MURPHY NEWTON NORRIS "
    "OLIVER OSBORNE PARKER PRICE QUIGLEY REED RUSSELL SMITH SUTTON TAYLOR TURNER UNDERWOOD VAUGHN "
    "VINCENT WALKER WRIGHT YATES YOUNG ZIMMER"
).split()
STREET_NAMES = (
    "BRIDGE CASTLE CHURCH FOREST GARDEN HILL LAKE MAPLE MARKET MILL OAK PARK RIVER SCHOOL STATION "
    "WALNUT"
).split()
STREET_KINDS = "AVENUE DRIVE LANE ROAD STREET".split()
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
T = TypeVar("T")
# Redraws before a kind of sentence counts as used up; the space is millions of sentences.
MAX_REDRAWS = 1000


def cardinal(number: int) -> str:
    """Write a number from 0 to 9999 in words.

    Raises:
        ValueError: For any other number.

    >>> cardinal(4219)
    'FOUR THOUSAND TWO HUNDRED NINETEEN'
    """
    if not 0 <= number <= 9999:
        raise ValueError(f"a number from 0 to 9999 is needed, but got {number}")
    words = []
    for size, name in ((1000, "THOUSAND"), (100, "HUNDRED")):
        if number >= size:
            words += [DIGITS[number // size], name]
            number %= size
    if number >= 20:
        words.append(TENS[number // 10 - 2])
        number %= 10
    elif number >= 10:
        words.append(TEENS[number - 10])
        number = 0
    if number or not words:
        words.append(DIGITS[number])
    return " ".join(words)


def ordinal(number: int) -> str:
    """Write a day of the month in words.

    >>> [ordinal(day) for day in (3, 20, 31)]
    ['THIRD', 'TWENTIETH', 'THIRTY FIRST']
    """
    if number <= len(ORDINALS):
        return ORDINALS[number - 1]
    return "THIRTIETH" if number == 30 else f"{TENS[number // 10 - 2]} {ORDINALS[number % 10 - 1]}"


def spell(word: str) -> str:
    """Put spaces between letters: how a name is spelled."""
    return " ".join(word)


def spelled_name(rng: RandomState) -> str:
    """Return a spelled name, sometimes after the name of the person."""
    last = spell(_one(rng, LAST_NAMES))
    kind = rng.randint(3)
    if kind == 0:
        return f"{_one(rng, SPOKEN_NAMES)} {last}"
    return last if kind == 1 else f"{spell(_one(rng, FIRST_NAMES))} {last[0]}"


def letters(rng: RandomState) -> str:
    """Return a code of four to seven letters."""
    return " ".join(_one(rng, ALPHABET) for _ in range(rng.randint(4, 8)))


def digits(rng: RandomState) -> str:
    """Return a number of four to eight digits, said one by one."""
    return " ".join(_one(rng, DIGITS) for _ in range(rng.randint(4, 9)))


def amount(rng: RandomState) -> str:
    """Return one number or two, in words."""
    numbers = [cardinal(rng.randint(10, 10 ** rng.randint(2, 5))) for _ in range(rng.randint(1, 3))]
    return " ".join(numbers)


def date(rng: RandomState) -> str:
    """Return a day of a month, with or without a year."""
    day = f"{_one(rng, MONTHS)} {ordinal(rng.randint(1, 32))}"
    if rng.randint(3) == 0:
        return day
    return f"{day} NINETEEN {cardinal(rng.randint(10, 100))}"


def control(rng: RandomState) -> str:
    """Return a control word with what it works on."""
    if rng.randint(3) == 0:
        return " ".join(_one(rng, CONTROLS) for _ in range(rng.randint(2, 5)))
    argument = _one(rng, (letters, digits, amount))(rng)
    return f"{_one(rng, COMMANDS)} {argument}"


def address(rng: RandomState) -> str:
    """Return a house number and a street."""
    number = cardinal(rng.randint(1, 200))
    return f"{number} {_one(rng, STREET_NAMES)} {_one(rng, STREET_KINDS)}"


# Kinds of sentences by their share of the corpus.
KINDS: tuple[Callable[[RandomState], str], ...] = (
    *(spelled_name, spelled_name, letters, digits, digits, digits),
    *(amount, amount, date, date, date, control, address, address),
)


def draw_sentences(rng: RandomState, count: int, taken: set[str]) -> list[str]:
    """Draw sentences that are not taken yet, and take them.

    Args:
        rng: What draws.
        count: How many are needed.
        taken: Sentences that must not come again; the new ones are added.

    Raises:
        ValueError: If no new sentence can be found.

    >>> taken = {"NO"}
    >>> draw_sentences(RandomState(1), 2, taken)
    ['...', '...']
    >>> len(taken)
    3
    """
    drawn: list[str] = []
    for _ in range(count):
        for _ in range(MAX_REDRAWS):
            sentence = _one(rng, KINDS)(rng)
            if sentence not in taken:
                break
        else:
            raise ValueError(f"{count} new sentences are wanted, but only {len(drawn)} were found")
        taken.add(sentence)
        drawn.append(sentence)
    return drawn


def draw_texts(rng: RandomState, count: int, taken: set[str]) -> list[str]:
    """Draw what is said in each utterance: one sentence, or several, as when a form is read out.

    So utterances are 1 to 25 s long, and a model of them has heard the long ones too. Arguments and
    errors are those of `draw_sentences`, but for the count, which is that of the utterances.

    >>> len(draw_texts(RandomState(1), 3, set()))
    3
    """
    return [
        " ".join(draw_sentences(rng, 1 if rng.randint(6) else rng.randint(2, 8), taken))
        for _ in range(count)
    ]


def _one(rng: RandomState, choices: Sequence[T]) -> T:
    return choices[rng.randint(len(choices))]
