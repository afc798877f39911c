#!/usr/bin/env python3
"""Kill the recipes' stages at random moments, run the same command again, compare the results.

    .venv/bin/python tools/fault_check.py --kills 30 --seed 1       # the seed is printed
    .venv/bin/python tools/fault_check.py --recipe an4 --only disk

A tiny corpus goes through the stages of asr.sh in an undisturbed run. Then, each in a directory of
its own:

- kill: in each stage a random process of it (the script, one program, or all of them) is killed
  with SIGKILL, and the same command is run again. No epoch may be trained more than once again.
- gone: what a stage has made is deleted, and the same command is run again.
- hup: SIGHUP to every process of a training that nohup has started.
- two: two runs in one directory.
- disk: a disk that gets full in each stage (a small tmpfs: needs root), then one with space again.
- readonly: a file system that cannot be written (the same).

The result has to be that of the undisturbed run, file by file. Status 1 says that one was not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml

REPO = Path(__file__).resolve().parents[1]
STAGES = (1, 2, 3, 4, 5, 10, 11, 12, 13, 14)
EPOCHS = 4
WORDS = ["YES", "NO", "GO HOME", "STOP", "ONE TWO"]
SECONDS = 0.6  # of an utterance
TINY = {
    "encoder": "layerskip_conformer",
    "encoder_conf": {
        "output_size": 16,
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 2,
        "cnn_module_kernel": 7,
        "rel_pos_type": "latest",
        "gate_layer_idx": [1],
        # a training that goes on does not draw the same random numbers again
        "dropout_rate": 0.0,
        "positional_dropout_rate": 0.0,
        "attention_dropout_rate": 0.0,
    },
    "model": "layerskip",
    "model_conf": {"ctc_weight": 1.0, "interctc_weight": 0.3},
    "frontend_conf": {"n_fft": 256, "hop_length": 160, "n_mels": 20},
    "optim": "adam",
    "batch_type": "unsorted",
    "batch_size": 3,
    "max_epoch": EPOCHS,
    "num_workers": 0,
    "keep_nbest_models": 2,
    "use_matplotlib": False,
    "use_tensorboard": False,
    "best_model_criterion": [["valid", "loss", "min"]],
}
SILENT = (
    *("logdir", ".lock", "run.sh", "train.log", "pack.log", "images", "tensorboard"),
    "made",  # the journal of espeak's corpus: in the order in which it was made
)
GONE = {  # what each stage makes
    1: ["data/t*[tv]/wav.scp"],
    2: ["data/*_sp"],
    3: ["dump/raw/org", "dump/raw/test"],
    4: ["dump/raw/train*"],
    5: ["data/*token_list"],
    10: ["exp/asr_stats*"],
    11: ["exp/asr_tiny/valid.loss.ave*"],
    12: ["exp/asr_tiny/greedy/test/logdir/output.1"],
    13: ["exp/asr_tiny/RESULTS.md"],
    14: ["exp/asr_tiny/*.zip"],
}
FULL = re.compile("No space left on device|disk is full")


class Recipe:
    """A recipe in a directory of its own, on a tiny corpus.

    Args:
        name: an4 or espeak.
        corpus: AN4's layout, of noise; for an4.
        python: Stands for python3.
    """

    def __init__(self, name: str, corpus: Path, python: Path):
        self.name, self.corpus, self.python = name, corpus, python

    def make(self, directory: Path) -> Path:
        """Make an empty directory of the recipe; return it."""
        directory.mkdir(parents=True, exist_ok=True)
        source = REPO / "egs2" / self.name / "asr1"
        for part in ("asr.sh", "cmd.sh", "path.sh", "utils", "run.sh", "local", "conf"):
            (directory / part).symlink_to(source / part)
        (directory / "tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
        return directory

    def start(
        self, where: Path, first: int, last: int, out: Path, **how: object
    ) -> subprocess.Popen[bytes]:
        """Start stages; both streams go to a file."""
        own = {
            "an4": ["--an4_root", str(self.corpus), "--speed_perturb_factors", "0.9 1.0",
                    "--test_sets", "test", "--local_data_opts",
                    f"--an4_root {self.corpus} --ndev_utt 2 --num_train 0 --num_test 0"],
            "espeak": ["--size", "smoke", "--test_sets", "test", "--calibration_set", ""],
        }[self.name]  # fmt: skip
        command = ["./run.sh", *own, "--python", str(self.python), "--nj", "1", "--ngpu", "0",
                   "--asr_config", "tiny.yaml", "--asr_tag", "tiny", "--inference_tag", "greedy",
                   "--inference_config", "", "--inference_args", "--decoder_type greedy "
                   "--blank_threshold off",
                   "--inference_asr_model", "valid.loss.ave.pth", "--inference_nj", "2",
                   "--stage", str(first), "--stop_stage", str(last)]  # fmt: skip
        with out.open("ab") as stream:
            return subprocess.Popen(
                command, cwd=where, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True, **how,  # type: ignore[call-overload]
            )  # fmt: skip

    def run(self, where: Path, first: int, last: int | None = None) -> tuple[int, str, float]:
        """Run stages to their end; return the status, what was said, and the seconds."""
        with tempfile.NamedTemporaryFile() as out:
            begin = time.monotonic()
            status = self.start(where, first, last or first, Path(out.name)).wait(900)
            said = Path(out.name).read_text(encoding="utf-8", errors="replace")
            return status, said, time.monotonic() - begin


def make_corpus(root: Path) -> Path:
    """Write AN4's layout: 8 utterances for training, 3 for the test."""
    draw = np.random.default_rng(0)
    (root / "etc").mkdir(parents=True)
    for part, count, folder in (("train", 8, "an4_clstk"), ("test", 3, "an4test_clstk")):
        ids, lines = [], []
        for i in range(count):
            name = f"an{i}-f{part[:2]}{i % 2}-b"
            file = root / "wav" / folder / name.split("-")[1] / f"{name}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = draw.normal(0.0, 0.1, int(SECONDS * 16000)).astype(np.float32)
            soundfile.write(str(file), noise, 16000, subtype="PCM_16")
            words = WORDS[i % len(WORDS)]
            ids.append(str(file.relative_to(root / "wav").with_suffix("")))
            lines.append(f"<s> {words} </s> ({name})" if part == "train" else f"{words} ({name})")
        (root / f"etc/an4_{part}.fileids").write_text("\n".join(ids) + "\n")
        (root / f"etc/an4_{part}.transcription").write_text("\n".join(lines) + "\n")
    return root


