"""Reading and writing of audio files for the recipes."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from espnet_layerskip.files import some

Samples = NDArray[np.float32]


def parse_rate(text: str) -> int:
    """Return a sampling rate in Hz: '16k', '16000' and '44.1k' are understood.

    Raises:
        ValueError: Anything else.

    >>> parse_rate("16k")
    16000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kK]?)", text.strip())
    rate = round(float(match[1]) * (1000 if match[2] else 1)) if match else 0
    if rate <= 0:
        raise ValueError(f"fs '{text}': a sampling rate such as 16k or 16000 is needed")
    return rate


def refuse_pipes(wav_scp: Mapping[str, str]) -> None:
    """Refuse Kaldi's ``command |`` entries: no command is run from a table.

    Raises:
        ValueError: Entries that are pipes; it names the utterances.
    """
    pipes = [utt for utt, entry in wav_scp.items() if entry.endswith("|") or entry.startswith("|")]
    if pipes:
        raise ValueError(
            f"wav.scp holds {len(pipes)} pipe(s), e.g. '{wav_scp[pipes[0]]}'; no command is run "
            f"from a table: write the audio to files and name those. Utterances: {some(pipes)}"
        )


def check_entry(utt: str, entry: str) -> Path:
    """Return the path that a wav.scp entry names.

    Raises:
        ValueError: No such file is there.
    """
    path = Path(entry)
    if not path.is_file():
        raise ValueError(f"{utt}: no such audio file: {path}")
    return path


def read_audio(path: Path | str) -> tuple[Samples, int]:
    """Read a file as mono (the mean of its channels).

    Returns:
        x (N,) float32 in [-1, 1], and the sampling rate in Hz.

    Raises:
        ValueError: The file cannot be decoded, is empty, or holds NaN or infinity.
    """
    try:
        x, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as err:
        raise ValueError(f"{path}: cannot be decoded as audio: {err}") from err
    if len(x) == 0:
        raise ValueError(f"{path}: the audio file holds no samples")
    if not np.isfinite(x).all():
        raise ValueError(f"{path}: the audio file holds values that are not finite")
    mono: Samples = x[:, 0] if x.shape[1] == 1 else x.mean(axis=1, dtype=np.float32)
    return np.ascontiguousarray(mono), int(rate)


def resample(x: Samples, source_hz: float, target_hz: float) -> Samples:
    """Resample x (N,) from ``source_hz`` to ``target_hz`` (soxr, high quality)."""
    if source_hz == target_hz:
        return x
    y: Samples = soxr.resample(x, source_hz, target_hz, quality="HQ").astype(np.float32)
    return y


def change_speed(x: Samples, factor: float) -> Samples:
    """Play x (N,) ``factor`` times as fast (tempo and pitch): about N / factor samples."""
    return resample(x, factor, 1.0)


def to_pcm(x: Samples) -> NDArray[np.int16]:
    """Round x (N,) in [-1, 1] to 16-bit samples; what is beyond is clipped."""
    pcm: NDArray[np.int16] = np.clip(np.rint(x * 32768.0), -32768, 32767).astype(np.int16)
    return pcm


def write_audio(path: Path | str, x: Samples, rate: int) -> None:
    """Write x (N,) as 16-bit samples in one step; the suffix gives the format (.flac or .wav).

    Raises:
        OSError: The file cannot be written, for instance because the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    container = path.suffix.lstrip(".").upper()
    encoded = io.BytesIO()  # libsndfile would not say why it cannot write a file
    soundfile.write(encoded, to_pcm(x), rate, subtype="PCM_16", format=container)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(encoded.getvalue())
    os.replace(partial, path)
