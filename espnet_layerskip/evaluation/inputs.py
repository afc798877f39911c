"""Real speech for benchmarks: a Kaldi data folder, and inputs of a wanted duration from it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from espnet_layerskip.files import DataDir, read_usable
from espnet_layerskip.inference.audio import AudioBlocks, Utterance

logger = logging.getLogger(__name__)

TOLERANCE = 0.25  # of the wanted duration
Table = tuple[Mapping[str, str], Mapping[str, str]]  # as `read_usable` returns it
Timed = TypeVar("Timed", "Speech", AudioBlocks)


@dataclass(frozen=True)
class Speech:
    """Samples to encode.

    Attributes:
        utt_id: Its name; joined ones have their names joined by "+".
        samples: (N,), float32 in [-1, 1].
        rate: Sampling rate in Hz.
    """

    utt_id: str
    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class TestSet:
    """Speech with its transcripts and speakers.

    Attributes:
        speech: Utterances sorted by name.
        text: Transcript of each utterance, as it is.
        utt2spk: Speaker of each utterance.
        refused: Why each utterance of the tables that cannot be used is left out.
    """

    speech: list[Speech]
    text: dict[str, str]
    utt2spk: dict[str, str]
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Duration of all utterances in seconds."""
        return sum(s.seconds for s in self.speech)

    def describe(self) -> dict[str, Any]:
        """Return how much it is, for JSON; "refused" only where something was."""
        return {
            "utterances": len(self.speech),
            "words": sum(len(text.split()) for text in self.text.values()),
            "seconds": self.seconds,
            **({"refused": self.refused} if self.refused else {}),
        }


def load_test_set(data_dir: Path | str, sample_rate: int | None = None) -> TestSet:
    """Read ``wav.scp``, ``text`` and ``utt2spk`` and every audio file.

    Audio paths are relative to the working directory, as everywhere in ESPnet; where there is
    no such file, to the folders above ``data_dir`` (a recipe's own folder is one of them). An
    utterance whose audio or line in a table cannot be used, or whose transcript is empty, is named
    and left out, audio and transcript: no error rate counts it.

    Args:
        data_dir: Kaldi data folder.
        sample_rate: In Hz; None = what most of the audio has.

    Raises:
        ValueError: For tables that cannot be used, or if no utterance is left.
    """
    path = DataDir.check_files(data_dir)
    tables = read_tables(path, ("wav.scp", "text", "utt2spk"))
    return _read(*join_tables(tables, path), Path(data_dir).resolve(), sample_rate)


def read_tables(directory: Path, names: Iterable[str]) -> dict[str, Table]:
    """Read tables of a data directory with `read_usable`; a transcript may be empty."""
    return {n: read_usable(directory / n, allow_empty_value=n == "text") for n in names}


def load_tables(wav_scp: Path, text: Path, sample_rate: int) -> tuple[TestSet, str]:
    """Read a test set from two tables; audio paths are looked up as in `load_test_set`.

    Speakers, whose utterances are joined to long inputs, come from ``utt2spk`` beside the text
    where it is; else, as Kaldi's names begin with the speaker, from the part of each name before
    its first "-"; where a name has none, all utterances are taken for one speaker's.

    Returns:
        The test set, and where its speakers are from.

    Raises:
        ValueError: As in `load_test_set`.
    """
    wav, texts = read_usable(wav_scp), read_usable(text, allow_empty_value=True)
    table = text.parent / "utt2spk"
    if table.is_file():
        named, source = read_usable(table), "utt2spk beside the text"
        needed = wav[0].keys() | texts[0].keys()
        utt2spk = {utt: spk for utt, spk in named[0].items() if utt in needed}, named[1]
    elif all("-" in utt for utt in wav[0]):
        utt2spk = {utt: utt.split("-")[0] for utt in wav[0]}, {}
        source = 'names up to their first "-"'
    else:
        utt2spk, source = (dict.fromkeys(wav[0], "one"), {}), "not known, all taken for one"
    tables = {"wav.scp": wav, "text": texts, "utt2spk": utt2spk}
    data, refused = join_tables(tables, f"{wav_scp}, {text}")
    return _read(data, refused, wav_scp.resolve().parent, sample_rate), source


def join_tables(tables: Mapping[str, Table], where: Path | str) -> tuple[DataDir, dict[str, str]]:
    """Return the utterances that all tables have, and why others are left out.

    Args:
        tables: ``wav.scp``, ``text`` and ``utt2spk``.
        where: Begins the message about tables that do not fit one another.

    Raises:
        ValueError: If the ids differ by more than `left_out` explains.
    """
    refused = left_out(tables)
    parts = (
        {utt: value for utt, value in table.items() if utt not in refused}
        for table, _ in tables.values()
    )
    data = DataDir(*parts)
    data.check_ids(where)
    return data, refused


def left_out(tables: Mapping[str, Table]) -> dict[str, str]:
    """Return why utterances are left out: a line that is wrong in one table costs it in all.

    A wrong line may hide its id: as many utterances may be missing in a table as it has wrong
    lines, and they are left out too.

    Args:
        tables: By name.
    """
    ids = {utt for table, _ in tables.values() for utt in table}
    refused = {utt: why for _, wrong in tables.values() for utt, why in wrong.items()}
    for name, (table, wrong) in tables.items():
        lacking = ids - table.keys() - refused.keys()
        if not lacking or len(lacking) > len(wrong):
            continue  # nothing, or more than these lines can have been
        reasons = "; ".join(wrong.values())
        refused |= {utt: f"{utt}: its line of {name} cannot be found: {reasons}" for utt in lacking}
        for place in wrong.keys() - ids:
            refused.pop(place, None)  # has its utterance now
    return refused


