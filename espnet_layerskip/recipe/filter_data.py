"""Stage 4: leave out utterances that are too short, too long, or have no transcript.

Example::

    python -m espnet_layerskip.recipe.filter_data --fs 16k dump/raw/org/train dump/raw/train
"""

from __future__ import annotations

import argparse
import logging
import re
import shutil
from pathlib import Path

from espnet_layerskip.files import read_rows, run_main, some, write_table
from espnet_layerskip.recipe.audio import AUDIO_CHECKSUMS, load_source, parse_rate


def read_counts(path: Path) -> dict[str, int]:
    """Read lines 'id number'.

    Raises:
        ValueError: A line without a whole number; the message names file and line.
    """
    counts = {}
    for number, utt, value in read_rows(path):
        if not re.fullmatch(r"[0-9]+", value):
            raise ValueError(f"{path}:{number}: a number of samples is needed, not {value!r}")
        counts[utt] = int(value)
    return counts


def filter_data_dir(
    source: Path, target: Path, *, rate: int, min_seconds: float, max_seconds: float
) -> dict[str, str]:
    """Copy ``source`` to ``target`` without what cannot be trained on.

    Returns:
        Why each utterance that was left out was left out, by its id.

    Raises:
        ValueError: Nothing is left, or the limits cross.
    """
    if not 0 <= min_seconds < max_seconds:
        raise ValueError(
            f"min_wav_duration {min_seconds} s must be below max_wav_duration {max_seconds} s"
        )
    data = load_source(source, target)
    samples = read_counts(source / "utt2num_samples")
    if missing := data.wav.keys() - samples.keys():
        raise ValueError(f"{source}/utt2num_samples: no samples of {some(missing)}: run stage 3")
    dropped: dict[str, str] = {}
    for utt in sorted(data.wav):
        seconds = samples[utt] / rate
        if not data.text[utt]:
            dropped[utt] = "its transcript is empty"
        elif seconds <= min_seconds:
            dropped[utt] = f"{seconds:.2f} s is not above min_wav_duration {min_seconds} s"
        elif seconds >= max_seconds:
            dropped[utt] = f"{seconds:.2f} s is not below max_wav_duration {max_seconds} s"
    kept = [utt for utt in data.wav if utt not in dropped]
    if not kept:
        first = next(iter(dropped.items()))
        raise ValueError(f"{source}: no utterance is left; e.g. {first[0]}: {first[1]}")
    data.subset(kept).save(target)
    write_table(target / "utt2num_samples", {utt: str(samples[utt]) for utt in kept})
    for name in (AUDIO_CHECKSUMS, "feats_type", "audio_format"):
        if (source / name).is_file():
            shutil.copy(source / name, target / name)
    return dropped


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Remove long, short and empty utterances")
    parser.add_argument("--fs", default="16k", help="Sampling rate of the formatted audio")
    parser.add_argument("--min_wav_duration", type=float, default=0.1, help="Seconds")
    parser.add_argument("--max_wav_duration", type=float, default=20.0, help="Seconds")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    dropped = filter_data_dir(
        args.source,
        args.target,
        rate=parse_rate(args.fs),
        min_seconds=args.min_wav_duration,
        max_seconds=args.max_wav_duration,
    )
    for utt, why in dropped.items():
        logging.warning("left out: %s: %s", utt, why)
    logging.info("%s -> %s: %d left out", args.source, args.target, len(dropped))


if __name__ == "__main__":
    run_main(main)