def results(where: Path) -> dict[str, object]:
    """Return what a recipe has made, file by file, in a form that can be compared."""
    found: dict[str, object] = {}
    for top in ("data", "dump", "exp", "downloads"):
        for path in sorted((where / top).rglob("*")):
            if not path.is_file() or any(part.startswith(SILENT) for part in path.parts[-3:]):
                continue
            if re.fullmatch(r"train\.\d+\.log", path.name) or path.suffix == ".log":
                continue
            if re.fullmatch(r"\d+epoch\.pth", path.name):
                continue  # of these only the best are kept, at the end of an epoch
            found[str(path.relative_to(where))] = content(path)
    return found


def content(path: Path) -> object:
    """Return the content of a file; of checkpoints the parameters and the epoch only."""
    if path.suffix == ".pth":
        state = torch.load(path, map_location="cpu", weights_only=False)
        epoch = state["reporter"]["epoch"] if "reporter" in state else None
        return epoch, {k: v.tolist() for k, v in (state["model"] if epoch else state).items()}
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tolist() for name in arrays}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as packed:
            if packed.testzip() is not None:
                return "damaged"
            return sorted(packed.namelist())
    if path.name == "RESULTS.md":
        return [line for line in path.read_text().splitlines() if line.startswith("|")]
    # where the audio is: a copied directory names the one that it was copied from
    return re.sub(rb"/[^ \n]*/(an4|espeak)_\w+", b".", path.read_bytes())


def differences(reference: dict[str, object], where: Path) -> list[str]:
    """Return the files that are not as in the undisturbed run."""
    try:
        found = results(where)
    except Exception as e:
        return [f"a file cannot be read: {type(e).__name__}: {e}"]
    names = sorted(reference.keys() | found.keys())
    wrong = [n for n in names if n not in reference or n not in found or reference[n] != found[n]]
    return [
        f"{n} ({'more' if n not in reference else 'missing' if n not in found else 'differs'})"
        for n in wrong
    ]


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        todo_now = children.get(todo.pop(), [])
        found += todo_now
        todo += todo_now
    return found


def epochs_started(where: Path) -> list[int]:
    """Return the epochs that trainings have started, in any order, from all logs."""
    logs = (where / "exp/asr_tiny").glob("train*.log")
    text = "".join(log.read_text(errors="replace") for log in logs)
    return [int(n) for n in re.findall(r"(\d+)/\d+epoch started", text)]


