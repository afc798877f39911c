"""The reader of audio, for corpora and inference: mono, at one rate, block by block.

Errors name the utterance and its file.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from espnet_layerskip.files import DISK_FULL, each_row, nothing_usable, what_is_wrong
from espnet_layerskip.inference.audio_header import claimed_frames, ends_with_zeros
from espnet_layerskip.inference.audio_joined import JOINABLE, is_joined
from espnet_layerskip.inference.pipes import is_pipe, run_pipe

Samples = NDArray[np.float32]

# A block has no more of either, whatever rate and channels a file claims to have.
BLOCK_SECONDS = 15
PIECE = 16_000  # samples that are looked at for channels of opposite phase
BLOCK_VALUES = 1 << 22

# What lies beyond is a damaged header: no speech is recorded so.
RATES = (1000, 768_000)  # Hz
MAX_CHANNELS = 256

# Less of the channels' power than this is left in their average: they cancel one another.
CANCELLED = 0.01
NO_END = "Ogg: Last page lacks an end-of-stream bit."  # of libsndfile: it may be cut off
UNRECOGNISED = 1  # of libsndfile's errors
NO_HEADER = "It has no header that is known: convert it to WAV or FLAC"

logger = logging.getLogger(__name__)


class AudioError(ValueError):
    """An utterance whose audio cannot be used."""


@dataclass(frozen=True)
class Utterance:
    """One utterance to transcribe.

    Attributes:
        utt_id: Its name, without spaces.
        path: Audio file, or what stood in its place (a pipe, or nothing).
        problem: Why it cannot be read, where its table has said so already.
    """

    utt_id: str
    path: str
    problem: str = ""


def read_wav_scp(wav_scp: str | Path) -> list[Utterance]:
    """Read a Kaldi ``wav.scp``: lines "utt_id path".

    A line without a path, or with a pipe, is kept: reading that utterance fails by name,
    the others go on. So is a line that is wrong; one whose id cannot be used, or has come before,
    is named ``wav.scp:3``, for its place.

    Raises:
        ValueError: A missing, damaged or empty table, or one of which every line is wrong.
    """
    rows = each_row(wav_scp, allow_empty_value=True)
    found = [Utterance(row.name, row.value, row.problem) for row in rows]
    if all(utt.problem for utt in found):
        raise nothing_usable(wav_scp, (utt.problem for utt in found))
    return found


def check_path(utt: Utterance, pipes: bool = False) -> None:
    """Look whether there is a file to read, without opening it.

    Args:
        utt: The utterance.
        pipes: Its path may be a shell command that ends with ``|``.

    Raises:
        AudioError: If there is none, it is no file of audio (a directory, a device), or a pipe.
    """
    if utt.problem:
        raise AudioError(utt.problem)
    name = describe(utt)
    if is_pipe(utt.path):
        if utt.path.startswith("|"):
            raise AudioError(f"{name} is a pipe to write to, and no audio")
        if not pipes:
            raise AudioError(
                f"{name} is a pipe; pipes are not run (transcribe does with --allow-pipes): write "
                "the audio to a file"
            )
        return
    try:
        mode = os.stat(utt.path).st_mode if utt.path else 0
    except FileNotFoundError:
        mode = 0
    except (OSError, ValueError) as e:  # a name too long, a closed folder, a zero byte
        raise AudioError(f"{name}: cannot be decoded as audio ({e})") from e
    if not mode:
        raise AudioError(f"{name}: no such audio file")
    if not stat.S_ISREG(mode):
        what = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise AudioError(f"{name} is {what}: no such audio file")


def describe(utt: Utterance) -> str:
    """Return the beginning of a message about an utterance."""
    return f"utterance {utt.utt_id}: {utt.path or 'no path given'}"


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

    A file that ends before its header says so is read as far as it goes, with a warning. So are
    channels that cancel one another when they are averaged: the louder one is taken.

    Args:
        utt, resample, mix: As of `read_audio`.
        sample_rate: As of `read_audio`; None = the file's own.
        pipes: Run a path that ends with ``|`` as a shell command and read what it writes.

    Raises:
        AudioError: As `read_audio`; when it is made, or while it is read.
    """

    def __init__(
        self,
        utt: Utterance,
        sample_rate: int | None,
        resample: bool = False,
        mix: bool = False,
        pipes: bool = False,
    ):
        self.utt = utt
        self._name = name = describe(utt)
        check_path(utt, pipes)
        # whatever bytes the name is made of
        self._path: str | bytes = utt.path if is_utf8(utt.path) else os.fsencode(utt.path)
        with self._decodable():
            if is_pipe(utt.path):
                self._held = run_pipe(utt.path)  # is removed with this object
                self._path = self._held.name
            info = soundfile.info(self._source())
        if info.format == "RAW":  # a guess by the ending of the name (.au, .gsm, .vox)
            raise AudioError(f"{name}: cannot be decoded as audio ({NO_HEADER})")
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
        """Length of what the file has, as far as its header tells."""
        self._claimed = claimed_frames(info, self._path)
        self._cut_off = NO_END in info.extra_info
        self._told = False
        self.heard: Callable[[float], None] | None = None
        """Is called with the seconds of each block that was read."""

    def __iter__(self) -> Iterator[Samples]:
        """Yield the blocks, from the start of the file each time."""
        with self._decodable(), soundfile.SoundFile(self._source()) as file:
            for block in resampled(self._mono(file), file.samplerate, self.sample_rate):
                yield block
                if self.heard is not None:
                    self.heard(len(block) / self.sample_rate)

    def read(self) -> Samples:
        """Return all samples (N,)."""
        return np.concatenate([np.zeros(0, np.float32), *self])

    def _mono(self, file: Any) -> Iterator[Samples]:
        """Yield the samples of an open file at its own rate, its channels made one."""
        channel: int | None = None
        found = 0
        for x in self._blocks(file):
            if not np.isfinite(x).all():
                raise AudioError(f"{self._name} holds values that are not finite")
            found += len(x)
            if channel is None and (channel := cancelling(x)) is not None:
                self._warn(
                    f"averaging its {x.shape[1]} channels leaves silence (opposite phase): only "
                    f"channel {channel + 1} is used"
                )
            yield x.mean(axis=1) if channel is None and x.shape[1] > 1 else x[:, channel or 0]
        if not found:
            raise AudioError(f"{self._name} holds no samples")
        # the encoders of MP3 add samples that its decoders take away, or not
        if self._claimed - found > (file.samplerate // 10 if "MP" in file.format else 0):
            missing, claimed = self._claimed - found, self._claimed / file.samplerate
            self._warn(
                f"its header says {claimed:.2f} s, but {missing / file.samplerate:.2f} s of it "
                "are missing: what is there is used"
            )
        elif self._cut_off:
            self._warn(
                f"its Ogg stream has no end after {found / file.samplerate:.2f} s, it may be cut "
                "off: what is there is used"
            )
        elif not self._told and file.format in JOINABLE and is_joined(self._path):
            self._warn(
                f"it is several files joined, and only the first of {found / file.samplerate:.2f} "
                "s is read: join the decoded audio (sox, ffmpeg)"
            )
        self._told = True

    def _blocks(self, file: Any) -> Iterator[Samples]:
        """Yield what can be decoded, in blocks (N_i, channels)."""
        size = max(1, min(BLOCK_SECONDS * file.samplerate, BLOCK_VALUES // file.channels))
        found = 0
        # else soundfile goes after each block to where it should have ended: where data is missing
        # in the middle (a hole in an Ogg stream), what follows would come twice
        file.seekable = lambda: False
        try:
            while len(x := file.read(size, "float32", always_2d=True)):
                yield x
                found += len(x)
        except soundfile.SoundFileError:
            if ends_with_zeros(self._path):  # it was never written to its end, or is damaged
                raise
            rest = list(self._to_the_fault(found))
            if not found and not rest:
                raise
            yield from rest

    def _to_the_fault(self, start: int) -> Iterator[Samples]:
        """Yield what can be decoded from a frame on, in small steps: a fault costs one of them."""
        with soundfile.SoundFile(self._source()) as file:
            try:
                while file.tell() < start and len(file.read(min(1024, start - file.tell()))):
                    pass
                while len(x := file.read(1024, "float32", always_2d=True)):
                    yield x
            except soundfile.SoundFileError:
                return

    def _warn(self, what: str) -> None:
        if not self._told:  # it may be read again
            logger.warning("%s: %s", self._name, what)

    def _source(self) -> str | bytes | int:
        """Return what soundfile opens: it takes whatever is called .raw for samples alone."""
        if os.fsencode(self._path).lower().endswith(b".raw"):
            return os.open(self._path, os.O_RDONLY)  # is closed with the SoundFile
        return self._path

    @contextmanager
    def _decodable(self) -> Iterator[None]:
        try:
            yield
        except soundfile.LibsndfileError as e:
            why = e.error_string
            if e.code == UNRECOGNISED:
                why = f"{why} {NO_HEADER}"
            raise AudioError(f"{self._name}: cannot be decoded as audio ({why})") from e
        except (soundfile.SoundFileError, RuntimeError, OSError, TypeError, MemoryError) as e:
            full = what_is_wrong(e).endswith(DISK_FULL)  # no matter of the audio
            why = what_is_wrong(e) if full else f"cannot be decoded as audio ({e})"
            raise AudioError(f"{self._name}: {why}") from e


def cancelling(x: Samples) -> int | None:
    """Return the loudest channel if the average of all is next to nothing against it; else None.

    A second or so of it is enough, where it is not much quieter than the rest.

    Args:
        x: Samples (N, channels).
    """
    if x.shape[1] < 2:
        return None
    loudness = np.square(x, dtype=np.float64).mean(0)
    for piece in np.array_split(x, max(1, len(x) // PIECE)):
        power = np.square(piece, dtype=np.float64).mean()
        left = np.square(piece.mean(1), dtype=np.float64).mean()
        if power > loudness.mean() / 10 and left < CANCELLED * power:
            return int(loudness.argmax())
    return None


def is_utf8(name: str) -> bool:
    """Return whether a name is one that can be written as UTF-8; others keep their bytes."""
    return not any("\udc80" <= c <= "\udcff" for c in name)


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
