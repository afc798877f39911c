from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from espnet_layerskip.evaluation.flops import counted
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.open_model import open_model
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.evaluation.trial import (
    ENCODER,
    FULL,
    STOCK,
    WAVE,
    TrialResult,
    find_ceiling,
    time_rows,
    timed_speech,
)
from espnet_layerskip.method.settings import OFF, SkipSettings


@pytest.fixture(scope="module")
def opened(stock_exps):
    return open_model(stock_exps.trained)


@pytest.fixture(scope="module")
def full(opened):
    return System(opened, OFF)


def test_the_ceiling_is_counted(opened, full, data):
    found = find_ceiling(opened, full, data.speech[:2], None)
    assert (found.layer, found.layers, found.trained) == (1, 4, True)
    stopped = System(opened, SkipSettings(1.0, exit_layer=1))
    flops = {
        system: sum(counted(partial(system.encode, system.batch([s])))[1] for s in data.speech[:2])
        for system in (stopped, full)
    }
    assert found.stem + found.lower == pytest.approx(flops[stopped] / flops[full])
    assert min(found.stem, found.lower) > 0.0
    assert found.left == 1.0 - found.blank * (1.0 - found.stem - found.lower)
    assert 0.2 < found.blank < 0.8  # the weights are made so
    picked = SimpleNamespace(trial=SimpleNamespace(settings=SkipSettings(0.9, gates_in_use=(2,))))
    higher = find_ceiling(opened, full, data.speech[:2], picked)
    assert higher.layer == 2
    assert higher.lower == pytest.approx(2 * found.lower)


def test_rows_are_timed_in_all_scopes(opened, full, data):
    times = time_rows({STOCK: opened.stock(), FULL: full}, data.speech[:2], (ENCODER, WAVE), 5)
    assert [list(rows) for rows in times.values()] == [[STOCK, FULL]] * 2
    assert all(len(taken) == 5 for rows in times.values() for taken in rows.values())
    assert min(times[WAVE][FULL]) > min(times[ENCODER][FULL]) > 0


def test_a_ratio_is_that_of_the_medians():
    times = {ENCODER: {STOCK: [4.0, 8.0, 6.0], FULL: [2.0, 2.0, 4.0]}}
    found = TrialResult(None, None, "wer", times, 1.0)
    assert found.speedup(ENCODER, FULL) == (3.0, 1.5, 4.0)
    assert found.speedup(ENCODER, FULL, FULL) == (1.0, 1.0, 1.0)


def test_what_is_too_short_is_not_timed(full, data):
    short = Speech("short", np.zeros(300, np.float32), 16000)
    found = timed_speech(full, [short, *data.speech])
    assert "short" not in {s.utt_id for s in found}
    assert len(found) == len(data.speech)
    with pytest.raises(ValueError, match="all of 1 utterances are too short"):
        timed_speech(full, [short])
