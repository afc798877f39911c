"""What ESPnet's ``train.log`` says of a training: its epochs, their results, and how far it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

_TIME = re.compile(r"\[[^\]]*\] (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ ")
_STARTED = re.compile(r"INFO: (\d+)/(\d+)epoch started")
_NUM_BATCHES = re.compile(r"\[train\] Batch sampler: .*N-batch=(\d+)")
_BATCH = re.compile(r"INFO: (\d+)epoch:train:\d+-(\d+)batch:")
_RESULTS = re.compile(r"INFO: (\d+)epoch results: (.*)")
_PART = re.compile(r"\[(train|valid)\] (.*?)(?=\[(?:train|valid)\] |\[att_plot\]|$)")
_VALUE = re.compile(r"([\w.]+)=([-+\d.einfa]+)(?=,|$)")
_FINISHED = re.compile(r"The training was finished|has already reached")


@dataclass
class TrainingLog:
    """One start of a training.

    Attributes:
        first_epoch: The epoch that it began with, from 1; 0 = none has begun.
        epoch: The epoch that began last; 0 = none has.
        max_epoch: The epoch that it is to end with; 0 = not known.
        share: Part of the batches of ``epoch`` that is done, 0 to 1, as far as it was logged.
        began: Local time at which the first epoch began.
        last: Local time of the last line that tells how far the training is.
        finished: Whether the last epoch is done.
        results: {epoch: {"train" or "valid": {name: value}}}; a value may be NaN.
    """

    first_epoch: int = 0
    epoch: int = 0
    max_epoch: int = 0
    share: float = 0.0
    began: datetime | None = None
    last: datetime | None = None
    finished: bool = False
    results: dict[int, dict[str, dict[str, float]]] = field(default_factory=dict)


def parse_log(text: str) -> TrainingLog:
    """Read the text of a log (each start of a training has a log of its own).

    Example:
        >>> parse_log("INFO: 3epoch results: [train] loss=2.5, time=1 s, [valid] cer=0.1").results
        {3: {'train': {'loss': 2.5}, 'valid': {'cer': 0.1}}}
    """
    log, num_batches = TrainingLog(), 0
    for line in text.splitlines():
        if found := _STARTED.search(line):
            log.epoch, log.max_epoch, log.share = int(found[1]), int(found[2]), 0.0
            log.first_epoch = log.first_epoch or log.epoch
            log.began = log.began or _time(line)
        elif found := _BATCH.search(line):
            if num_batches and int(found[1]) == log.epoch:
                log.share = min(1.0, int(found[2]) / num_batches)
        elif found := _RESULTS.search(line):
            log.results[int(found[1])] = {
                part: {name: float(value) for name, value in _VALUE.findall(values)}
                for part, values in _PART.findall(found[2])
            }
        else:
            if found := _NUM_BATCHES.search(line):
                num_batches = num_batches or int(found[1])
            log.finished = log.finished or _FINISHED.search(line) is not None
            continue
        log.last = _time(line) or log.last
    return log


def _time(line: str) -> datetime | None:
    found = _TIME.match(line)
    return datetime.fromisoformat(found[1]) if found else None
