"""From how many skipped frames on skipping pays."""

from types import SimpleNamespace

import pytest
import torch

from espnet_layerskip._compat import TooShortUttError
from espnet_layerskip.encoders.fast.conformer import FastConformerLayer
from espnet_layerskip.evaluation import break_even
from espnet_layerskip.method.settings import OFF, SkipSettings
from tests.support.encoders import features, gated


def test_the_line_of_what_was_saved():
    dropped = [10, 20, 40, 80]
    for disturbed in (0.0, 100.0):
        saved = [2.0 * n - 48.0 for n in dropped]
        saved[1] += disturbed  # one of them does not move it far
        assert abs(break_even.beginning(dropped, saved) - 36) <= (4 if disturbed else 0)
    assert break_even.beginning(dropped, [n + 5.0 for n in dropped]) == 1, "it always pays"
    assert break_even.beginning(dropped, [-1.0 * n for n in dropped]) == break_even.LIMIT
    assert break_even.beginning(dropped, [n - 1e4 for n in dropped]) == break_even.LIMIT


@pytest.mark.parametrize("gates", [[2], [1, 3]])
def test_it_measures_the_layers_above_the_last_gate(ctc, monkeypatch, gates):
    """With a clock that counts the rows of layers, and an overhead of 60 rows."""
    _, ours = gated("conformer", {}, "full", ctc, gate_layer_idx=gates)
    ours.optimize_for_inference()
    now = [0.0]
    run, decide = FastConformerLayer.__call__, break_even.DropSome.decide

    def layer(self, frames):
        now[0] += frames.x.size(1)
        return run(self, frames)

    def overhead(self, layer_idx, *args):
        assert layer_idx == gates[-1]
        now[0] += 60.0
        return decide(self, layer_idx, *args)

    monkeypatch.setattr(FastConformerLayer, "__call__", layer)
    monkeypatch.setattr(break_even.DropSome, "decide", overhead)
    found = break_even.break_even(
        ours, ctc, features(1), ours.settings, repeats=5, clock=lambda: now[0]
    )
    above = 4 - gates[-1]
    assert found == -(-60 * break_even.MARGIN // above)


def test_the_inputs_drop_so_many_frames(ctc):
    _, ours = gated("conformer", {}, "full", ctc)
    with torch.no_grad():
        for dropped in break_even.DROPPED:
            case = break_even._case(ours, ctc, features(1), ours.settings, 2, dropped)
            encoded, log_probs = case["on"]()
            assert log_probs.shape == (1, encoded.trace.keep_mask.size(1), 9)
            assert encoded.trace.num_skipped() == dropped
            assert 0.5 < encoded.trace.skip_ratio() < 0.75
            assert case["off"]()[0].trace is None


def test_settings_that_skip_get_the_number(monkeypatch):
    def batch(speech):
        if speech[0].seconds < 1.0:
            raise TooShortUttError("too short", 1, 2)
        assert speech[0].seconds == 3.0, "not the longest"
        return torch.zeros(1, 300, 20), torch.tensor([300])

    system = SimpleNamespace(encoder=None, model=SimpleNamespace(ctc=None), settings=None)
    system.batch = batch
    monkeypatch.setattr(break_even, "System", lambda experiment, settings: system)
    monkeypatch.setattr(break_even, "break_even", lambda *args: 7)
    skips, stops = SkipSettings(blank_threshold=0.9), SkipSettings(0.9, exit_layer=2)
    for seconds, least in (((3.0, 2.0), 7), ((0.1,), None)):
        data = SimpleNamespace(speech=[SimpleNamespace(seconds=s) for s in seconds])
        found = break_even.with_break_even(None, data, [OFF, skips, stops])
        assert [one.min_skipped_frames for one in found] == [None, least, None]
    assert break_even.with_break_even(None, data, [OFF]) == [OFF]
