"""The speech that a model is tried on: a few minutes of a data directory, over all durations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from espnet_layerskip.evaluation.inputs import Speech, TestSet, located, spread_over_durations
from espnet_layerskip.files import read_usable, refuse_segments, some
from espnet_layerskip.inference.audio import AudioBlocks, AudioError, Utterance, read_wav_scp

SECONDS = 300.0  # of audio, unless a number of utterances is asked for
LONGEST = 60.0  # seconds; `transcribe` cuts longer audio into segments
LOOKED_AT = 2000  # utterances of a large directory whose length is read


@dataclass(frozen=True)
class TrialData:
    """What a model is tried on.

    Attributes:
        test: The utterances; ``text`` is empty where there are no transcripts.
        total: Utterances in the directory.
        notes: What was left out and why, in words.
        unusable: Number of lines and audio files that could not be used.
    """

    test: TestSet
    total: int
    notes: tuple[str, ...]
    unusable: int = 0

    @property
    def labelled(self) -> bool:
        """True if there are transcripts."""
        return bool(self.test.text)

    def describe(self) -> str:
        """Return how much it is, in one line."""
        lengths = sorted(s.seconds for s in self.test.speech)
        middle = lengths[len(lengths) // 2]
        return (
            f"{len(lengths)} of {self.total} utterances, {self.test.seconds:.0f} s of audio "
            f"({lengths[0]:.1f} to {lengths[-1]:.1f} s each, median {middle:.1f} s)"
        )


def load_trial_data(
    data_dir: Path | str, sample_rate: int, max_utts: int | None = None
) -> TrialData:
    """Read some utterances of a Kaldi data directory, evenly spread over their durations.

    Audio is found as `load_test_set` finds it; other rates are resampled and channels averaged,
    as the verb ``transcribe`` does.

    Args:
        data_dir: ``wav.scp``, and ``text`` if there is one.
        sample_rate: Of the model, in Hz.
        max_utts: How many; None = about five minutes of audio.

    Raises:
        ValueError: If nothing in it can be used; says what came and what is needed.
    """
    directory = Path(data_dir)
    if (directory / "text").is_dir():
        raise ValueError(f"{directory / 'text'} is a directory, a file 'utt_id words' is needed")
    if not (directory / "wav.scp").is_file():
        found = some(p.name for p in directory.iterdir()) if directory.is_dir() else "no directory"
        raise ValueError(
            f"{directory}: a data directory with wav.scp (lines 'utt_id path'), and text if there "
            f"are transcripts, is needed, but there is {found or 'nothing in it'}"
        )
    refuse_segments(directory)
    utterances, notes = read_wav_scp(directory / "wav.scp"), []
    total = len(utterances)
    texts, wrong = _transcripts(directory / "text")
    wrong = [*(utt.problem for utt in utterances if utt.problem), *wrong]
    utterances = [utt for utt in utterances if not utt.problem]
    if wrong:
        notes.append(f"{len(wrong)} lines of the tables cannot be used ({wrong[0]})")
    if texts:  # none whose path is not certain
        certain, _ = read_usable(directory / "wav.scp", allow_empty_value=True)
        known = [utt for utt in utterances if utt.utt_id in texts.keys() & certain.keys()]
        if not known:
            raise ValueError(
                f"{directory}: text has no transcript of any utterance of wav.scp "
                f"({some(texts, 2)} there, {some((u.utt_id for u in utterances), 2)} here)"
            )
        if without := len(utterances) - len(known):
            notes.append(f"{without} utterances have no transcript and are left out")
        utterances = known
    step = max(1.0, len(utterances) / max(LOOKED_AT, max_utts or 0))
    looked_at = [utterances[int(i * step)] for i in range(int(len(utterances) / step))]
    opened, unread = _open(looked_at, directory.resolve(), sample_rate)
    short = [audio for audio in opened if audio.seconds <= LONGEST]
    if not short:
        reason = f"the first: {unread[0]}" if unread else f"all are longer than {LONGEST:g} s"
        raise ValueError(
            f"{directory}: none of {len(looked_at)} utterances can be used ({reason}); audio files "
            f"of at most {LONGEST:g} s are needed"
        )
    if len(short) < len(opened):
        notes.append(f"{len(opened) - len(short)} utterances of more than {LONGEST:g} s left out")
    speech, mean = [], sum(audio.seconds for audio in short) / len(short)
    count = max_utts or max(1, int(SECONDS / max(mean, 1e-3)))
    for audio in spread_over_durations(sorted(short, key=lambda a: a.utt.utt_id), count):
        try:
            speech.append(Speech(audio.utt.utt_id, audio.read(), sample_rate))
        except AudioError as e:
            unread.append(str(e))
    if unread:
        notes.append(f"{len(unread)} utterances cannot be read and are left out ({unread[0]})")
    if not speech:
        raise ValueError(f"{directory}: no audio could be read; the first: {unread[0]}")
    names = {one.utt_id for one in speech}
    text = {utt: texts[utt] for utt in sorted(names & texts.keys())}
    test = TestSet(sorted(speech, key=lambda s: s.utt_id), text, {})
    return TrialData(test, total, tuple(notes), len(wrong) + len(unread))


def _transcripts(path: Path) -> tuple[dict[str, str], list[str]]:
    """Return the transcripts that are not empty, and what is wrong with lines; none: no file."""
    if not path.is_file():
        return {}, []
    table, refused = read_usable(path, allow_empty_value=True)
    found = {utt: text for utt, text in table.items() if text.strip()}
    if not found:
        raise ValueError(f"{path}: all transcripts are empty; remove the file to do without")
    return found, list(refused.values())


def _open(
    utterances: Sequence[Utterance], directory: Path, sample_rate: int
) -> tuple[list[AudioBlocks], list[str]]:
    """Return the audio that can be opened, and why other audio cannot."""
    found, errors = [], []
    for utt in utterances:
        try:
            at = replace(utt, path=located(utt.path, directory))
            found.append(AudioBlocks(at, sample_rate, True, True))
        except AudioError as e:
            errors.append(str(e))
    return found, errors
