"""One line on trainings that run: the epoch, the error rate so far, the time left.

Example::

    python -m espnet_layerskip.recipe.training_progress exp/asr_conformer exp/asr_layerskip
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from espnet_layerskip.evaluation.training_log import parse_log
from espnet_layerskip.files import run_main
from espnet_layerskip.recipe.progress import duration


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


def read_state(text: str, now: datetime) -> TrainingState:
    """Read the state off the training log of this run (an earlier run has a log of its own).

    Args:
        text: Of train.log.
        now: Local time, as in the log.
    """
    log = parse_log(text)
    rates = [parts.get("valid", {}).get("cer_ctc", math.nan) for parts in log.results.values()]
    cer = next((rate for rate in reversed(rates) if math.isfinite(rate)), None)
    if log.finished:
        return TrainingState(log.epoch, log.max_epoch, cer, 0.0, True)
    progress = log.epoch - log.first_epoch + log.share
    left = None
    if log.began and log.last and progress > 0:
        # A line comes only now and then: up to it, not up to now, the share is known.
        spent = (log.last - log.began).total_seconds()
        whole = spent / progress * (log.max_epoch - log.first_epoch + 1)
        left = max(0.0, whole - spent - (now - log.last).total_seconds())
    return TrainingState(log.epoch, log.max_epoch, cer, left)


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
