"""The names of shifted copies, such as ``noise10``, ``reverb0.3``, ``telephone``. No NumPy.

A shift is named by its kind and, where it has one, its amount. Without an amount it is the usual
one of `KINDS`. `espnet_layerskip.evaluation.shifts` makes the copies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

VOICES = 6  # of babble


@dataclass(frozen=True)
class Kind:
    """One kind of shift.

    Attributes:
        usual: Amount where none is named; None = the kind has none.
        lowest, highest: Range of the amount.
        what: What the amount is, with its unit.
    """

    usual: float | None
    lowest: float
    highest: float
    what: str


KINDS = {
    "noise": Kind(10.0, -20.0, 60.0, "stationary coloured noise, speech over noise in dB"),
    "babble": Kind(10.0, -20.0, 60.0, f"{VOICES} other utterances, speech over babble in dB"),
    "reverb": Kind(0.6, 0.05, 3.0, "reverberation, seconds until it has fallen by 60 dB"),
    "telephone": Kind(None, 0.0, 0.0, "300-3400 Hz at 8 kHz, 8 bits a sample (mu-law)"),
    "clip": Kind(12.0, 0.0, 60.0, "clipping, dB below the peak of the utterance"),
    "speed": Kind(1.1, 0.5, 2.0, "so many times as fast, tempo and pitch"),
    "gain": Kind(-20.0, -60.0, 60.0, "dB; what is then beyond full scale is clipped"),
}
ALL: tuple[str, ...] = (
    *("noise20", "noise10", "noise5", "babble20", "babble10", "babble5", "reverb0.3", "reverb0.6"),
    *("telephone", "clip12", "speed0.9", "speed1.1", "gain-20", "gain+10"),
)
DEFAULT = ("noise10", "babble10", "reverb0.3", "telephone")  # what calibration adds by itself


@dataclass(frozen=True)
class Shift:
    """A shift with its amount.

    Attributes:
        name: As it was written; a copy's randomness depends on it.
        kind: Of `KINDS`.
        amount: In the unit of its kind; 0 where it has none.
    """

    name: str
    kind: str
    amount: float


def read_shifts(names: str | Iterable[str]) -> tuple[Shift, ...]:
    """Read shifts such as ``noise10 reverb0.3 telephone``.

    Args:
        names: Names, or a text with spaces or commas between them. ``default`` stands for
            `DEFAULT`, ``all`` for `ALL`, ``none`` for no shift.

    Raises:
        ValueError: For a name that is not known, an amount out of range, or a shift that comes
            twice.

    Example:
        >>> [(one.kind, one.amount) for one in read_shifts("noise5 reverb telephone")]
        [('noise', 5.0), ('reverb', 0.6), ('telephone', 0.0)]
    """
    words = " ".join([names] if isinstance(names, str) else names).replace(",", " ").split()
    sets = {"default": DEFAULT, "all": ALL, "none": ()}
    found = tuple(_read(name) for word in words for name in sets.get(word, (word,)))
    same = {(one.kind, one.amount) for one in found}
    if len(same) < len(found):
        raise ValueError(f"shifts {' '.join(words)!r}: one comes twice; name each once")
    return found


def _read(name: str) -> Shift:
    match = re.fullmatch(r"([a-z]+)([+-]?\d+(?:\.\d+)?)?", name)
    kind = KINDS.get(match[1]) if match else None
    if match is None or kind is None:
        raise ValueError(
            f"shift {name!r} is not known: name KIND or KINDAMOUNT with a KIND of "
            f"{', '.join(KINDS)}; or default, all, none"
        )
    if kind.usual is None:
        if match[2]:
            raise ValueError(f"shift {name!r}: {match[1]} takes no amount")
        return Shift(name, match[1], 0.0)
    amount = float(match[2]) if match[2] else kind.usual
    if not kind.lowest <= amount <= kind.highest:
        raise ValueError(
            f"shift {name!r}: {kind.lowest:g} to {kind.highest:g} is possible ({kind.what})"
        )
    return Shift(name, match[1], amount)