def _read(
    data: DataDir, refused: dict[str, str], directory: Path, sample_rate: int | None
) -> TestSet:
    """Read the audio, relative to here or to folders above; one bad entry costs that entry."""
    for why in refused.values():
        logger.error("refused: %s", why)
    audio: dict[str, AudioBlocks] = {}
    speech: list[Speech] = []
    for utt_id, path in sorted(data.wav.items()):
        with _guarded(utt_id, refused):
            if not data.text[utt_id].strip():
                raise ValueError(f"the transcript of {utt_id} is empty: its errors say nothing")
            audio[utt_id] = AudioBlocks(Utterance(utt_id, located(path, directory)), sample_rate)
    rates = Counter(one.sample_rate for one in audio.values()).most_common(1)
    for utt_id, one in audio.items():
        with _guarded(utt_id, refused):
            if one.sample_rate != rates[0][0]:
                raise ValueError(
                    f"utterance {utt_id} has {one.sample_rate} Hz, and most have {rates[0][0]} Hz"
                )
            speech.append(Speech(utt_id, one.read(), one.sample_rate))
    if not speech:
        raise ValueError(f"{directory}: no utterance can be used: {next(iter(refused.values()))}")
    if refused:
        read = len(speech) + len(refused)
        logger.error("%d read = %d used + %d refused", read, len(speech), len(refused))
    used = data.subset(one.utt_id for one in speech)
    return TestSet(speech, used.text, used.utt2spk, refused)


@contextmanager
def _guarded(utt_id: str, refused: dict[str, str]) -> Iterator[None]:
    """Note why an utterance cannot be used, whatever it raises: the others go on."""
    try:
        yield
    except Exception as e:
        refused[utt_id] = " ".join(str(e).split()) or type(e).__name__
        logger.error("refused: %s", refused[utt_id])


def located(path: str, directory: Path) -> str:
    """Return where an audio file is: relative to here, else to the folders above a data folder.

    Args:
        path: As ``wav.scp`` has it.
        directory: The data folder, absolute.
    """
    roots = (Path(), *directory.parents)
    return str(next((root / path for root in roots if (root / path).is_file()), path))


def spread_over_durations(speech: Sequence[Timed], count: int | None) -> list[Timed]:
    """Return ``count`` utterances, evenly spread over the durations; all if there are fewer."""
    if count is None or count >= len(speech):
        return list(speech)
    ordered = sorted(speech, key=lambda s: s.seconds)
    step = len(ordered) / count
    return [ordered[int((i + 0.5) * step)] for i in range(count)]


def join_utterances(
    speech: Sequence[Speech],
    utt2spk: Mapping[str, str],
    seconds: float,
    count: int,
    at_most: int | None = None,
) -> list[Speech]:
    """Join whole utterances of one speaker to different inputs of about ``seconds``.

    Each speaker's utterances are walked through in order of their names; an input is closed
    where one more utterance would bring it further from the wanted duration, and no utterance
    is used twice. Speakers then take turns, each giving its best input first. Nothing is random.

    Args:
        speech: What there is.
        utt2spk: Speaker of each utterance name.
        seconds: Wanted duration; an input may differ by 25 %.
        count: How many are needed.
        at_most: How many are returned where there are as many; None = ``count``.

    Raises:
        ValueError: If the data has fewer than ``count`` such inputs.
    """
    by_speaker: dict[str, list[Speech]] = {}
    for utterance in sorted(speech, key=lambda u: u.utt_id):
        by_speaker.setdefault(utt2spk[utterance.utt_id], []).append(utterance)
    ranked: list[tuple[int, float, str, Speech]] = []
    for spoken in by_speaker.values():
        inputs = [u for u in _chunks(spoken, seconds) if _off(u, seconds) <= TOLERANCE]
        inputs.sort(key=lambda u: (_off(u, seconds), u.utt_id))
        ranked += [(turn, _off(u, seconds), u.utt_id, u) for turn, u in enumerate(inputs)]
    ranked.sort(key=lambda r: r[:3])
    if len(ranked) < count:
        raise ValueError(
            f"{count} different inputs of about {seconds:g} s are needed, but the data only has "
            f"{len(ranked)} (whole utterances of one speaker, {100 * TOLERANCE:.0f} % off at "
            "most); ask for fewer, for another duration, or give more data"
        )
    return [r[3] for r in ranked[: max(count, at_most or 0)]]


def _off(speech: Speech, seconds: float) -> float:
    return abs(speech.seconds - seconds) / seconds


def _chunks(spoken: Sequence[Speech], seconds: float) -> list[Speech]:
    chunks: list[list[Speech]] = [[]]
    for utterance in spoken:
        total = sum(u.seconds for u in chunks[-1])
        if chunks[-1] and abs(total + utterance.seconds - seconds) > abs(total - seconds):
            chunks.append([])
        chunks[-1].append(utterance)
    return [_join(chunk) for chunk in chunks if chunk]


def _join(parts: Sequence[Speech]) -> Speech:
    samples = np.concatenate([u.samples for u in parts])
    return Speech("+".join(u.utt_id for u in parts), samples, parts[0].rate)
