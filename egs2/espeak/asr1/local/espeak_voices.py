"""Speakers of the synthetic corpus: a voice variant of espeak-ng with an English accent each.

No variant is in two of the sets, nor are variants that differ in a detail only: the voices of dev
and test are unseen. Robots, whispers and effects are left out, and so are variants with a line
"breath" (f2, f3, f5 and others): with them espeak-ng 1.52 says a text otherwise in each process.
"""

from __future__ import annotations

from dataclasses import dataclass

ACCENTS = {
    "us": "en-us",
    "gb": "en",
    "rp": "en-gb-x-rp",
}
TRAIN_FEMALE = "f1 anika grandma steph steph2 steph3 shelby".split()
TRAIN_MALE = (
    "m1 m3 m4 m6 m8 Alex Andy Denis Jacky Mario Nguyen Marco antonio pablo quincy rob travis "
    "gustave ed grandpa benjamin John marcelo"
).split()
DEV_FEMALE, DEV_MALE = ["Annie"], "m7 Gene robert".split()
TEST_FEMALE, TEST_MALE = "f4 Andrea linda aunty".split(), "m2 paul m5 Hugo".split()


@dataclass(frozen=True)
class Speaker:
    """One voice.

    Attributes:
        name: Speaker id, for instance ``f4us``.
        variant: espeak-ng's voice variant.
        gender: "f" or "m".
        accent: A key of `ACCENTS`.
    """

    name: str
    variant: str
    gender: str
    accent: str

    @property
    def voice(self) -> str:
        """The name by which espeak-ng knows accent and variant."""
        return f"{ACCENTS[self.accent]}+{self.variant}"


def speakers() -> dict[str, list[Speaker]]:
    """Return the speakers of train, dev and test, women and men mixed from the first one on.

    The second development set, dev2, has those of dev.

    Of the training set the female variants, which are few, speak with three accents and the male
    ones with two; each variant of dev and test speaks with one.

    >>> [speaker.name for speaker in speakers()["test"]]
    ['f4us', 'm2gb', 'andrearp', 'paulus', 'lindagb', 'm5rp', 'hugous', 'auntygb']
    """
    return {
        "train": _with_accents(_mixed(TRAIN_FEMALE, TRAIN_MALE), {"f": 3, "m": 2}),
        "dev": _with_accents(_mixed(DEV_FEMALE, DEV_MALE)),
        "test": _with_accents(_mixed(TEST_FEMALE, TEST_MALE)),
    }


def _with_accents(
    voices: list[tuple[str, str]], count: dict[str, int] | None = None
) -> list[Speaker]:
    """Give each (variant, gender) as many accents as ``count`` has for the gender, or one."""
    accents = list(ACCENTS)
    chosen = []
    for turn in range(max(count.values()) if count else 1):
        for i, (variant, gender) in enumerate(voices):
            if count is None or turn < count[gender]:
                step = 1 + i // len(accents) % (len(accents) - 1)  # never the same accent again
                accent = accents[(i + turn * step) % len(accents)]
                chosen.append(Speaker(f"{variant.lower()}{accent}", variant, gender, accent))
    return chosen


def _mixed(female: list[str], male: list[str]) -> list[tuple[str, str]]:
    """Spread the women evenly among the men."""
    positions = [((i + 0.5) / len(female), v, "f") for i, v in enumerate(female)]
    positions += [((i + 0.5) / len(male), v, "m") for i, v in enumerate(male)]
    return [(variant, gender) for _, variant, gender in sorted(positions)]
