"""Audio files of the recipes: rates, conversion and writing; `inference.audio` reads them."""

from __future__ import annotations

import errno
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from espnet_layerskip.files import DataDir, some, write_bytes, write_table
from espnet_layerskip.inference.audio import (
    AudioBlocks,
    AudioError,
    Samples,
    Utterance,
    describe,
    resampled,
)

AUDIO_CHECKSUMS = "audio_checksums"
FULL_SCALE = 1.5  # resampling goes a little beyond 1
MOST_BEYOND = 0.01
"""Of the samples, beyond full scale: peaks may be cut off, speech in another scale may not."""


def parse_rate(text: str) -> int:
    """Return a sampling rate in Hz: '16k', '16000' and '44.1k' are understood.

    Raises:
        ValueError: Anything else, and less than 1 kHz.

    >>> parse_rate("16k")
    16000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kK]?)", text.strip())
    rate = round(float(match[1]) * (1000 if match[2] else 1)) if match else 0
    if rate < 1000:  # a 16 is 16 kHz to people
        raise ValueError(f"fs '{text}': a sampling rate such as 16k or 16000 is needed")
    return rate


def load_source(source: Path, target: Path) -> DataDir:
    """Read a data directory of which another one is made.

    Raises:
        ValueError: As `DataDir.load` and `refuse_pipes`; or if the target is the source.
    """
    if source.resolve() == target.resolve():
        raise ValueError(f"{target} would be written over what it is made of: name another target")
    data = DataDir.load(source)
    refuse_pipes(source, data.wav)
    return data


def refuse_pipes(source: Path, wav_scp: Mapping[str, str]) -> None:
    """Refuse Kaldi's ``command |`` and ``archive:offset`` entries: files are read, no commands.

    Raises:
        ValueError: Names the data directory and the utterances.
    """
    pipes = [utt for utt, entry in wav_scp.items() if entry.endswith("|") or entry.startswith("|")]
    if pipes:
        raise ValueError(
            f"{source}/wav.scp holds {len(pipes)} pipe(s), e.g. '{wav_scp[pipes[0]]}'; no command "
            "is run from a table: write the audio to files and name those. Utterances: "
            f"{some(pipes)}"
        )
    inside = [
        utt
        for utt, entry in wav_scp.items()
        if re.fullmatch(r".+:\d+", entry) and not Path(entry).exists()
    ]
    if inside:
        raise ValueError(
            f"{source}/wav.scp names {len(inside)} place(s) in archives, e.g. "
            f"'{wav_scp[inside[0]]}'; archives are not read: write the audio to files and name "
            f"those (ESPnet: --audio_format flac). Utterances: {some(inside)}"
        )


def refuse_broken(source: Path, broken: Sequence[str], total: int) -> None:
    """Raise a ValueError that has what was wrong with each broken utterance, if there is any."""
    if broken:
        raise ValueError(
            f"{source}: {len(broken)} of {total} utterance(s) cannot be used:\n  "
            + "\n  ".join(broken)
            + "\nRepair or remove them, or leave them out with --skip_broken_audio true"
        )


def convert(
    utt: str, entry: str, target: Path | str, rate: int | None = None, speed: float = 1.0
) -> tuple[int, str]:
    """Write the audio of an utterance as a mono file.

    Args:
        utt: Its id, for messages.
        entry: Its audio file.
        target: File to write, see `write_audio`.
        rate: In Hz; None = as it is.
        speed: Play it so many times as fast (tempo and pitch).

    Returns:
        The number of samples, and what was wrong ("" = nothing).

    Raises:
        OSError: The file cannot be written, for a reason (a full disk, no permission) that is not
            this utterance's.
    """
    try:
        audio = AudioBlocks(Utterance(utt, entry), rate, resample=True, mix=True)
        blocks = within_scale(describe(audio.utt), resampled(audio, speed, 1.0))
        return write_audio(target, blocks, audio.sample_rate), ""
    except AudioError as err:
        return 0, str(err)
    except OSError as err:
        if err.errno != errno.ENAMETOOLONG:
            raise
        return 0, f"utterance {utt}: {err}"


def write_checksums(target: Path, wav_scp: Mapping[str, str]) -> None:
    """Write ``target/audio_checksums``: what comes later sees by it that audio has changed."""
    sums = {utt: f"{zlib.crc32(Path(path).read_bytes()):08x}" for utt, path in wav_scp.items()}
    write_table(target / AUDIO_CHECKSUMS, sums)


def within_scale(name: str, blocks: Iterable[Samples]) -> Iterator[Samples]:
    """Yield blocks (N_i,) as they are.

    Raises:
        AudioError: At the end, if more than `MOST_BEYOND` of the samples are beyond `FULL_SCALE`.
    """
    count = beyond = 0
    peak = 0.0
    for block in blocks:
        size = np.abs(block)
        count += len(block)
        beyond += int(np.count_nonzero(size > FULL_SCALE))
        peak = max(peak, float(size.max(initial=0.0)))
        yield block
    if beyond > MOST_BEYOND * count:
        raise AudioError(
            f"{name}: {100 * beyond / count:.0f} % of the samples are beyond full scale (the "
            f"largest is {peak:.4g} instead of 1) and would be cut off: scale it"
        )


def to_pcm(x: Samples) -> NDArray[np.int16]:
    """Round x (N,) in [-1, 1] to 16-bit samples; what is beyond is clipped."""
    pcm: NDArray[np.int16] = np.clip(np.rint(x * 32768.0), -32768, 32767).astype(np.int16)
    return pcm


def write_audio(path: Path | str, blocks: Iterable[Samples], rate: int) -> int:
    """Write 16-bit samples in one step; the suffix gives the format (.flac or .wav).

    Args:
        path: File to write.
        blocks: Samples (N_i,) in [-1, 1].
        rate: Of these, in Hz.

    Returns:
        The number of samples.

    Raises:
        OSError: The file cannot be written, for instance because the disk is full.
    """
    container = Path(path).suffix.lstrip(".").upper()
    encoded, count = io.BytesIO(), 0  # libsndfile would not say why it cannot write a file
    with soundfile.SoundFile(encoded, "w", rate, 1, "PCM_16", format=container) as file:
        for block in blocks:
            file.write(to_pcm(block))
            count += len(block)
    write_bytes(path, encoded.getvalue())
    return count
