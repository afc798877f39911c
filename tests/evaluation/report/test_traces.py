"""What is traced, of utterances that skip and of those that are too short for it to pay."""

import copy
import dataclasses

import pytest

from espnet_layerskip.evaluation.report.traces import trace_test_set, try_settings
from espnet_layerskip.method.settings import OFF, SkipSettings


def with_settings(experiment, **values):
    """The experiment with other settings of its encoder."""
    encoder = copy.copy(experiment.encoder)
    encoder.settings = dataclasses.replace(encoder.settings, **values)
    return dataclasses.replace(experiment, speech2text=experiment.speech2text.with_encoder(encoder))


def test_utterances_that_run_whole_are_traced(experiment, few):
    """By a rule about time only: what the gate would see is still there."""
    usual = trace_test_set(experiment, few)
    whole = trace_test_set(with_settings(experiment, min_skipped_frames=1000), few)
    assert any(t.skip_ratio > 0 for t in usual)
    for before, trace in zip(usual, whole, strict=True):
        assert trace.skip_ratio == 0.0
        assert set(trace.depth) == {trace.num_layers}
        assert trace.whole == (before.skip_ratio > 0)
        assert trace.gates[0].blank_prob == pytest.approx(before.gates[0].blank_prob)
        assert trace.spikes == trace.spikes_off == before.spikes_off
    assert not any(t.whole for t in usual)


def test_an_utterance_without_frames_is_not_traced(experiment, few):
    short = dataclasses.replace(few.speech[0], samples=few.speech[0].samples[:300])
    traces = trace_test_set(experiment, dataclasses.replace(few, speech=[short, *few.speech[1:]]))
    assert [t.utt_id for t in traces] == [s.utt_id for s in few.speech[1:]]
    with pytest.raises(ValueError, match="all of 1 utterances are too short"):
        trace_test_set(experiment, dataclasses.replace(few, speech=[short]))


def test_settings_tried_on_one_utterance(experiment, few):
    [trace] = trace_test_set(experiment, dataclasses.replace(few, speech=few.speech[:1]))
    as_is, off = try_settings(experiment, few.speech[0], [SkipSettings(), OFF])
    assert as_is.depth.tolist() == trace.depth.tolist()
    assert (as_is.text, as_is.spikes) == (trace.text_on, trace.spikes)
    assert set(off.depth) == {trace.num_layers}
    assert (off.text, off.spikes) == (trace.text_off, trace.spikes_off)