class Check:
    """The checks of one recipe.

    Args:
        recipe: The recipe.
        top: Where directories are made.
        draw: Where random choices come from.
    """

    def __init__(self, recipe: Recipe, top: Path, draw: random.Random):
        self.recipe, self.top, self.draw = recipe, top, draw
        self.seconds: dict[int, float] = {}
        self.failures: list[str] = []
        self.kills = 0

    def fail(self, what: str, said: str = "") -> None:
        """Note a fault."""
        self.failures.append(f"{self.recipe.name}: {what}")
        print(f"FAULT {self.recipe.name}: {what}\n{said[-3000:]}", flush=True)

    def reference(self) -> None:
        """Run all stages undisturbed."""
        self.done = self.recipe.make(self.top / f"{self.recipe.name}_done")
        for stage in STAGES:
            status, said, self.seconds[stage] = self.recipe.run(self.done, stage)
            if status:
                raise ValueError(f"{self.recipe.name}: stage {stage} failed undisturbed:\n{said}")
        self.expected = results(self.done)
        print(f"{self.recipe.name}: undisturbed {self.seconds}", flush=True)

    def compare(self, what: str, where: Path, said: str = "") -> None:
        """Note where the result is another one."""
        if wrong := differences(self.expected, where):
            self.fail(f"{what}: {wrong[:8]}", said)

    def kill(self, rounds: int) -> None:
        """Kill a process in each stage, and run the stage again."""
        for number in range(rounds):
            where = self.recipe.make(self.top / f"{self.recipe.name}_kill{number}")
            said_all, training = "", 0
            for stage in STAGES:
                if stage == 2 and self.seconds[stage] < 0.2:
                    status, said, _ = self.recipe.run(where, stage)
                    continue
                times = 2 if stage == 11 else 1
                for _ in range(times):
                    what = self._kill_once(where, stage)
                    training += stage == 11
                    print(f"{self.recipe.name} round {number}: stage {stage}: {what}", flush=True)
                status, said, _ = self.recipe.run(where, stage)
                said_all += said
                if status:
                    self.fail(f"stage {stage} after {what}: status {status}", said)
            started = epochs_started(where)
            if len(started) > EPOCHS + training:
                self.fail(f"epochs started with {training} kills: {started}")
            self.compare(f"kill, round {number}", where, said_all)
            if left := [str(p) for p in where.rglob("*partial*") if "logdir" not in str(p)]:
                self.fail(f"half-written files are left: {left}")
            shutil.rmtree(where)

    def _kill_once(self, where: Path, stage: int) -> str:
        kind = self.draw.choice(["script", "one", "all"])
        after = self.draw.uniform(0.05, 1.0) * self.seconds[stage]
        with tempfile.NamedTemporaryFile() as out:
            process = self.recipe.start(where, stage, stage, Path(out.name))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(after)
                return f"ended before {after:.2f} s"
            others = descendants(process.pid)
            victims = {"script": [process.pid], "all": [process.pid, *others]}.get(kind) or [
                self.draw.choice(others or [process.pid])
            ]
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.kills += 1
            process.wait(900)
        return f"killed {kind} ({len(victims)} of {1 + len(others)}) after {after:.2f} s"

    def without(self, stage: int, name: str, top: Path | None = None) -> Path:
        """Return a copy of the undisturbed run without what one stage has made."""
        where = (top or self.top) / f"{self.recipe.name}_{name}"
        shutil.copytree(self.done, where, symlinks=True)
        for path in [p for pattern in GONE[stage] for p in where.glob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return where

    def gone(self) -> None:
        """Delete what a stage has made, and run the same command again."""
        for stage in STAGES:
            where = self.without(stage, "gone")
            status, said, _ = self.recipe.run(where, stage)
            if status:
                self.fail(f"stage {stage}, its output gone: status {status}", said)
            self.compare(f"stage {stage}, its output gone", where, said)
            shutil.rmtree(where)
        print(f"{self.recipe.name}: gone: {len(STAGES)} stages", flush=True)

    def hup(self) -> None:
        """Send SIGHUP to every process of a training that ignores it."""
        where = self.without(11, "hup")
        shutil.rmtree(where / "exp/asr_tiny")
        with tempfile.NamedTemporaryFile() as out:
            process = self.recipe.start(
                where, 11, 14, Path(out.name),
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
            )  # fmt: skip
            for _ in range(8):
                time.sleep(self.seconds[11] / 8)
                for pid in [process.pid, *descendants(process.pid)]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGHUP)
            status, said = process.wait(900), Path(out.name).read_text(errors="replace")
        if status:
            self.fail(f"SIGHUP under nohup: status {status}", said)
        self.compare("SIGHUP under nohup", where, said)
        shutil.rmtree(where)
        print(f"{self.recipe.name}: hup: status {status}", flush=True)

    def two(self) -> None:
        """Start the same stages twice at the same time."""
        where = self.without(10, "two")
        shutil.rmtree(where / "exp/asr_tiny")
        with tempfile.NamedTemporaryFile() as one, tempfile.NamedTemporaryFile() as other:
            both = [self.recipe.start(where, 10, 14, Path(o.name)) for o in (one, other)]
            statuses = [process.wait(1800) for process in both]
            said = "".join(Path(o.name).read_text(errors="replace") for o in (one, other))
        if any(statuses):
            self.fail(f"two runs: statuses {statuses}", said)
        if "Another run works on" not in said:
            self.fail("two runs: neither says that there is another", said)
        self.compare("two runs", where, said)
        shutil.rmtree(where)
        print(f"{self.recipe.name}: two: statuses {statuses}", flush=True)

    def disk(self) -> None:
        """Run each stage on a disk that gets full, then with space; and one that is read-only."""
        for stage in STAGES:
            if self.recipe.name == "espeak" and stage in (1, 2):
                continue  # stage 1 makes the corpus: tests/recipe/test_espeak.py; there is no 2
            if stage == 14:
                continue  # ESPnet's own program
            with small_disk(self.top) as (disk, read_only):
                if disk is None:
                    print(f"{self.recipe.name}: disk, readonly: not run, tmpfs cannot be mounted")
                    return
                where = self.without(stage, "disk", disk)
                if stage == 11:
                    for path in (where / "exp/asr_tiny").glob("*.pth"):
                        path.unlink()
                free = shutil.disk_usage(disk).free
                filler = disk / "filler"
                left = self.draw.randrange(0, 6) * 4096
                filler.write_bytes(b"\0" * max(0, free - left))
                status, said, _ = self.recipe.run(where, stage)
                filler.unlink()
                if status == 0:
                    print(f"{self.recipe.name}: disk: stage {stage} needs less than {left} bytes")
                elif not FULL.search(said):
                    self.fail(f"disk full in stage {stage}, and it is not said", said)
                elif "cannot be used" in said or "cannot be decoded" in said:
                    self.fail(f"disk full in stage {stage} is taken for broken audio", said)
                status, said, _ = self.recipe.run(where, stage)
                if status:
                    self.fail(f"stage {stage} after a full disk: status {status}", said)
                self.compare(f"disk full in stage {stage}", where, said)
                read_only(True)
                status, said, _ = self.recipe.run(where, stage)
                read_only(False)
                if status == 0 or "Read-only file system" not in said or "Traceback" in said:
                    self.fail(f"stage {stage} on a read-only disk: status {status}", said)
        print(f"{self.recipe.name}: disk, readonly: done", flush=True)


