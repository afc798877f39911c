import dataclasses

import pytest

from espnet_layerskip.evaluation.decode import decode_test_set
from espnet_layerskip.evaluation.grid import EXTENSIONS, THRESHOLDS, settings_to_try
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.one_pass import decode_with_each
from espnet_layerskip.evaluation.settings import OFF, SkipSettings
from espnet_layerskip.evaluation.systems import Skipped, System


def resolved(experiment, *settings):
    return [s.resolved(experiment.encoder, experiment.stored) for s in settings]


def check_equal(experiment, few, settings):
    """One pass gives what decoding with each setting by itself gives: texts, frames, FLOPs."""
    swept = decode_with_each(experiment, few, settings)
    alone = {s: decode_test_set(System(experiment, s), few) for s in settings}
    assert swept == alone
    assert len({d.skipped for d in alone.values()}) > 2, "the settings do not differ"
    assert len({str(d.hyps) for d in alone.values()}) > 1, "the transcripts do not differ"


def test_one_pass_equals_decoding_with_each_setting(experiment, few):
    grid = [SkipSettings(t, e) for t in (0.3, 0.5, 0.7) for e in ((0, 0), (0, 1))]
    check_equal(experiment, few, resolved(experiment, OFF, *grid))


def test_one_pass_equals_decoding_with_two_gates(cascade, few):
    grid = [SkipSettings(t, (0, 0), gates=g) for t in (0.4, 0.6) for g in (None, (1,), (3,))]
    check_equal(cascade, few, resolved(cascade, OFF, *grid))


def test_one_pass_equals_decoding_with_a_gate_that_drops_repeats(cascade, few):
    grid = [SkipSettings(0.6, (0, n), repeats=r) for n in (0, 1) for r in (None, 0.2, 0.4)]
    settings = resolved(cascade, OFF, *grid)
    check_equal(cascade, few, settings)
    kept, dropped = (
        decode_with_each(cascade, few, [one])[one].skipped for one in (settings[1], settings[2])
    )
    assert dropped.num_skipped > kept.num_skipped


def test_what_is_the_same_runs_once(experiment, few, monkeypatch):
    calls = []
    encoder = experiment.encoder
    run = encoder.run_layer
    monkeypatch.setattr(encoder, "run_layer", lambda *args: (calls.append(1), run(*args))[1])
    near = [SkipSettings(0.5), SkipSettings(0.5 + 1e-9), SkipSettings(0.5 + 2e-9)]
    done = []
    swept = decode_with_each(experiment, few, resolved(experiment, OFF, *near), done.append)
    assert len({str(d) for d in swept.values()}) == 2
    # of four layers: the one below the gate once, the upper three for "off" and for the others
    assert len(calls) == 4 + len(few.speech) * (1 + 3 + 3)  # 4 of the warm-up
    assert done == [1, 2, 3]


def test_an_utterance_that_is_too_short_has_no_transcript(experiment, few, caplog):
    short = Speech("s0-short", few.speech[0].samples[:300], 16000)
    few = dataclasses.replace(few, speech=[short])
    [off, on] = decode_with_each(
        experiment, few, resolved(experiment, OFF, SkipSettings(0.5))
    ).values()
    assert off.hyps == on.hyps == {"s0-short": ""}
    assert on.skipped == Skipped()
    assert "s0-short has" in caplog.text


def test_the_configured_setting_is_among_those_tried(experiment, cascade):
    tried = settings_to_try(experiment)
    assert tried[0].full_depth
    assert tried[0].context == experiment.stored.context
    assert len(tried) == len(set(tried)) == 1 + len(THRESHOLDS) * len(EXTENSIONS)
    assert experiment.stored in tried
    assert {s.gates for s in settings_to_try(cascade)[1:]} == {None, (1,), (3,)}
    odd = dataclasses.replace(
        experiment, stored=SkipSettings(0.123, (3, 4), experiment.stored.context)
    )
    assert odd.stored in settings_to_try(odd)
    off = dataclasses.replace(odd, stored=dataclasses.replace(odd.stored, threshold=1.0))
    assert sum(s.full_depth for s in settings_to_try(off)) == 1


@pytest.mark.parametrize("gates", [(2,), ()])
def test_gates_that_are_not_there_are_refused(cascade, gates):
    with pytest.raises(ValueError, match=r"gates_in_use must be some of the gate layers \[1, 3\]"):
        cascade.encoder.gates_in_use = gates
