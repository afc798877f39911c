"""An utterance of which too few frames would be dropped runs on whole."""

import copy

import pytest
import torch

from espnet_layerskip.method.ctc import LayerSkipCTC
from espnet_layerskip.method.gate import BlankGate
from espnet_layerskip.method.repeats import RepeatGate
from espnet_layerskip.method.settings import OFF, SkipSettings
from tests.support.encoders import CONTEXTS, features, gated, self_condition
from tests.support.numerics import assert_same

pytestmark = pytest.mark.numerics

LENGTHS = [90, 62, 35]  # of these 21, 14 and 8 frames reach the layers


def rule(number):
    return SkipSettings(min_skipped_frames=number)


@pytest.fixture
def looks(monkeypatch):
    """The layers at which the head was asked for p(blank)."""
    found = []
    ask = LayerSkipCTC.blank_prob
    monkeypatch.setattr(
        LayerSkipCTC,
        "blank_prob",
        lambda self, h, layer_idx=None: found.append(layer_idx) or ask(self, h, layer_idx),
    )
    return found


def dropped(encoded):
    return (encoded.trace.valid_mask & ~encoded.keep_mask).sum(1).tolist()


@pytest.mark.parametrize("kind", [BlankGate, RepeatGate])
def test_each_utterance_has_to_drop_enough(kind):
    prob = torch.tensor([[0.99, 0.1, 0.99, 0.99], [0.99, 0.1, 0.1, 0.99], [0.99, 0.99, 0.1, 0.0]])
    valid = torch.ones(3, 4, dtype=torch.bool)
    valid[2, 3] = False
    seen = (prob, torch.ones_like(prob).long(), torch.full_like(prob, 0.1))
    for least, kept in ((2, [1, 2, 1]), (3, [1, 4, 3]), (4, [4, 4, 3])):
        found = kind(0.9, (0, 0), min_skipped_frames=least).decide(1, seen, valid, None)
        assert found.keep_mask.sum(1).tolist() == kept
        assert not found.keep_mask[2, 3]


def test_in_a_cascade_each_gate_judges_what_it_would_newly_drop():
    valid = torch.ones(1, 6, dtype=torch.bool)
    gate = BlankGate(0.5, (0, 0), 0.0, min_skipped_frames=2)
    first = gate.decide(1, (torch.tensor([[0.9, 0.9, 0.1, 0.1, 0.1, 0.1]]),), valid, None)
    assert first.keep_mask.int().tolist() == [[0, 0, 1, 1, 1, 1]]
    one_more = (torch.tensor([[0.9, 0.9, 0.9, 0.1, 0.1, 0.1]]),)
    assert gate.decide(2, one_more, valid, first).keep_mask.equal(first.keep_mask)
    two_more = (torch.tensor([[0.9, 0.9, 0.9, 0.9, 0.1, 0.1]]),)
    assert gate.decide(2, two_more, valid, first).keep_mask.int().tolist() == [[0, 0, 0, 0, 1, 1]]


def test_repeats_of_an_utterance_that_goes_on_whole_speak_for_themselves():
    blank = torch.full((2, 6), 0.1)
    label = torch.tensor([[1, 1, 2, 3, 4, 5], [1, 1, 1, 1, 1, 2]])
    sure = torch.full((2, 6), 0.8)
    valid = torch.ones(2, 6, dtype=torch.bool)
    gate = RepeatGate(0.9, (0, 0), 0.0, 0.5, min_skipped_frames=3)
    found = gate.decide(1, (blank, label, sure), valid, None)
    assert found.keep_mask.sum(1).tolist() == [6, 2]
    assert found.speaker.tolist() == [[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 5]]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("fast", [False, True])
def test_alone_equals_batched_where_some_skip_and_some_do_not(ctc, context, fast):
    _, ours = gated("conformer", {}, context, ctc)
    if fast:
        ours.optimize_for_inference()
    x, lens = features(3), torch.tensor(LENGTHS)
    with torch.no_grad():
        free = ours.run(x, lens, ctc, rule(0))
        counts = dropped(free)
        least = sorted(counts)[1]
        assert 0 < sorted(counts)[0] < least, "or there is nothing to test"
        batch = ours.run(x, lens, ctc, rule(least))
        assert dropped(batch) == [n if n >= least else 0 for n in counts]
        assert not torch.equal(batch.out, free.out)  # negative control
        for row, length in enumerate(LENGTHS):
            alone = ours.run(x[row : row + 1, :length], lens[row : row + 1], ctc, rule(least))
            n = int(alone.lens)
            assert_same(batch.out[row, :n], alone.out[0])
            if alone.trace is not None:
                assert torch.equal(batch.trace.utterance(row).keep_mask, alone.keep_mask)