@contextlib.contextmanager
def small_disk(top: Path) -> Iterator[tuple[Path | None, object]]:
    """Give a file system of its own, and a function that makes it read-only or writable."""
    disk = top / "disk"
    disk.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=False)
    if mounted.returncode:
        yield None, None
        return

    def read_only(yes: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,{'ro' if yes else 'rw'}", disk], check=True)

    try:
        yield disk, read_only
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def main() -> int:
    """Run the checks; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--recipe", choices=("an4", "espeak", "both"), default="both")
    parser.add_argument("--kills", type=int, default=30, help="at least so many, over all recipes")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments")
    parser.add_argument("--only", help="some of kill, gone, hup, two, disk; joined by commas")
    options = parser.parse_args()
    names = ("an4", "espeak") if options.recipe == "both" else (options.recipe,)
    wanted = (options.only or "kill,gone,hup,two,disk").split(",")
    sys.path.insert(0, str(REPO))
    from tests.support.forking_python import forking_python

    print(f"seed {options.seed}", flush=True)
    failures, kills = [], 0
    with tempfile.TemporaryDirectory(prefix="faults") as directory:
        top = Path(directory)
        corpus = make_corpus(top / "corpus")
        with forking_python(top) as python:
            for name in names:
                check = Check(Recipe(name, corpus, python), top, random.Random(options.seed))
                check.reference()
                rounds = -(-options.kills // (len(names) * (len(STAGES) - (name == "espeak"))))
                for what in wanted:
                    getattr(check, what)(*([rounds] if what == "kill" else []))
                failures += check.failures
                kills += check.kills
    print(f"seed {options.seed}: {kills} kills, {len(failures)} faults", *failures, sep="\n  ")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
