#!/usr/bin/env python3
"""Run transcribe for long and see whether it loses, mixes up or holds on to anything.

    tools/load_check.py --data AN4     # about 20 minutes on one core

``--data`` is a folder with a wav.scp, or any with WAV, FLAC or SPHERE files below it (as AN4's);
without it noise is used. The parts:

list     --utterances names in one list, the files of --data in turn, one in a thousand without a
         file: complete, in order, and a file gets the same text each time
threads  --threads threads on one Speech2Text for --seconds, one utterance or a batch a call: no
         call fails, and each text is that of a lone call
day      --day_hours of audio in one list, by simulation: silence of 0.3 s to half an hour, read
         and batched as always, and a model that only counts its samples: all are heard, in order
long     two files of --long_hours, the files of --data joined: one text, times of words go up
         and reach the end, first and last tenth have similarly many words

Each prints a row of a table with the largest resident set of its first, second and last third. The
status is 1 if something is wrong, or the last third has --max_growth MB more than the first.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import soundfile
import torch

from espnet_layerskip._late_imports import start_sooner
from espnet_layerskip.cli import main as espnet_layerskip
from espnet_layerskip.files import read_table, some
from espnet_layerskip.inference.audio import Samples, Utterance, read_audio
from espnet_layerskip.inference.recognize import Recognized
from espnet_layerskip.inference.skip_count import SkipCount

start_sooner()  # as the command does, before ESPnet is imported
from espnet_layerskip.inference import speech2text  # noqa: E402

MODEL = Path(__file__).resolve().parents[1] / "egs2/an4/asr1/pretrained/an4_layerskip.zip"
SUFFIXES = (".wav", ".flac", ".sph")
RATE = 16000
MISSING_EACH = 1000
OPTIONS = {"model": MODEL, "utterances": 10_000, "threads": 8, "seconds": 600.0, "day_hours": 24.0}
OPTIONS |= {"long_hours": 3.0, "batch_size": 8, "max_growth": 50.0}
COLUMNS = ("part", "what", "audio h", "minutes", "MB", "wrong")
Part = tuple[str, float, list[str]]  # what was run, hours of audio, what is wrong


@contextlib.contextmanager
def watched() -> Iterator[list[float]]:
    """Fill the list with samples of the memory in MB while a ``with`` block runs."""
    over = threading.Event()
    samples: list[float] = []

    def watch() -> None:
        while not over.wait(0.1) or len(samples) < 3:
            pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
            samples.append(int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(watch)
        try:
            yield samples
        finally:
            over.set()


def find_audio(data: Path | None, folder: Path) -> list[str]:
    """Return paths of audio files: those of ``data``, or of noise that is written to ``folder``."""
    if data is not None and (data / "wav.scp").is_file():
        return list(read_table(data / "wav.scp").values())
    if data is None:
        data, rng = folder, np.random.default_rng(0)
        for tenths in (5, 10, 20, 40):
            loud = np.repeat(rng.uniform(0, 0.9, tenths), RATE // 10)
            soundfile.write(folder / f"{tenths}.wav", loud * rng.uniform(-1, 1, len(loud)), RATE)
    found = sorted(str(path) for path in data.rglob("*") if path.suffix in SUFFIXES)
    if not found:
        raise ValueError(f"--data {data}: no wav.scp, and no files {', '.join(SUFFIXES)}")
    return found


def samples_of(path: str) -> Samples:
    """Return the samples of a file at the model's rate."""
    return read_audio(Utterance(Path(path).stem, path), RATE, resample=True, mix=True)


def transcribe(args: Any, rows: dict[str, str], model: Any = None) -> tuple[dict[str, str], Any]:
    """Run the verb on a list; return the texts in the order printed, and the statistics."""
    scp, stats, out = args.folder / "load.scp", args.folder / "stats.json", io.StringIO()
    scp.write_text("".join(f"{name} {path}\n" for name, path in rows.items()), encoding="utf-8")
    call = ["transcribe", "--model", args.model, "--wav-scp", scp, "--stats", stats, "--times"]
    call += [args.folder / "ctm", "--num-threads", 1, "--batch-size", args.batch_size]
    loaded = mock.patch.object(speech2text, "load_model", return_value=model or args.loaded)
    with loaded, contextlib.redirect_stdout(out):
        status = espnet_layerskip([str(word) for word in call])
    lines = [line.partition(" ") for line in out.getvalue().splitlines()]
    texts = {name: text for name, _, text in lines}
    if status > 1 or len(texts) < len(lines):
        raise ValueError(f"transcribe: status {status}, {len(lines)} lines for {len(texts)} names")
    return texts, json.loads(stats.read_text(encoding="utf-8"))


def disorder(texts: dict[str, str], wanted: Collection[str], stats: dict[str, Any]) -> list[str]:
    """Return what is wrong with names and counts."""
    failed = len(stats["failed"])
    whole = stats["read"] == len(texts) + failed and list(texts) == list(wanted)
    return [] if whole else [f"{len(texts)} of {len(wanted)} and {failed} failed, or not in order"]