@pytest.mark.parametrize("fast", [False, True])
def test_nobody_asks_the_head_where_all_are_short(ctc, looks, fast):
    _, ours = gated("conformer", {}, "full", ctc)
    if fast:
        ours.optimize_for_inference()
    x, lens = features(3), torch.tensor(LENGTHS)
    looks.clear()
    with torch.no_grad():
        short = ours.run(x, lens, ctc, rule(17))
        assert looks == []
        assert short.trace is None
        assert torch.equal(short.out, ours.run(x, lens, ctc, OFF).out)
        assert looks == []
        ours.run(x, lens, ctc, rule(16))  # not more than 4 of 5 of the longest
    assert looks == [2]


def test_no_rule_is_no_change(ctc):
    _, ours = gated("conformer", {}, "full", ctc)
    x, lens = features(3), torch.tensor(LENGTHS)
    with torch.no_grad():
        assert ours.min_skipped_frames == 0
        usual, none = (ours.run(x, lens, ctc, how) for how in (None, rule(0)))
        assert torch.equal(usual.out, none.out)
        one = ours.run(x, lens, ctc, rule(1))  # all of them drop more
        assert torch.equal(usual.out, one.out)


def test_training_knows_no_such_rule(ctc):
    _, ours = gated("conformer", {}, "packed", ctc, train_skip_prob=1.0)
    x, lens = features(3), torch.tensor(LENGTHS)
    grads = []
    for least in (0, 1000):
        one = copy.deepcopy(ours).train()
        one.min_skipped_frames = least
        torch.manual_seed(0)
        found = one.run(x, lens, ctc)
        assert sum(dropped(found)) > 0
        found.out.square().sum().backward()
        grads.append([p.grad for p in one.encoders.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    ours.min_skipped_frames = 1000
    assert ours.eval().run(x, lens, ctc).trace is None


def test_utterances_that_are_encoded_one_at_a_time(ctc):
    _, ours = gated("conformer", {"rel_pos_type": "legacy"}, "packed", ctc)
    x, lens = features(3), torch.tensor(LENGTHS)
    with torch.no_grad():
        free, ruled = (ours.run(x, lens, ctc, rule(n)) for n in (0, 9))
        assert dropped(free)[2] > 0
        assert dropped(ruled)[2] == 0
        assert torch.equal(ruled.trace.valid_mask, free.trace.valid_mask)
        assert torch.equal(ruled.keep_mask[0], free.keep_mask[0])
        alone = ours.run(x[2:, :35], lens[2:], ctc, skip=False)
        assert_same(ruled.out[2, :8], alone.out[0])


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("repeats", [1.0, 0.3])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_gate_and_conditioning_ask_the_head_once(ctc, monkeypatch, fast, repeats, rows):
    _, ours = gated("conformer", {}, "packed", ctc, gate_layer_idx=[1, 3], repeat_threshold=repeats)
    self_condition(ours, [1, 2, 3])
    if fast:
        ours.optimize_for_inference()
    x, lens = features(3)[:rows], torch.tensor(LENGTHS)[:rows]
    with torch.enable_grad():  # asks once for each of the two
        expected = ours.run(x, lens, ctc)
    calls = []
    ask = LayerSkipCTC.log_softmax
    monkeypatch.setattr(
        LayerSkipCTC, "log_softmax", lambda self, *args: calls.append(args[1]) or ask(self, *args)
    )
    monkeypatch.delattr(LayerSkipCTC, "blank_prob")
    with torch.no_grad():
        found = ours.run(x, lens, ctc)
    assert calls == [1, 2, 3]
    assert 0 < found.trace.num_skipped() < found.trace.num_frames()
    for a, b in zip(found.trace.gates, expected.trace.gates, strict=True):
        assert torch.equal(a.keep_mask, b.keep_mask)
    valid = found.trace.valid_mask
    assert_same(found.out[valid], expected.out[valid].detach())
