import copy
import pickle
from random import Random

import pytest
import torch
import torch.nn.functional as F

from espnet_layerskip.encoders.convert import from_stock
from espnet_layerskip.method.ctc import LayerSkipCTC
from espnet_layerskip.method.settings import SkipSettings
from espnet_layerskip.training import retrofit
from espnet_layerskip.training.retrofit import Example, Schedule, batches, train
from espnet_layerskip.training.retrofit_loss import Lesson, Pupil, Taught, labelled_loss, teach
from tests.support.encoders import KINDS, build_encoders

TOKENS = 7
GATES = [2]
ALWAYS = Lesson(1.0, ((0, 0),), ctc_weight=0.0, state_weight=0.0)


class Model(torch.nn.Module):
    """What a retrofit needs of an ESPnet model."""

    def __init__(self, encoder, ctc):
        super().__init__()
        self.encoder, self.ctc = encoder, ctc


def make_pupil(kind="conformer", lesson=ALWAYS, gates=GATES, own=(), **options):
    """A teacher without gates, and a student with them that has the same weights."""
    stock, _ = build_encoders(kind)
    torch.manual_seed(1)
    head = LayerSkipCTC(TOKENS, 16, head_type="plain", own_head_layers=own).eval()
    teacher = Model(from_stock(stock), head).eval()
    with torch.no_grad():  # so that about half of the frames are blank at the first gate
        teacher.encoder.interctc_layer_idx = [gates[0]]
        states = dict(teacher.encoder.run(*batch(131), intermediates=True).intermediates)
        teacher.encoder.interctc_layer_idx = []
        head.ctc_lo.weight *= 10.0
        logits = head.ctc_lo(states[gates[0]][0])
        head.ctc_lo.bias[0] -= (logits[:, 0] - logits[:, 1:].logsumexp(-1)).median()
    encoder = copy.deepcopy(stock)
    options = {"blank_threshold": 0.5, "min_spike_ratio": 0.0} | options
    student = Model(from_stock(encoder, gates, **options), copy.deepcopy(head))
    return Pupil(teacher, student, lesson, own)


def taught(pupil, x, lens):
    return teach(pupil.teacher, pupil.gates[0], x, lens)


def taught_always(pupil, x, lens):
    """Lessons that are the same in each update."""
    return lambda steps: (taught(pupil, x, lens) for _ in steps)


def batch(*lengths):
    torch.manual_seed(2)
    x = torch.randn(len(lengths), max(lengths), 20)
    lens = torch.tensor(lengths)
    return x.masked_fill((torch.arange(max(lengths)) >= lens[:, None])[..., None], 0.0), lens


@pytest.mark.parametrize("kind", KINDS)
def test_untouched_weights_lose_nothing_at_full_depth_and_something_with_gates(kind):
    for skip_prob, wrong in ((0.0, False), (1.0, True)):
        pupil = make_pupil(kind, Lesson(skip_prob, ((0, 0),), 0.0, 0.0))
        x, lens = batch(90, 131)
        loss, numbers = pupil.loss(taught(pupil, x, lens), [None, None], Random(0))
        assert (loss.item() > 1e-3) is wrong
        assert numbers["loss"] == numbers["loss_final"] == loss.item()
        assert (0.1 < numbers.get("skip_ratio", 0.0) < 0.9) is wrong


