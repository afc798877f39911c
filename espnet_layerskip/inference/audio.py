"""Reading of audio: wav.scp tables and files, with errors that name the utterance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

BLOCK_SECONDS = 15


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
        ValueError: If the file is missing, has no line, or names an utterance twice.
    """
    wav_scp = Path(wav_scp)
    if not wav_scp.is_file():
        raise ValueError(f"no such file: {wav_scp} (a wav.scp with lines 'utt_id path' is needed)")
    utterances = []
    for line in wav_scp.read_text(encoding="utf-8").splitlines():
        if line.strip():
            utt_id, _, path = line.strip().partition(" ")
            utterances.append(Utterance(utt_id, path.strip()))
    check_unique(utterances, str(wav_scp))
    if not utterances:
        raise ValueError(f"{wav_scp} is empty: lines 'utt_id path' are needed")
    return utterances


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
) -> np.ndarray:
    """Read one utterance.

    Args:
        utt: The utterance; its path is opened as a file, never run as a pipe.
        sample_rate: Rate that the model needs, in Hz.
        resample: Convert another rate; otherwise it is an error.
        mix: Average several channels; otherwise they are an error.

    Returns:
        Samples (N,), float32 in [-1, 1].

    Raises:
        AudioError: If the audio cannot be read or does not fit; names utterance and file.
    """
    return AudioBlocks(utt, sample_rate, resample, mix).read()


class AudioBlocks:
    """The samples of one utterance, read from its file block by block: float32 (N_i,).

    Args:
        utt, sample_rate, resample, mix: As of `read_audio`.

    Raises:
        AudioError: As `read_audio`; when it is made, or while it is read.
    """

    def __init__(self, utt: Utterance, sample_rate: int, resample: bool = False, mix: bool = False):
        self.utt = utt
        self.sample_rate = sample_rate
        name = f"utterance {utt.utt_id}: {utt.path or 'no path given'}"
        self._unreadable = f"{name}: cannot be decoded as audio"
        if utt.path.endswith("|"):
            raise AudioError(f"{name} is a pipe; pipes are not run: write the audio to a file")
        if not utt.path or not Path(utt.path).is_file():
            raise AudioError(f"{name}: no such audio file")
        with self._decodable():
            info = soundfile.info(utt.path)
        self.seconds = info.frames / info.samplerate
        """Length as the file's header has it."""
        if info.channels > 1 and not mix:
            raise AudioError(
                f"{name} has {info.channels} channels, but one is needed: choose or mix them first"
            )
        if info.samplerate != sample_rate and not resample:
            raise AudioError(
                f"{name} has {info.samplerate} Hz, but the model was trained on {sample_rate} Hz: "
                "resample it"
            )

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the blocks, from the start of the file each time."""
        with self._decodable(), soundfile.SoundFile(self.utt.path) as file:
            blocks = _mono_blocks(file)
            if file.samplerate != self.sample_rate:
                blocks = resampled(blocks, file.samplerate, self.sample_rate)
            yield from blocks

    def read(self) -> np.ndarray:
        """Return all samples (N,)."""
        return np.concatenate([np.zeros(0, np.float32), *self])

    @contextmanager
    def _decodable(self) -> Iterator[None]:
        try:
            yield
        except (soundfile.SoundFileError, RuntimeError, OSError) as e:
            raise AudioError(f"{self._unreadable} ({e})") from e


def _mono_blocks(file: Any) -> Iterator[np.ndarray]:
    """Yield samples (N_i,) float32 of an open file, its channels averaged."""
    while len(x := file.read(BLOCK_SECONDS * file.samplerate, "float32", always_2d=True)):
        yield x.mean(axis=1) if x.shape[1] > 1 else x[:, 0]


def resampled(blocks: Iterable[np.ndarray], rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    """Yield samples at another rate: what resampling the whole gives, block by block.

    torchaudio's windowed sinc with its defaults, on blocks with as much context as it sees.

    Args:
        blocks: Samples (N_i,), float32.
        rate: Of these, in Hz.
        sample_rate: To convert to, in Hz.
    """
    import torch
    from torchaudio.functional import resample

    divisor = math.gcd(rate, sample_rate)
    step, out = rate // divisor, sample_rate // divisor  # so many samples become so many
    context = (math.ceil(6 / 0.99 * max(1.0, step / out) / step) + 1) * step
    held, lead = np.zeros(0, np.float32), 0  # the first `lead` samples are context

    def convert(stop: int | None) -> np.ndarray:
        y: np.ndarray = resample(torch.from_numpy(held[:stop]), rate, sample_rate).numpy()
        return y

    for block in blocks:
        held = np.concatenate((held, block))
        done = (len(held) - context) // step * step
        if done > lead:
            yield convert(done + context)[lead // step * out : done // step * out]
            start = max(0, done - context)
            held, lead = held[start:], done - start
    if held.size:
        yield convert(None)[lead // step * out :]
