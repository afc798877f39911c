import dataclasses
from types import SimpleNamespace

from espnet_layerskip.evaluation.grid import EXTENSIONS, THRESHOLDS, grid, settings_to_try
from espnet_layerskip.method.settings import SkipSettings


def stored_in(experiment, **changes):
    """Return something like the experiment that is configured otherwise."""
    encoder = SimpleNamespace(gate_layer_idx=experiment.encoder.gate_layer_idx)
    encoder.settings = dataclasses.replace(experiment.settings, **changes)
    return SimpleNamespace(encoder=encoder, settings=encoder.settings)


def test_the_configured_setting_is_among_those_tried(experiment, cascade):
    tried = settings_to_try(experiment)
    assert tried[0].full_depth
    assert tried[0].skip_context == experiment.settings.skip_context
    assert len(tried) == len(set(tried)) == 1 + len(THRESHOLDS) * len(EXTENSIONS)
    assert experiment.settings in tried
    assert {s.gates_in_use for s in settings_to_try(cascade)[1:]} == {(1,), (3,), (1, 3)}
    odd = stored_in(experiment, blank_threshold=0.123, spike_extension=(3, 4))
    assert odd.settings in settings_to_try(odd)
    off = stored_in(experiment, blank_threshold=1.0)
    assert sum(s.full_depth for s in settings_to_try(off)) == 1


def test_a_threshold_for_each_gate_is_tried_as_it_is(cascade):
    two = stored_in(cascade, blank_threshold=(0.9, 0.7))
    tried = settings_to_try(two, extensions=[(0, 0)])
    assert two.settings in tried
    assert {s.blank_threshold for s in tried} == {1.0, *THRESHOLDS, (0.9, 0.7)}


def test_extension_by_extension_by_rising_threshold():
    stored = SkipSettings(0.8, (1, 0), "full")
    found = grid(stored, [0.9, 0.5], [(2, 2), (0, 0)])
    pairs = [(s.spike_extension, s.blank_threshold) for s in found]
    assert pairs == [(e, t) for e in ((0, 0), (1, 0), (2, 2)) for t in (0.5, 0.8, 0.9)]


def test_what_is_named_is_tried_and_nothing_else(experiment):
    odd = stored_in(experiment, blank_threshold=0.123, spike_extension=(3, 4))
    [off, one] = settings_to_try(odd, [0.8], [(1, 1)])
    assert off.full_depth
    assert (one.blank_threshold, one.spike_extension) == (0.8, (1, 1))