def test_the_fast_form_of_the_teacher_teaches_the_same():
    plain, fast = make_pupil(), make_pupil()
    fast.teacher.encoder.optimize_for_inference()
    found = [p.loss(taught(p, *batch(90, 131)), [None, None], Random(0))[0] for p in (plain, fast)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", [(90, 131), (131,)])
def test_what_is_taught_can_be_sent(lengths):
    pupil = make_pupil("e_branchformer", gates=[1])
    [here] = taught(pupil, *batch(*lengths))
    sent = pickle.dumps(here)
    there = pickle.loads(sent)
    assert vars(here).keys() == vars(there).keys() == {"lens", "below", "out", "pos_emb"}
    assert all(torch.equal(value, vars(there)[name]) for name, value in vars(here).items())
    assert b"torch" not in sent.replace(b"espnet_layerskip.training", b"")  # plain arrays
    labels = [None] * len(lengths)
    losses = [pupil.loss([one], labels, Random(0))[0] for one in (here, there)]
    assert losses[0].equal(losses[1])
    assert Taught(here.lens, here.below, here.out, None).to("cpu").pos_emb is None


def test_a_batch_is_the_mean_of_its_utterances_and_padding_is_not_looked_at():
    pupil = make_pupil(lesson=Lesson(1.0, ((0, 0),), 0.3, state_weight=1.0))
    x, lens = batch(90, 131)
    labels = [torch.tensor([1, 2]), torch.tensor([3])]
    together, _ = pupil.loss(taught(pupil, x, lens), labels, Random(0))
    alone = [
        pupil.loss(taught(pupil, x[i : i + 1, :n], lens[i : i + 1]), [labels[i]], Random(0))[0]
        for i, n in enumerate(lens.tolist())
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_upper_layers_learn(kind, tmp_path):
    pupil = make_pupil(kind)
    before = copy.deepcopy(pupil.student.state_dict())
    x, lens = batch(90, 131)
    examples = [Example("a", 1.0), Example("b", 1.0)]
    schedule = Schedule(epochs=8, lr=5e-4)
    loss = [pupil.loss(taught(pupil, x, lens), [None, None], Random(0))[1]["loss"]]
    train(pupil, examples, schedule, taught_always(pupil, x, lens), tmp_path / "c.pth", {})
    loss.append(pupil.loss(taught(pupil, x, lens), [None, None], Random(0))[1]["loss"])
    assert loss[1] < 0.8 * loss[0]
    changed = {
        name for name, value in pupil.student.state_dict().items() if not value.equal(before[name])
    }
    upper = {
        name for name in before if name.startswith(("encoder.encoders.2", "encoder.encoders.3"))
    }
    assert changed <= {name for name in upper if "running" not in name and "num_b" not in name}
    assert {name.split(".")[2] for name in changed} == {"2", "3"}


def test_a_new_head_learns_what_the_model_says_at_the_end(tmp_path):
    pupil = make_pupil(own=(1,), gates=[1])
    with torch.no_grad():
        pupil.student.ctc.interctc_lo["1"].weight.normal_()
    x, lens = batch(131)
    schedule = Schedule(epochs=15, head_lr=1e-1)
    numbers = [pupil.loss(taught(pupil, x, lens), [None], Random(0))[1]["loss_layer1"]]
    final = pupil.student.ctc.ctc_lo.weight.clone()
    train(
        pupil, [Example("a", 1.0)], schedule, taught_always(pupil, x, lens), tmp_path / "c.pth", {}
    )
    numbers.append(pupil.loss(taught(pupil, x, lens), [None], Random(0))[1]["loss_layer1"])
    assert numbers[1] < 0.3 * numbers[0]
    assert pupil.student.ctc.ctc_lo.weight.equal(final)


def test_the_head_of_a_later_gate_is_taught_too():
    one, two = make_pupil(gates=[1]), make_pupil(gates=[1, 3])
    numbers = [p.loss(taught(p, *batch(131)), [None], Random(0))[1] for p in (one, two)]
    assert not any(name.startswith("loss_layer") for name in numbers[0])
    assert numbers[1]["loss_layer3"] > 0.0


def test_the_labelled_loss_is_ctc_of_those_with_labels():
    torch.manual_seed(0)
    log_probs = torch.randn(3, 9, TOKENS).log_softmax(-1)
    lens, labels = torch.tensor([9, 7, 8]), [torch.tensor([1, 2, 2]), None, torch.tensor([4])]
    wanted = sum(
        F.ctc_loss(log_probs[i, :n, None], label[None], (n,), (len(label),), reduction="sum")
        for i, (n, label) in enumerate(zip((9, 7, 8), labels, strict=True))
        if label is not None
    )
    torch.testing.assert_close(labelled_loss(log_probs, lens, labels), wanted / 3)
    too_long = labelled_loss(log_probs[:1], lens[:1], [torch.arange(1, 7).repeat(2)])
    assert too_long == 0.0


def test_the_states_are_held_near_those_of_the_teacher():
    plain, held = (make_pupil(lesson=Lesson(1.0, ((0, 0),), 0.0, w)) for w in (0.0, 2.0))
    x, lens = batch(90, 131)
    loss = [p.loss(taught(p, x, lens), [None, None], Random(0))[0].item() for p in (plain, held)]
    how = SkipSettings(spike_extension=(0, 0)).over(held.student.encoder.settings)
    skipped = held.student.encoder.run(x, lens, held.student.ctc, how)
    distance = ((skipped.out - held.teacher.encoder.run(x, lens).out) ** 2).mean(-1)
    assert loss[1] - loss[0] == pytest.approx(
        2.0 * distance[skipped.keep_mask].sum().item() / 2, rel=1e-4
    )


def test_labels_come_beside_the_distillation():
    pupil = make_pupil(lesson=Lesson(1.0, ((0, 0),), 0.3, 0.0))
    label = torch.tensor([1, 2, 3])
    (none, _), (some, numbers) = (
        pupil.loss(taught(pupil, *batch(131)), [given], Random(0)) for given in (None, label)
    )
    assert (some - none).item() == pytest.approx(numbers["loss_ctc"], rel=1e-4)
    assert numbers["loss_ctc"] > 0.0


class Stopped(Exception):
    """Stands for kill -9."""


def run(path, monkeypatch, stop_after=None, **changed):
    """Train a little on three utterances; return the weights. It may stop, and may go on."""
    monkeypatch.setattr(retrofit, "SAVE_SECONDS", 0.0)
    pupil = make_pupil(lesson=Lesson(skip_prob=0.7))
    calls = 0

    def lessons(steps):
        nonlocal calls
        for step in steps:
            if calls == stop_after:
                raise Stopped
            calls += 1
            yield taught(pupil, *batch(*(int(60 * e.seconds) for e in step.batch)))

    examples = [Example(name, 1.0 + i) for i, name in enumerate("abc")]
    schedule = Schedule(epochs=3, lr=1e-2, batch_seconds=4.5)
    numbers = train(pupil, examples, schedule, lessons, path, {"seed": 0} | changed)
    return pupil.student.state_dict(), numbers, calls


def test_an_interrupted_training_gives_the_same_weights(tmp_path, monkeypatch):
    whole, numbers, updates = run(tmp_path / "whole.pth", monkeypatch)
    assert numbers["updates"] == updates == 6
    with pytest.raises(Stopped):
        run(tmp_path / "parts.pth", monkeypatch, stop_after=3)
    (tmp_path / ".parts.pth.partial").write_bytes(b"half a file")
    parts, numbers, updates = run(tmp_path / "parts.pth", monkeypatch)
    assert updates == 3
    saved = torch.load(tmp_path / "parts.pth", weights_only=True)["spent"]
    assert [numbers["seconds"], numbers["cpu_seconds"]] == saved
    assert min(saved) > 0.0
    assert all(value.equal(parts[name]) for name, value in whole.items())
    _, again, updates = run(tmp_path / "parts.pth", monkeypatch)
    assert updates == 0
    assert again["cpu_seconds"] == numbers["cpu_seconds"]  # those of all runs


def test_a_checkpoint_of_another_training_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "c.pth"
    run(path, monkeypatch)
    with pytest.raises(ValueError, match="is of a training that differs in lr, seed: give the"):
        run(path, monkeypatch, seed=1, lr=2.0)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read .*: begin again with --force"):
        run(path, monkeypatch)


def test_nothing_is_learnt_from_a_loss_that_is_not_finite(tmp_path):
    pupil = make_pupil()
    before = copy.deepcopy(pupil.student.state_dict())
    x, lens = batch(131)
    train(
        pupil,
        [Example("a", 1.0)],
        Schedule(epochs=2),
        taught_always(pupil, x * float("nan"), lens),
        tmp_path / "c.pth",
        {},
    )
    assert all(value.equal(before[n]) for n, value in pupil.student.state_dict().items())


def test_batches_hold_every_utterance_once_and_not_too_much():
    draw = Random(0)
    examples = [Example(f"u{i}", draw.uniform(0.5, 9.0)) for i in range(100)]
    schedule = Schedule(batch_seconds=20.0)
    first, again, second = (batches(examples, schedule, epoch) for epoch in (0, 0, 1))
    assert first == again
    assert first != second
    for found in (first, second):
        assert sorted(e.utt_id for b in found for e in b) == sorted(e.utt_id for e in examples)
        assert all(len(b) * max(e.seconds for e in b) <= 20.0 for b in found)
        assert len(found) < 35
    [[alone], _] = sorted(
        batches([Example("long", 50.0), Example("b", 1.0)], schedule, 0), key=str
    )[::-1]
    assert alone.utt_id == "long"


def test_the_rate_rises_and_falls():
    rates = [Schedule(warmup=0.1).rate(step, 100) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == 1.0 == max(rates)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0.0 < rates[0] < 0.1
    assert 0.0 < rates[-1] < 0.01
