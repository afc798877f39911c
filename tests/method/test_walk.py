"""Stopping at a gate and going on from there."""

import pytest
import torch

from espnet_layerskip.method.gate import BlankGate

SKIP = {"blank_threshold": 0.5, "spike_extension": [0, 0], "min_spike_ratio": 0.0}


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randn(3, 90, 20), torch.tensor([90, 71, 52])


@pytest.mark.parametrize("context", ["packed", "packed_original", "full"])
@pytest.mark.parametrize("gates", [[2], [1, 3]])
def test_going_on_from_a_gate_is_the_forward(make_encoder, ctc, batch, context, gates):
    _, encoder = make_encoder({**SKIP, "gate_layer_idx": gates, "skip_context": context})
    with torch.no_grad():
        expected, _, _ = encoder(*batch, ctc=ctc)
        trace = encoder.last_skip
        assert 0 < trace.num_skipped() < trace.num_frames()
        with encoder.stopped_at(gates[0]) as states:
            encoder(*batch, ctc=ctc)
        assert encoder.exit_layer is None
        [state] = states
        assert (state.layer_idx, state.traces) == (gates[0], [])
        active = dict.fromkeys(gates, BlankGate(0.5, (0, 0), 0.0))
        for _ in range(2):  # a fork leaves the state as it was
            way = state.fork()
            encoder.run_from(way, active, ctc)
            assert torch.equal(encoder.output(way), expected)
            assert torch.equal(encoder.last_skip.keep_mask, trace.keep_mask)
            assert torch.equal(encoder.last_skip.blank_prob(), trace.blank_prob())
        full = state.fork()
        encoder.run_from(full, {}, ctc)
        assert encoder.last_skip is not None
        off = encoder.output(full)
        assert encoder.last_skip is None
        encoder.blank_threshold = 1.0
        assert torch.equal(off, encoder(*batch, ctc=ctc)[0])
        assert not torch.equal(off, expected)


def test_going_on_step_by_step(make_encoder, ctc, batch):
    _, encoder = make_encoder({**SKIP, "gate_layer_idx": [1, 3]})
    active = dict.fromkeys([1, 3], BlankGate(0.5, (0, 0), 0.0))
    with torch.no_grad():
        expected, _, _ = encoder(*batch, ctc=ctc)
        with encoder.stopped_at(1) as states:
            encoder(*batch, ctc=ctc)
        [state] = states
        encoder.run_from(state, active, ctc, stop=3)
        assert (state.layer_idx, len(state.traces)) == (3, 1), "the gate there has not decided"
        encoder.run_from(state, active, ctc)
        assert torch.equal(encoder.output(state), expected)


def test_fewer_gates_in_use(make_encoder, ctc, batch):
    _, both = make_encoder({**SKIP, "gate_layer_idx": [1, 3]})
    _, one = make_encoder({**SKIP, "gate_layer_idx": [3]})
    both.gates_in_use = [3]
    with torch.no_grad():
        assert torch.equal(both(*batch, ctc=ctc)[0], one(*batch, ctc=ctc)[0])
    assert [g.layer_idx for g in both.last_skip.gates] == [3]
    with pytest.raises(ValueError, match=r"some of the gate layers \[1, 3\].*got \[2, 3\]"):
        both.gates_in_use = [2, 3]


def test_only_at_a_gate(make_encoder):
    _, encoder = make_encoder({**SKIP, "gate_layer_idx": [2]})
    with pytest.raises(ValueError, match="exit_layer must be"), encoder.stopped_at(1):
        pass
