import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_layerskip.method.gate import BlankGate
from espnet_layerskip.method.repeats import RepeatGate

probs = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=30), min_size=1, max_size=4)


def padded(rows):
    width = max(map(len, rows))
    prob = torch.zeros(len(rows), width)
    valid = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        prob[i, : len(row)] = torch.tensor(row)
        valid[i, : len(row)] = True
    return prob, valid


def reference(row, threshold, left, right, min_ratio):
    """The definition, frame by frame."""
    spikes = [not p > threshold for p in torch.tensor(row).tolist()]
    if sum(spikes) < min_ratio * len(row):
        return [True] * len(row)
    return [any(spikes[max(0, t - right) : t + left + 1]) for t in range(len(row))]


@given(
    probs,
    st.sampled_from([0.25, 0.5, 0.9, 1.0]),
    st.integers(0, 4),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.02, 0.3]),
)
def test_gate_is_its_definition_for_each_utterance_of_a_batch(rows, threshold, left, right, ratio):
    prob, valid = padded(rows)
    keep = BlankGate(threshold, (left, right), ratio)(prob, valid)
    for i, row in enumerate(rows):
        assert keep[i, : len(row)].tolist() == reference(row, threshold, left, right, ratio)
        assert not keep[i, len(row) :].any()


def test_a_frame_at_the_threshold_goes_on():
    prob = torch.tensor([[0.5, 0.5000001, 0.4]])
    keep = BlankGate(0.5, (0, 0), 0.0)(prob, torch.ones(1, 3, dtype=torch.bool))
    assert keep.tolist() == [[True, False, True]]


def test_threshold_one_keeps_everything():
    gate = BlankGate(1.0, (0, 0), 0.0)
    assert gate.is_off
    assert gate(torch.ones(1, 4), torch.ones(1, 4, dtype=torch.bool)).all()


def test_nan_posteriors_go_on():
    prob = torch.tensor([[math.nan, 0.99, math.nan]])
    keep = BlankGate(0.9, (0, 0), 0.0)(prob, torch.ones(1, 3, dtype=torch.bool))
    assert keep.tolist() == [[True, False, True]]


def test_an_utterance_without_spikes_runs_at_full_depth_and_its_neighbour_still_skips():
    prob = torch.full((2, 100), 0.99)
    prob[1, ::10] = 0.1
    keep = BlankGate(0.9, (0, 0), 0.02)(prob, torch.ones(2, 100, dtype=torch.bool))
    assert keep.sum(1).tolist() == [100, 10]


def test_extension_does_not_reach_into_padding():
    prob = torch.tensor([[0.99, 0.1, 0.0, 0.0]])
    valid = torch.tensor([[True, True, False, False]])
    assert BlankGate(0.9, (0, 3))(prob, valid).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("value", [0.0, -0.1, 1.01, "1.9", True])
def test_threshold_out_of_range(value):
    with pytest.raises(ValueError, match=r"blank_threshold must be a number in \(0, 1\].*got"):
        BlankGate(value)


@pytest.mark.parametrize("value", [(1,), (1, -1), (1, 2, 3), (0.5, 1), "11", 1, (True, 1)])
def test_extension_out_of_range(value):
    with pytest.raises(ValueError, match="spike_extension must be two integers >= 0.*got"):
        BlankGate(0.9, value)


def test_min_spike_ratio_out_of_range():
    with pytest.raises(ValueError, match=r"min_spike_ratio must be in \[0, 1\], but got 2"):
        BlankGate(0.9, (1, 1), 2)


def reference_peaks(labels, probs, blanks, gate):
    """The definition of repeats, run by run: (spikes without repeats, who speaks for whom)."""
    spikes = [not b > gate.blank_threshold for b in blanks]
    sure = [s and p > gate.repeat_threshold for s, p in zip(spikes, probs, strict=True)]
    peaks, start = list(range(len(labels))), 0
    while start < len(labels):
        stop = start + 1
        while sure[start] and stop < len(labels) and sure[stop] and labels[stop] == labels[start]:
            stop += 1
        best = max(range(start, stop), key=lambda t: (probs[t], -t))
        for t in range(start, stop):
            spikes[t] &= t == best
            peaks[t] = best
        start = stop
    return spikes, peaks


frame = st.tuples(
    st.integers(1, 3), st.sampled_from([0.3, 0.6, 0.8, 0.95]), st.sampled_from([0.05, 0.5, 0.95])
)


