"""Reading of audio: wav.scp tables and files, with errors that name the utterance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile


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
    name = f"utterance {utt.utt_id}: {utt.path or 'no path given'}"
    if utt.path.endswith("|"):
        raise AudioError(f"{name} is a pipe; pipes are not run: write the audio to a file")
    if not utt.path or not Path(utt.path).is_file():
        raise AudioError(f"{name}: no such audio file")
    try:
        samples, rate = soundfile.read(utt.path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, OSError) as e:
        raise AudioError(f"{name}: cannot be decoded as audio ({e})") from e
    if samples.shape[1] > 1 and not mix:
        raise AudioError(
            f"{name} has {samples.shape[1]} channels, but one is needed: choose or mix them first"
        )
    mono: np.ndarray = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    if rate != sample_rate and not resample:
        raise AudioError(
            f"{name} has {rate} Hz, but the model was trained on {sample_rate} Hz: resample it"
        )
    if rate != sample_rate:
        import torch
        from torchaudio.functional import resample as convert

        mono = convert(torch.from_numpy(mono), rate, sample_rate).numpy()
    return mono
