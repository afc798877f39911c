"""One line on trainings that run: the epoch, the error rate so far, the time left.

Example::

    python -m espnet_layerskip.recipe.training_progress exp/asr_conformer exp/asr_layerskip
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from espnet_layerskip.files import run_main
from espnet_layerskip.recipe.progress import duration

# What ESPnet's trainer logs.
TIME = re.compile(r"^\[[^\]]*\] (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ ", re.M)
STARTED = re.compile(r"^.* INFO: (\d+)/(\d+)epoch started", re.M)
BATCHES = re.compile(r"\[train\] Batch sampler: .*N-batch=(\d+)")
BATCH = re.compile(r" INFO: (\d+)epoch:train:\d+-(\d+)batch:")
CER = re.compile(r"epoch results: .*\[valid\].*?\bcer_ctc=([\d.]+)")
FINISHED = re.compile(r"The training was finished|has already reached")


@dataclass(frozen=True)
class TrainingState:
    """Where a training is.

    Attributes:
        epoch: The epoch that runs, from 1; 0 = not begun.
        max_epoch: The last epoch.
        cer: Character error rate of the validation set after the last whole epoch.
        seconds_left: None where there is nothing yet to tell it from.
        finished: Whether the last epoch is done.
    """

    epoch: int = 0
    max_epoch: int = 0
    cer: float | None = None
    seconds_left: float | None = None
    finished: bool = False

    def describe(self) -> str:
        """Return the state in words, without the time left."""
        cer = "" if self.cer is None else f", dev CER {100 * self.cer:.1f} %"
        if self.finished:
            return f"finished{cer}"
        return f"epoch {self.epoch} of {self.max_epoch}{cer}" if self.epoch else "starting"


def read_state(log: str, now: datetime) -> TrainingState:
    """Read the state off the training log of this run (an earlier run has a log of its own).

    Args:
        log: The text of train.log.
        now: Local time, as in the log.
    """
    rates = CER.findall(log)
    cer = float(rates[-1]) if rates else None
    epochs = [(int(m[1]), int(m[2])) for m in STARTED.finditer(log)]
    if FINISHED.search(log):
        return TrainingState(*(epochs[-1] if epochs else (0, 0)), cer, 0.0, True)
    if not epochs:
        return TrainingState(cer=cer)
    epoch, max_epoch = epochs[-1]
    batches, done = BATCHES.search(log), BATCH.findall(log)
    share = 0.0
    if batches and done and int(done[-1][0]) == epoch:
        share = min(1.0, int(done[-1][1]) / int(batches[1]))
    first = STARTED.search(log)
    began = TIME.search(first[0]) if first else None
    progress = epoch - epochs[0][0] + share
    left = None
    if began and progress > 0:
        # A line comes only now and then: up to it, not up to now, the share is known.
        last = TIME.findall(log[: log.rfind("epoch")])[-1]
        known = datetime.fromisoformat(last)
        spent = (known - datetime.fromisoformat(began[1])).total_seconds()
        whole = spent / progress * (max_epoch - epochs[0][0] + 1)
        left = max(0.0, whole - spent - (now - known).total_seconds())
    return TrainingState(epoch, max_epoch, cer, left)


def progress_line(states: dict[str, TrainingState]) -> str:
    """Return one line on all trainings, with the time that the slowest needs."""
    line = "; ".join(f"{name}: {state.describe()}" for name, state in states.items())
    left = [state.seconds_left for state in states.values()]
    known = [seconds for seconds in left if seconds is not None]
    if all(state.finished for state in states.values()) or len(known) < len(left):
        return line
    return f"{line}; about {duration(max(known))} left"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Print where trainings are")
    parser.add_argument("exps", type=Path, nargs="+", help="Directories of experiments")
    args = parser.parse_args()
    states = {}
    for exp in args.exps:
        log = exp / "train.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        states[exp.name.removeprefix("asr_")] = read_state(text, datetime.now())
    print(progress_line(states), flush=True)


if __name__ == "__main__":
    run_main(main)
