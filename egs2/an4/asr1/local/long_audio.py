#!/usr/bin/env python3
"""Measure what transcribing long files costs: time, memory and errors by their length.

::

    python local/long_audio.py --exp exp/asr_ours --data dump/raw/test \\
        --seconds 0 10 600 3600 --output exp/long_audio

Writes ``long_audio.md`` and ``long_audio.json`` into the output folder. Other arguments go to
``espnet-layerskip transcribe``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile

from espnet_layerskip.evaluation.environment import (
    describe,
    environment_record,
    finish_record,
    typed,
)
from espnet_layerskip.evaluation.inputs import Speech, TestSet, load_test_set
from espnet_layerskip.evaluation.scoring import (
    Counts,
    check_hypotheses,
    error_rate,
    score,
    words,
)
from espnet_layerskip.evaluation.tables import between, folded, folded_command, markdown_table, page
from espnet_layerskip.files import run_main, write_text

NOTES = """\
Each row is the whole test set once, or as often as the file is long: utterances one after another
in order of their names, written to files of the wanted length and given to `espnet-layerskip
transcribe` in a process of its own. Time: from the first file to the last text, without the start
of the process; median of {repeats} passes with the rows in turn (min to max). Memory: the largest
resident set of the process, model and libraries included. Deleted: words of the reference that
are missing, which is what a seam would show as. Speakers meet within a file, which the
utterances as they are do not have."""

HEADER = (
    *("files of", "files", "audio s", "time ms per s of audio"),
    *("times that of the first length", "memory MB", "WER %", "deleted %"),
)


def measure_long_audio(
    exp: Path,
    data_dir: Path,
    seconds: Sequence[float],
    repeats: int,
    options: Sequence[str] = (),
    sample_rate: int = 16000,
) -> dict[str, Any]:
    """Return the measurements of all lengths; 0 stands for the utterances as they are.

    Args:
        exp: Experiment folder, or packed model.
        data_dir: ``wav.scp``, ``text``, ``utt2spk``.
        seconds: Lengths of the files; the first that is not 0 is what the others are compared with.
        repeats: Passes over all lengths.
        options: More options of ``transcribe``.
        sample_rate: Of the test set, in Hz.

    Raises:
        ValueError: If there is no length or pass, the test set cannot be used, or nothing or
            not all of it was transcribed.
    """
    if not any(seconds) or min(seconds) < 0 or repeats < 1:
        raise ValueError(
            f"--seconds {list(seconds)} --repeats {repeats}: lengths in seconds (0 = utterances as "
            "they are, and at least one other) and at least one pass are needed"
        )
    environment = environment_record()
    data = load_test_set(data_dir, sample_rate)
    with tempfile.TemporaryDirectory() as root:
        folders = {length: Path(root) / f"{length:g}" for length in seconds}
        refs = {length: write_files(data, length, folder) for length, folder in folders.items()}
        runs: dict[float, list[dict[str, float]]] = {length: [] for length in folders}
        for _, (length, folder) in itertools.product(range(repeats), folders.items()):
            print(f"transcribing: {len(refs[length])} files of {length:g} s", flush=True)
            runs[length].append(_transcribe(exp, folder, refs[length], options))
    first = next(length for length in seconds if length)
    base = statistics.median(run["ms_per_second"] for run in runs[first])
    return {
        "environment": finish_record(environment),
        "repeats": repeats,
        "rows": [_record(length, len(refs[length]), runs[length], base) for length in folders],
    }


def write_files(data: TestSet, seconds: float, folder: Path) -> dict[str, str]:
    """Write files of at least ``seconds`` of whole utterances, ``wav.scp`` and return their texts.

    Utterances come in order of their names, as often as one file needs; shorter files hold
    the set once (what is left at its end is a shorter file). 0 seconds: a file an utterance.
    """
    folder.mkdir(exist_ok=True)
    refs: dict[str, str] = {}
    part: list[Speech] = []
    turns = itertools.cycle(data.speech) if seconds > data.seconds else iter(data.speech)
    for utterance in itertools.chain(turns, [None]):
        if utterance is not None:
            part.append(utterance)
        if part and (utterance is None or sum(u.seconds for u in part) >= seconds):
            name = f"part{len(refs) + 1:05d}"
            with soundfile.SoundFile(folder / f"{name}.wav", "w", part[0].rate, 1, "PCM_16") as out:
                for spoken in part:
                    out.write(spoken.samples)
            refs[name] = " ".join(data.text[u.utt_id] for u in part)
            part = []
            if seconds > data.seconds:
                break
    lines = [f"{name} {folder / name}.wav" for name in refs]
    write_text(folder / "wav.scp", "\n".join([*lines, ""]))
    return refs


def long_audio_page(report: Mapping[str, Any]) -> str:
    """Return the report as markdown."""
    return page(
        "Long audio",
        describe(report["environment"]),
        markdown_table(HEADER, [_cells(row) for row in report["rows"]]),
        folded("How to read the table", NOTES.format(repeats=report["repeats"])),
        folded_command(report["command"]),
    )


def _transcribe(
    exp: Path, folder: Path, refs: Mapping[str, str], options: Sequence[str]
) -> dict[str, float]:
    """Run one process and return what it took and its error rates."""
    stats, log = folder / "stats.json", folder / "log"
    command = [sys.executable, "-m", "espnet_layerskip.cli", "transcribe", "--model", str(exp)]
    command += ["--wav-scp", str(folder / "wav.scp"), "--stats", str(stats), *options]
    with (folder / "text").open("w") as out, log.open("w") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ValueError(log.read_text(encoding="utf-8").strip().rpartition("\n")[2])
    took = json.loads(stats.read_text(encoding="utf-8"))
    lines = (folder / "text").read_text(encoding="utf-8").splitlines()
    hyps = {name: text for name, _, text in (line.partition(" ") for line in lines)}
    check_hypotheses(refs, hyps)
    counts = sum(score(refs, hyps, words).values(), Counts())
    return {
        "audio_seconds": took["audio_seconds"],
        "ms_per_second": 1000.0 * took["total_seconds"] / took["audio_seconds"],
        "memory_mb": usage.ru_maxrss / (1024.0 if sys.platform == "linux" else 1024.0**2),
        "wer": error_rate([counts]),
        "deleted": 100.0 * counts.deletions / counts.words,
    }


def _record(
    seconds: float, num_files: int, runs: Sequence[Mapping[str, float]], base: float
) -> dict[str, Any]:
    times = [run["ms_per_second"] for run in runs]
    return {
        "seconds": seconds,
        "files": num_files,
        **runs[0],
        "ms_per_second": statistics.median(times),
        "raw_ms_per_second": times,
        "relative": statistics.median(times) / base,
        "memory_mb": max(run["memory_mb"] for run in runs),
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    times = row["raw_ms_per_second"]
    return [
        f"{row['seconds']:g} s" if row["seconds"] else "one utterance",
        str(row["files"]),
        f"{row['audio_seconds']:.0f}",
        between(row["ms_per_second"], min(times), max(times)),
        f"{row['relative']:.2f}",
        f"{row['memory_mb']:.0f}",
        f"{row['wer']:.2f}",
        f"{row['deleted']:.2f}",
    ]


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="long_audio", description="Measure long audio")
    parser.add_argument("--exp", type=Path, required=True, help="Experiment folder, or zip")
    parser.add_argument("--data", type=Path, required=True, help="wav.scp, text and utt2spk")
    parser.add_argument("--output", type=Path, required=True, help="Folder to write into")
    parser.add_argument(
        "--seconds",
        type=float,
        nargs="+",
        default=[0, 10, 600, 3600],
        help="Lengths of the files, 0 = the utterances as they are [%(default)s]",
    )
    parser.add_argument("--repeats", type=int, default=3, help="Passes over all lengths [3]")
    parser.add_argument("--sample_rate", type=int, default=16000, help="Of the test set, in Hz")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Measure and write; ``cmd`` stands in for the command line's arguments."""
    argv = list(sys.argv[1:] if cmd is None else cmd)
    args, options = get_parser().parse_known_args(argv)
    report = measure_long_audio(
        args.exp, args.data, args.seconds, args.repeats, options, args.sample_rate
    )
    report["command"] = typed(["python", "local/long_audio.py", *argv])
    page = long_audio_page(report)
    write_text(args.output / "long_audio.json", json.dumps(report, indent=1) + "\n")
    write_text(args.output / "long_audio.md", page)
    print(page)


if __name__ == "__main__":
    run_main(main)