@given(
    st.lists(st.lists(frame, min_size=1, max_size=20), min_size=1, max_size=3),
    st.sampled_from([0.5, 0.7]),
    st.integers(0, 1),
    st.integers(0, 1),
)
def test_repeats_are_their_definition_for_each_utterance_of_a_batch(rows, threshold, left, right):
    gate = RepeatGate(0.9, (left, right), 0.0, threshold)
    (label, valid), (prob, _), (blank, _) = (
        padded([[f[i] for f in r] for r in rows]) for i in range(3)
    )
    trace = gate.decide(4, (blank, label.long(), prob), valid, None)
    keep, peak = trace.keep_mask, trace.speaker
    for i, row in enumerate(rows):
        labels, probs, blanks = (list(column) for column in zip(*row, strict=True))
        spikes, peaks = reference_peaks(labels, torch.tensor(probs).tolist(), blanks, gate)
        kept = [any(spikes[max(0, t - right) : t + left + 1]) for t in range(len(row))]
        assert keep[i, : len(row)].tolist() == kept
        speaks = [
            next((s for s in range(t, p, 1 if t < p else -1) if kept[s]), p)
            for t, p in enumerate(peaks)
        ]
        assert peak[i, : len(row)].tolist() == speaks
        assert all(kept[s] or blanks[s] > 0.9 for s in speaks)
        assert not keep[i, len(row) :].any()


def test_repeats_count_for_the_fallback():
    gate = RepeatGate(0.9, (0, 0), 0.5, 0.5)
    seen = torch.zeros(1, 4), torch.ones(1, 4).long(), torch.full((1, 4), 0.9)
    trace = gate.decide(2, seen, torch.ones(1, 4, dtype=torch.bool), None)
    assert trace.keep_mask.tolist() == [[True, False, False, False]]
    assert trace.speaker.tolist() == [[0, 0, 0, 0]]


def test_repeats_are_kept_by_a_blank_gate():
    gate = BlankGate(0.9, (0, 0), 0.0)
    trace = gate.decide(2, (torch.zeros(1, 4),), torch.ones(1, 4, dtype=torch.bool), None)
    assert trace.keep_mask.all()
    assert trace.speaker is None
    with pytest.raises(ValueError, match=r"repeat_threshold must be a number in \(0, 1\].*got 2"):
        RepeatGate(repeat_threshold=2)


def test_what_an_earlier_gate_dropped_stays_dropped():
    valid = torch.ones(1, 4, dtype=torch.bool)
    for gate in (BlankGate(0.9, (1, 1), 0.0), RepeatGate(0.9, (1, 1), 0.0, 0.5)):
        seen = torch.zeros(1, 4), torch.tensor([[1, 2, 3, 4]]), torch.full((1, 4), 0.9)
        before = BlankGate(0.9, (0, 0), 0.0).decide(
            2, (torch.tensor([[0.1, 0.95, 0.1, 0.95]]),), valid, None
        )
        after = gate.decide(4, seen[: 3 if isinstance(gate, RepeatGate) else 1], valid, before)
        assert after.keep_mask.tolist() == before.keep_mask.tolist() == [[True, False, True, False]]


def test_what_an_earlier_gate_dropped_is_no_spike_of_a_stricter_one():
    """Its neighbours do not go on for it, and it is no sign that the gate is sure."""
    valid = torch.ones(1, 4, dtype=torch.bool)
    first = BlankGate(0.9, (0, 0), 0.0).decide(
        2, (torch.tensor([[0.1, 0.5, 0.92, 0.1]]),), valid, None
    )
    assert first.keep_mask.tolist() == [[True, True, False, True]]
    blank = torch.tensor([[0.99, 0.99, 0.92, 0.1]])
    for gate in (BlankGate(0.95, (1, 0), 0.0), RepeatGate(0.95, (1, 0), 0.0, 0.999999)):
        seen = blank, torch.tensor([[1, 2, 3, 4]]), torch.full((1, 4), 0.5)
        second = gate.decide(4, seen[: 3 if isinstance(gate, RepeatGate) else 1], valid, first)
        assert second.keep_mask.tolist() == [[False, False, False, True]]
    unsure = BlankGate(0.95, (0, 0), 0.3).decide(4, (blank,), valid, first)  # one spike of four
    assert unsure.keep_mask.tolist() == first.keep_mask.tolist()
