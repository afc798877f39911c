"""Logs as ESPnet writes them."""

from __future__ import annotations

import math
from datetime import datetime

from espnet_layerskip.evaluation.training_log import TrainingLog, parse_log

AT = "[host] 2026-01-02 10:{:02d}:00,100 ({}) INFO: "
RESULTS = AT.format(5, "trainer:394") + (
    "3epoch results: [train] iter_time=0.007, loss_ctc=1.633, optim0_lr0=5.257e-05, "
    "time=1 minute and 29.27 seconds, total_count=2704, [valid] loss_att=nan, cer_ctc=0.121, "
    "time=3.69 seconds, total_count=112\n"
)
SAMPLER = AT.format(0, "abs_task:1885") + "[{}] Batch sampler: Unsorted(N-batch={}, x=1)\n"
STARTED = AT.format(1, "trainer:336") + "{}/6epoch started\n"
BATCH = AT.format(2, "trainer:811") + "{}epoch:train:1-{}batch: loss=1.5\n"
HEAD = SAMPLER.format("train", 400) + SAMPLER.format("valid", 7)


def test_results_of_an_epoch() -> None:
    assert parse_log("") == TrainingLog()
    found = parse_log("noise\n" + RESULTS).results
    assert list(found) == [3]
    assert found[3]["train"] == {
        "iter_time": 0.007,
        "loss_ctc": 1.633,
        "optim0_lr0": 5.257e-05,
        "total_count": 2704,
    }
    assert math.isnan(found[3]["valid"].pop("loss_att"))
    assert found[3]["valid"] == {"cer_ctc": 0.121, "total_count": 112}


def test_how_far_it_is() -> None:
    log = parse_log(HEAD + STARTED.format(3) + BATCH.format(3, 100))
    assert (log.first_epoch, log.epoch, log.max_epoch, log.share) == (3, 3, 6, 0.25)
    assert (log.began, log.last) == (datetime(2026, 1, 2, 10, 1), datetime(2026, 1, 2, 10, 2))
    log = parse_log(HEAD + STARTED.format(3) + BATCH.format(3, 400) + RESULTS + "other\n")
    assert (log.share, log.last) == (1.0, datetime(2026, 1, 2, 10, 5))
    log = parse_log(HEAD + STARTED.format(3) + BATCH.format(3, 400) + STARTED.format(4))
    assert (log.first_epoch, log.epoch, log.share, log.finished) == (3, 4, 0.0, False)


def test_the_end() -> None:
    for end in (
        AT.format(9, "trainer:534") + "The training was finished at 6 epochs",
        "[host] 2026-01-02 10:00:00,100 (trainer:203) WARNING: The training has already reached "
        "at max_epoch: 7",
    ):
        assert parse_log(HEAD + end).finished
