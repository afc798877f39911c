import dataclasses

import numpy as np
import pytest

from espnet_layerskip.evaluation.report.gate_accuracy import (
    calibration_error,
    precision_and_recall,
    reliability,
)


def with_frames(trace, prob, final, seen=None):
    prob = np.array(prob, np.float32)
    seen = np.ones(len(prob), bool) if seen is None else np.array(seen)
    gate = dataclasses.replace(trace.gates[0], blank_prob=prob, seen=seen)
    return dataclasses.replace(trace, gates=[gate], final_is_blank=np.array(final))


def test_precision_and_recall_by_hand(traces):
    a = with_frames(traces[0], [0.95, 0.95, 0.2, 0.5], [True, False, True, False])
    b = with_frames(traces[1], [0.99, 0.91], [True, True])
    precision, recall = precision_and_recall([a, b], 0, 0.9)
    assert precision.difference == pytest.approx(75.0)
    assert recall.difference == pytest.approx(75.0)
    assert precision.low <= 75.0 <= precision.high
    assert precision_and_recall([a, b], 0, 0.995)[0] is None


def test_frames_that_a_lower_gate_dropped_and_nan_do_not_count(traces):
    one = with_frames(
        traces[0], [0.95, 0.95, np.nan], [True, False, True], seen=[True, False, True]
    )
    precision, _ = precision_and_recall([one], 0, 0.9)
    assert precision.difference == pytest.approx(100.0)


def test_reliability_by_hand(traces):
    one = with_frames(traces[0], [0.05, 0.05, 1.0, 0.95], [False, True, True, True])
    bins = reliability([one], 0)
    assert [b.num_frames for b in bins] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert bins[0].blank.difference == pytest.approx(50.0)
    assert bins[9].blank.difference == pytest.approx(100.0)
    assert bins[9].mean_prob == pytest.approx(0.975)
    assert bins[5].blank is None
    assert calibration_error(bins) == pytest.approx((2 * 45.0 + 2 * 2.5) / 4, abs=1e-4)
