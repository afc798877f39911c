"""Stage 3: write the audio of a data directory as mono FLAC (or WAV) at one sampling rate.

Example::

    python -m espnet_layerskip.recipe.format_wav_scp --nj 4 --fs 16k data/test dump/raw/test
"""

from __future__ import annotations

import argparse
import logging
import re
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from espnet_layerskip.files import run_main, write_table, write_text
from espnet_layerskip.recipe.audio import (
    convert,
    load_source,
    parse_rate,
    refuse_broken,
    write_checksums,
)
from espnet_layerskip.recipe.progress import Progress

AUDIO_FORMATS = ("flac", "wav")


def format_one(
    item: tuple[str, str], out_dir: Path, suffix: str, rate: int
) -> tuple[str, int, str]:
    """Convert one utterance; return its id, number of samples, and what was wrong ('': nothing)."""
    utt, entry = item
    if "/" in utt or len(utt.split()) != 1:  # ESPnet ends an id at any white space of Unicode
        return utt, 0, f"utterance {utt!r}: an id with '/' or white space cannot be a file's name"
    return utt, *convert(utt, entry, out_dir / f"{utt}.{suffix}", rate)


def format_data_dir(
    source: Path,
    target: Path,
    *,
    fs: str = "16k",
    audio_format: str = "flac",
    nj: int = 1,
    skip_broken: bool = False,
) -> list[str]:
    """Write ``target`` (audio in target/data, wav.scp and the other tables).

    Returns:
        What was wrong with each utterance that was left out.

    Raises:
        ValueError: A pipe in wav.scp; any broken audio file unless ``skip_broken``; an audio
            format that is not one of flac, wav.
    """
    if audio_format not in AUDIO_FORMATS:
        raise ValueError(f"audio_format '{audio_format}': choose one of {', '.join(AUDIO_FORMATS)}")
    rate = parse_rate(fs)
    data = load_source(source, target)
    spaced = {utt: re.sub("[ \t]+", " ", text) for utt, text in data.text.items()}
    if changed := sum(spaced[utt] != text for utt, text in data.text.items()):
        logging.info("%s/text: in %d transcripts several spaces became one", source, changed)
    data.text = spaced
    work = partial(format_one, out_dir=target / "data", suffix=audio_format, rate=rate)
    items = sorted(data.wav.items())
    progress = Progress(f"{source}: formatted", len(items))
    results = []
    with ProcessPoolExecutor(min(nj, len(items))) if nj > 1 else nullcontext() as pool:
        for result in pool.map(work, items, chunksize=16) if pool else map(work, items):
            results.append(result)
            progress.step()
    broken = [message for _, _, message in results if message]
    if not skip_broken:
        refuse_broken(source, broken, len(items))
    good = {utt: samples for utt, samples, message in results if not message}
    if not good:
        raise ValueError(f"{source}: no utterance is left; first problem: {broken[0]}")
    kept = data.subset(good)
    kept.wav = {utt: f"{target}/data/{utt}.{audio_format}" for utt in good}
    kept.save(target)
    write_table(target / "utt2num_samples", {utt: str(n) for utt, n in good.items()})
    write_checksums(target, kept.wav)
    write_text(target / "feats_type", "raw\n")
    write_text(target / "audio_format", f"{audio_format}\n")
    hours = sum(good.values()) / rate / 3600
    logging.info("%s: %d utterances, %.2f h -> %s", source, len(good), hours, target)
    if broken:
        logging.warning("%d read = %d written + %d left out", len(items), len(good), len(broken))
    return broken


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write a data directory's audio in one format")
    parser.add_argument("--fs", default="16k", help="Sampling rate, e.g. 16k")
    parser.add_argument("--audio_format", default="flac", help="flac or wav")
    parser.add_argument("--nj", type=int, default=1, help="Number of processes")
    parser.add_argument("--skip_broken_audio", choices=("true", "false"), default="false")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    broken = format_data_dir(
        args.source,
        args.target,
        fs=args.fs,
        audio_format=args.audio_format,
        nj=args.nj,
        skip_broken=args.skip_broken_audio == "true",
    )
    for message in broken:
        logging.warning("left out: %s", message)


if __name__ == "__main__":
    run_main(main)
