"""AN4 in OWSM's form: windows of fixed length, their texts with language and task, and a prompt.

As OWSM's own data preparation does, utterances that follow one another are joined up to the
length of a window; every third window holds one utterance alone. Written are, beside Kaldi's
files, ``text`` (``<eng><asr><notimestamps> WORDS``), ``text.ctc`` (the words) and ``text.prev``
(the words of the window before, of the same speaker; ``<na>`` = there is none).

Example::

    python local/windows.py --seconds 10 dump/raw/train_dev dump/owsm/train_dev
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from espnet_layerskip.files import DataDir, run_main, write_table
from espnet_layerskip.recipe.audio import write_audio

SYMBOLS = ("<na>", "<nolang>", "<eng>", "<asr>", "<notimestamps>")
PROMPT = "<eng><asr><notimestamps>"


def groups(lengths: dict[str, float], seconds: float, alone_every: int = 3) -> list[list[str]]:
    """Return which utterances of one speaker share a window, in their order.

    Args:
        lengths: Seconds of each utterance, in their order.
        seconds: Length of a window.
        alone_every: Every so many windows one holds a single utterance; 0 = none.

    Raises:
        ValueError: For an utterance that is longer than a window.

    >>> groups({"a": 3.0, "b": 4.0, "c": 3.0, "d": 2.0}, 8.0)
    [['a', 'b'], ['c', 'd']]
    """
    found: list[list[str]] = []
    filled = 0.0
    for utt, length in lengths.items():
        if length > seconds:
            raise ValueError(
                f"utterance {utt} has {length:.1f} s, more than a window of {seconds:g} s: use "
                "longer windows (--window of run.sh, speech_length of the configuration)"
            )
        closed = alone_every > 0 and len(found) % alone_every == 0  # the last one stays alone
        if not found or closed or filled + length > seconds:
            found.append([])
            filled = 0.0
        found[-1].append(utt)
        filled += length
    return found


def join(source: Path, target: Path, seconds: float, alone_every: int) -> int:
    """Write the windows of a data directory; return their number. ``seconds`` 0 = as they are.

    Raises:
        ValueError: See `groups`; a directory that `DataDir` refuses.
    """
    data, out = DataDir.load(source), DataDir({}, {}, {})
    previous: dict[str, str] = {}
    samples: dict[str, str] = {}
    by_speaker: dict[str, list[str]] = {}
    for utt in sorted(data.wav):
        by_speaker.setdefault(data.utt2spk[utt], []).append(utt)
    for speaker, utts in sorted(by_speaker.items()):
        audio = {utt: read(data.wav[utt]) for utt in utts}
        lengths = {utt: len(x) / rate for utt, (x, rate) in audio.items()}
        before = "<na>"
        windows = groups(lengths, seconds, alone_every) if seconds else [[utt] for utt in utts]
        for window in windows:
            utt, path = window[0], target / "data" / f"{window[0]}.flac"
            joined = [audio[one][0] for one in window]
            out.wav[utt] = str(path)
            out.text[utt] = " ".join(data.text[one] for one in window)
            out.utt2spk[utt] = speaker
            samples[utt] = str(write_audio(path, joined, audio[utt][1]))
            previous[utt], before = before, out.text[utt]
    write_table(target / "text.ctc", out.text)
    write_table(target / "text.prev", previous)
    write_table(target / "utt2num_samples", samples)
    out.text = {utt: f"{PROMPT} {text}" for utt, text in out.text.items()}
    out.save(target)
    return len(out.wav)


def read(path: str) -> tuple[NDArray[np.float32], int]:
    """Return the samples (N,) of a mono file and their rate in Hz."""
    samples, rate = soundfile.read(path, dtype="float32")
    return samples, rate


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Windows in OWSM's form of a data directory")
    parser.add_argument("--seconds", type=float, default=10.0, help="0: each utterance as it is")
    parser.add_argument("--alone_every", type=int, default=3, help="0: all windows are filled")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    count = join(args.source, args.target, args.seconds, args.alone_every)
    logging.info("%s: %d windows of %g s -> %s", args.source, count, args.seconds, args.target)


if __name__ == "__main__":
    run_main(main)
