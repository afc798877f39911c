"""The reader of audio, for corpora and inference: mono, at one rate, block by block.

Errors name the utterance and its file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from espnet_layerskip.files import read_table

Samples = NDArray[np.float32]

# A block has no more of either, whatever rate and channels a file claims to have.
BLOCK_SECONDS = 15
BLOCK_VALUES = 1 << 22

# What lies beyond is a damaged header: no speech is recorded so.
RATES = (1000, 768_000)  # Hz
MAX_CHANNELS = 256


class AudioError(ValueError):
    """An utterance whose audio cannot be used."""


@dataclass(frozen=True)
class Utterance:
    """One utterance to transcribe.

    Attributes:
        utt_id: Its name, without spaces.
        path: Audio file, or what stood in its place (a pipe, or nothing).
    """

    utt_id: str
    path: str


def read_wav_scp(wav_scp: str | Path) -> list[Utterance]:
    """Read a Kaldi ``wav.scp``: lines "utt_id path".

    A line without a path, or with a pipe, is kept: reading that utterance fails by name,
    the others go on.

    Raises:
        ValueError: As `espnet_layerskip.files.read_table`.
    """
    return [Utterance(*row) for row in read_table(wav_scp, allow_empty_value=True).items()]


def check_unique(utterances: Iterable[Utterance], source: str) -> None:
    """Raise a ValueError if two utterances have the same name."""
    seen: dict[str, str] = {}
    for utt in utterances:
        if utt.utt_id in seen:
            raise ValueError(
                f"{source}: two utterances are named {utt.utt_id!r} ({seen[utt.utt_id]} and "
                f"{utt.path}): names must be unique, use a wav.scp to give them"
            )
        seen[utt.utt_id] = utt.path


def read_audio(
    utt: Utterance, sample_rate: int, *, resample: bool = False, mix: bool = False
) -> Samples:
    """Read one utterance.

    Args:
        utt: The utterance; its path is opened as a file, never run as a pipe.
        sample_rate: Rate that the model needs, in Hz.
        resample: Convert another rate; otherwise it is an error.
        mix: Average several channels; otherwise they are an error.

    Returns:
        Samples (N,), float32, full scale = 1.

    Raises:
        AudioError: If the audio cannot be read or does not fit; names utterance and file.
    """
    return AudioBlocks(utt, sample_rate, resample, mix).read()


class AudioBlocks:
    """The samples of one utterance, read from its file block by block: float32 (N_i,).

    Args:
        utt, resample, mix: As of `read_audio`.
        sample_rate: As of `read_audio`; None = the file's own.

    Raises:
        AudioError: As `read_audio`; when it is made, or while it is read.
    """

    def __init__(
        self,
        utt: Utterance,
        sample_rate: int | None,
        resample: bool = False,
        mix: bool = False,
    ):
        self.utt = utt
        self._name = name = f"utterance {utt.utt_id}: {utt.path or 'no path given'}"
        if utt.path.startswith("|") or utt.path.endswith("|"):
            raise AudioError(f"{name} is a pipe; pipes are not run: write the audio to a file")
        with self._decodable():
            if not utt.path or not Path(utt.path).is_file():
                raise AudioError(f"{name}: no such audio file")
            info = soundfile.info(utt.path)
        lowest, highest = RATES
        if not lowest <= info.samplerate <= highest:
            raise AudioError(
                f"{name} claims {info.samplerate} Hz: rates of {lowest} to {highest} Hz are read"
            )
        if info.channels > MAX_CHANNELS:
            raise AudioError(f"{name} claims {info.channels} channels: {MAX_CHANNELS} are the most")
        if info.channels > 1 and not mix:
            raise AudioError(
                f"{name} has {info.channels} channels, but one is needed: choose or mix them first"
            )
        self.sample_rate: int = sample_rate or info.samplerate
        """Of the samples that are given, in Hz."""
        if info.samplerate != self.sample_rate and not resample:
            raise AudioError(
                f"{name} has {info.samplerate} Hz, but the model was trained on {sample_rate} Hz: "
                "resample it"
            )
        self.seconds: float = info.frames / info.samplerate
        """Length as the file's header has it."""

    def __iter__(self) -> Iterator[Samples]:
        """Yield the blocks, from the start of the file each time."""
        with self._decodable(), soundfile.SoundFile(self.utt.path) as file:
            yield from resampled(self._mono(file), file.samplerate, self.sample_rate)

    def read(self) -> Samples:
        """Return all samples (N,)."""
        return np.concatenate([np.zeros(0, np.float32), *self])

    def _mono(self, file: Any) -> Iterator[Samples]:
        """Yield the samples of an open file at its own rate, its channels averaged."""
        size = max(1, min(BLOCK_SECONDS * file.samplerate, BLOCK_VALUES // file.channels))
        block = 0
        while len(x := file.read(size, "float32", always_2d=True)):
            if not np.isfinite(x).all():
                raise AudioError(f"{self._name} holds values that are not finite")
            yield x.mean(axis=1) if x.shape[1] > 1 else x[:, 0]
            block += 1
        if not block:
            raise AudioError(f"{self._name} holds no samples")

    @contextmanager
    def _decodable(self) -> Iterator[None]:
        try:
            yield
        except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as e:
            raise AudioError(f"{self._name}: cannot be decoded as audio ({e})") from e


def resampled(blocks: Iterable[Samples], rate: float, sample_rate: float) -> Iterator[Samples]:
    """Yield samples at another rate, by soxr in high quality.

    However the samples are cut into blocks, together they become the same ones, to the bit.

    Args:
        blocks: Samples (N_i,).
        rate: Of these, in Hz.
        sample_rate: To convert to, in Hz; the same: the blocks as they are.
    """
    if rate == sample_rate:
        yield from blocks
        return
    import soxr  # only where it is needed: the runtime of exported models goes without

    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def resample(x: Samples, rate: float, sample_rate: float) -> Samples:
    """Return x (N,) at another rate, see `resampled`."""
    return np.concatenate(list(resampled([x], rate, sample_rate)))
