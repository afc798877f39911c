"""Stopping at a gate and going on from there."""

import pytest
import torch

from espnet_layerskip.method.gate import BlankGate
from espnet_layerskip.method.settings import OFF, SkipSettings
from espnet_layerskip.method.walk import advance, decide, look
from tests.support.encoders import self_condition
from tests.support.numerics import assert_same

pytestmark = pytest.mark.numerics

SKIP = {"blank_threshold": 0.5, "spike_extension": [0, 0], "min_spike_ratio": 0.0}
GATE = BlankGate(0.5, (0, 0), 0.0)


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randn(3, 90, 20), torch.tensor([90, 71, 52])


@pytest.mark.parametrize("context", ["packed", "packed_original", "full"])
@pytest.mark.parametrize("gates", [[2], [1, 3]])
def test_going_on_from_a_gate_is_the_whole_pass(make_encoder, ctc, batch, context, gates):
    _, encoder = make_encoder({**SKIP, "gate_layer_idx": gates, "skip_context": context})
    with torch.no_grad():
        expected = encoder.run(*batch, ctc)
        assert 0 < expected.trace.num_skipped() < expected.trace.num_frames()
        state, olens = encoder.start(*batch, encoder.settings)
        advance(encoder, state, {}, ctc, stop=gates[0])
        assert (state.layer_idx, state.gates) == (gates[0], [])
        for _ in range(2):  # a fork leaves the state as it was
            way = state.fork()
            advance(encoder, way, dict.fromkeys(gates, GATE), ctc)
            found = encoder.finish(way, olens, encoder.settings)
            assert torch.equal(found.out, expected.out)
            assert torch.equal(found.keep_mask, expected.keep_mask)
            assert torch.equal(found.trace.blank_prob(), expected.trace.blank_prob())
        full = state.fork()
        advance(encoder, full, {}, ctc)
        off = encoder.finish(full, olens, encoder.settings)
        assert off.trace is None
        assert torch.equal(off.out, encoder.run(*batch, ctc, OFF).out)
        assert not torch.equal(off.out, expected.out)


def test_going_on_step_by_step(make_encoder, ctc, batch):
    _, encoder = make_encoder({**SKIP, "gate_layer_idx": [1, 3]})
    active = dict.fromkeys([1, 3], GATE)
    with torch.no_grad():
        expected = encoder.run(*batch, ctc)
        state, olens = encoder.start(*batch, encoder.settings)
        advance(encoder, state, active, ctc, stop=1)
        assert state.gates == [], "the gate there has not decided"
        state.drop(decide(GATE, state, look(encoder, GATE, state, ctc)))
        advance(encoder, state, {}, ctc, stop=3)
        assert (state.layer_idx, len(state.gates)) == (3, 1)
        advance(encoder, state, active, ctc)
        assert torch.equal(encoder.finish(state, olens, encoder.settings).out, expected.out)


def test_every_layer_is_noted(make_encoder, ctc, batch):
    _, encoder = make_encoder({**SKIP, "gate_layer_idx": [2]})
    with torch.no_grad():
        state, _ = encoder.start(*batch, encoder.settings)
        seen = []
        advance(encoder, state, {2: GATE}, ctc, note=lambda s: seen.append((s.layer_idx, s.full())))
    assert [k for k, _ in seen] == [1, 2, 3, 4]
    assert torch.equal(seen[-1][1], state.full())


def test_fewer_gates_in_use(make_encoder, ctc, batch):
    _, both = make_encoder({**SKIP, "gate_layer_idx": [1, 3]})
    _, one = make_encoder({**SKIP, "gate_layer_idx": [3]})
    with torch.no_grad():
        found = both.run(*batch, ctc, SkipSettings(gates_in_use=(3,)))
        assert torch.equal(found.out, one.run(*batch, ctc).out)
    assert [g.layer_idx for g in found.trace.gates] == [3]
    with pytest.raises(ValueError, match=r"some of the gate layers \[1, 3\].*got \[2, 3\]"):
        both.gates_in_use = [2, 3]


def test_a_threshold_for_each_gate(make_encoder, ctc, batch):
    _, each = make_encoder({**SKIP, "gate_layer_idx": [1, 3], "blank_threshold": [1.0, 0.5]})
    _, one = make_encoder({**SKIP, "gate_layer_idx": [3]})
    with torch.no_grad():
        assert torch.equal(each.run(*batch, ctc).out, one.run(*batch, ctc).out)
        each.blank_threshold = [0.5, 1.0]
        assert not torch.equal(each.run(*batch, ctc).out, one.run(*batch, ctc).out)


def test_kept_frames_are_conditioned_by_what_the_head_said_of_them(make_encoder, ctc, batch):
    """Without gradients the gate's answer is used again: the same as asking the head once more."""
    _, encoder = make_encoder({**SKIP, "gate_layer_idx": [2]})
    self_condition(encoder, [2])
    expected = encoder.run(*batch, ctc)
    assert 0 < expected.trace.num_skipped() < expected.trace.num_frames()
    with torch.no_grad():
        assert_same(encoder.run(*batch, ctc).out, expected.out.detach())