def run_list(args: Any) -> Part:
    """Transcribe a long list."""
    names = [f"utt{number:07}" for number in range(args.utterances)]
    gone = names[MISSING_EACH // 2 :: MISSING_EACH]
    rows = {name: args.audio[i % len(args.audio)] for i, name in enumerate(names)}
    rows |= dict.fromkeys(gone, str(args.folder / "gone.wav"))
    texts, stats = transcribe(args, rows)
    wrong = disorder(texts, [name for name in names if name not in set(gone)], stats)
    wrong += [f"refused: {some(stats['failed'])}"] if stats["failed"] != gone else []
    first: dict[str, str] = {}
    changed = [name for name, text in texts.items() if first.setdefault(rows[name], text) != text]
    wrong += [f"another text of the same file: {some(changed)}"] if changed else []
    return f"{len(names)} utterances", stats["audio_seconds"] / 3600, wrong


def run_threads(args: Any) -> Part:
    """Call one model from many threads."""
    waves = [samples_of(path) for path in args.audio[:200]]
    lone = [args.loaded(wave)[0][0] for wave in waves]
    seconds, calls, wrong = [0.0] * args.threads, [0] * args.threads, []
    end = time.monotonic() + args.seconds

    def work(number: int) -> None:
        rng = random.Random(number)
        while not calls[number] or time.monotonic() < end:
            picked = rng.choices(range(len(waves)), k=rng.choice((1, 1, 1, args.batch_size)))
            found = args.loaded.decode_batch([waves[i] for i in picked])
            texts = zip(picked, found, strict=True)
            wrong.extend(f"{args.audio[i]} differs" for i, n in texts if n[0][0] != lone[i])
            seconds[number] += sum(len(waves[i]) for i in picked) / RATE
            calls[number] += 1

    with ThreadPoolExecutor(args.threads) as pool:
        list(pool.map(work, range(args.threads)))  # raises what a call raised
    return f"{args.threads} threads, {sum(calls)} calls", sum(seconds) / 3600, wrong


def run_day(args: Any) -> Part:
    """Transcribe a day of audio by simulation: log-normal around 5 s, and some long files."""

    def count(blocks: Iterable[Samples], *_: Any) -> Any:
        text = str(sum(map(len, blocks)))
        return Recognized([(text, [], [], SimpleNamespace(words=()))], None, SkipCount(), 0.0)

    silent = SimpleNamespace(sample_rate=RATE, longest_whole=30.0, frame_seconds=0.04)
    silent.asr_model = SimpleNamespace(encoder=SimpleNamespace())
    silent.preprocess, silent.recognize_blocks = lambda name, samples: samples, count
    silent.recognize = lambda speech, names: [count([one]) for one in speech]
    lengths = np.geomspace(0.3, 1800.0, 60)
    shares = np.exp(-0.5 * np.log(lengths / 5.0) ** 2) + 1e-4
    drawn = np.random.default_rng(0).choice(60, 100_000, p=shares / shares.sum())
    enough = int((lengths[drawn].cumsum() < 3600 * args.day_hours).sum()) + 1
    rows, numbers = {}, {}
    for turn, length in enumerate(lengths[drawn[:enough]]):
        path, name = args.folder / f"{length}.flac", f"utt{turn:07}"
        rows[name], numbers[name] = str(path), str(int(length * RATE))
        if not path.exists():
            soundfile.write(path, np.zeros(int(length * RATE), np.int16), RATE)
    texts, stats = transcribe(args, rows, silent)
    wrong = disorder(texts, rows, stats) + (["not all was heard"] if texts != numbers else [])
    what = f"{len(rows)} utterances of up to {lengths[drawn[:enough]].max():.0f} s, simulated"
    return what, stats["audio_seconds"] / 3600, wrong


def run_long(args: Any) -> Part:
    """Transcribe two long files."""
    path, turns = args.folder / "long.wav", itertools.cycle(args.audio)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as out:
        while out.tell() < args.long_hours * 3600 * RATE:
            out.write(samples_of(next(turns)))
    rows, total = dict.fromkeys("ab", str(path)), soundfile.info(path).duration
    texts, stats = transcribe(args, rows)
    words = [line.split() for line in args.folder.joinpath("ctm").read_text("utf-8").splitlines()]
    times, again = (np.array([float(word[2]) for word in words if word[0] == n]) for n in "ab")
    first, last = (times < total / 10).sum(), (times >= 0.9 * total).sum()
    similar = first > 0 and abs(first - last) <= 5 * (first + last) ** 0.5
    checks = {
        "two texts of one file": len(set(texts.values())) == 1 and np.array_equal(times, again),
        "times go back": not (np.diff(times) < 0).any(),
        f"{first} words in the first tenth, {last} in the last": similar,
        "the end was not heard": len(times) and total - times[-1] < 60,
    }
    wrong = disorder(texts, rows, stats) + [what for what, holds in checks.items() if not holds]
    return (
        f"2 files of {total / 3600:.2f} h, {len(times)} words",
        stats["audio_seconds"] / 3600,
        wrong,
    )


RUN = {"list": run_list, "threads": run_threads, "day": run_day, "long": run_long}


def main(argv: list[str] | None = None) -> int:
    """Run the parts; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--parts", nargs="+", choices=RUN, default=list(RUN))
    parser.add_argument("--data", type=Path, metavar="DIR")
    for name, default in OPTIONS.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help="[%(default)s]")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    args.loaded, failed = speech2text.load_model(args.model, decoder_type="greedy"), False
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for part in args.parts:
        with tempfile.TemporaryDirectory(prefix="load") as folder:
            args.folder = Path(folder)
            args.audio = find_audio(args.data, args.folder)
            transcribe(args, dict(zip("abcd", args.audio, strict=False)))  # imports what it needs
            start = time.monotonic()
            with watched() as samples:
                what, hours, wrong = RUN[part](args)
        mb = [round(max(third)) for third in np.array_split(samples, 3)]
        wrong += ["memory grows"] if mb[2] - mb[0] > args.max_growth else []
        took = f"{(time.monotonic() - start) / 60:.1f} | {mb[0]}, {mb[1]}, {mb[2]}"
        found = "; ".join(wrong[:5]) or "nothing"
        print(f"| {part} | {what} | {hours:.2f} | {took} | {found} |", flush=True)
        failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
