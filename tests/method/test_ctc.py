import math
from inspect import signature

import pytest
import torch

from espnet_layerskip._compat import CTC
from espnet_layerskip.method.blank_regularized import blank_regularized_ctc_loss
from espnet_layerskip.method.ctc import HEAD_TYPES, LayerSkipCTC, factorized_log_probs
from espnet_layerskip.method.trace import GateTrace, SkipTrace
from tests.support.numerics import assert_same, relative_error

pytestmark = pytest.mark.numerics

V, D = 7, 12


def head(head_type, **kwargs):
    torch.manual_seed(0)
    return LayerSkipCTC(V, D, head_type=head_type, **kwargs).eval()


def trace_of(keep, prob):
    return SkipTrace(torch.ones_like(keep), (GateTrace(1, keep, prob),))


def test_factorized_distribution_in_closed_form():
    probs = factorized_log_probs(torch.tensor([0.0, math.log(3.0), 0.0, 0.0])).exp()
    assert_same(probs, torch.tensor([0.5, 0.3, 0.1, 0.1]), rtol=1e-6)


def test_factorized_distribution_sums_to_one_and_stays_finite():
    logits = torch.tensor([[80.0, 1.0, 2.0], [-80.0, 1.0, 2.0], [0.0, 500.0, -500.0]])
    log_probs = factorized_log_probs(logits)
    assert log_probs.isfinite().all()
    assert_same(log_probs.exp().sum(-1), torch.ones(3), rtol=1e-6)


@pytest.mark.parametrize("head_type", ["plain", "factorized"])
def test_blank_prob_is_the_blank_of_the_distribution(head_type):
    ctc, h = head(head_type), torch.randn(2, 5, D)
    assert_same(ctc.blank_prob(h), ctc.softmax(h)[..., 0])


def test_plain_head_is_the_stock_head():
    ctc, h = head("plain"), torch.randn(2, 9, D)
    stock = CTC(V, D).eval()
    stock.load_state_dict(ctc.state_dict())
    hlens, ys, ylens = torch.tensor([9, 6]), torch.tensor([[1, 1, 2], [3, -1, -1]]), [3, 1]
    ylens = torch.tensor(ylens)
    assert_same(ctc.log_softmax(h), stock.log_softmax(h), rtol=1e-6)
    assert torch.equal(ctc.argmax(h), stock.argmax(h))
    assert_same(ctc(h, hlens, ys, ylens), stock(h, hlens, ys, ylens))


def test_dropout_is_off_in_evaluation():
    ctc, h = head("plain", dropout_rate=0.9), torch.randn(1, 4, D)
    args = h, torch.tensor([4]), torch.tensor([[1]]), torch.tensor([1])
    assert torch.equal(ctc(*args), ctc(*args))


def test_own_head_serves_its_layer_only():
    ctc, h = head("factorized", own_head_layers=[4]), torch.randn(1, 3, D)
    own = ctc.log_softmax(h, 4)
    shared = ctc.log_softmax(h, 2)
    assert relative_error(own, ctc.log_softmax(h)) > 1e-2
    assert torch.equal(shared, ctc.log_softmax(h))
    assert_same(ctc.blank_prob(h, 4), own[..., 0].exp())


@pytest.mark.parametrize("head_type", ["plain", "factorized"])
def test_skipped_frames_keep_the_gates_blank_decision(head_type):
    ctc, h = head(head_type), torch.randn(1, 4, D)
    keep = torch.tensor([[True, False, True, False]])
    trace = trace_of(keep, torch.tensor([[0.1, 0.95, 0.2, 1.0]]))
    ctc.requires_grad_(False)
    free = ctc.softmax(h)
    probs, best = ctc.softmax(h, trace=trace), ctc.argmax(h, trace=trace)
    assert_same(probs[keep], free[keep])
    assert probs[0, 1, 0] == pytest.approx(0.95)
    assert_same(probs[0, 1, 1:], torch.full((V - 1,), 0.05 / (V - 1)))
    assert_same(probs.sum(-1), torch.ones(1, 4), rtol=1e-6)
    assert probs.log().isfinite().all()
    assert best[0, [1, 3]].tolist() == [0, 0]
    assert torch.equal(best[keep], free.argmax(-1)[keep])


def test_labels_are_projected_on_kept_frames_only():
    ctc, h = head("factorized"), torch.randn(1, 8, D)
    keep = torch.zeros(1, 8, dtype=torch.bool)
    keep[0, 2] = True
    seen = []
    ctc.ctc_lo.register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[:-1].numel()))
    trace = trace_of(keep, torch.full((1, 8), 0.99))
    ctc.argmax(h, trace=trace)
    ctc.log_softmax(h, trace=trace)
    assert seen == [1, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_labels_of_skipped_frames_stay_possible_in_16_bits(dtype):
    ctc, h = head("plain").to(dtype), torch.randn(1, 4, D, dtype=dtype)
    keep = torch.tensor([[True, False, True, False]])
    out = ctc.log_softmax(h, trace=trace_of(keep, torch.full((1, 4), 1.0)))
    assert out.dtype == dtype
    assert out.isfinite().all()


def test_trace_of_another_batch_is_refused():
    keep = torch.ones(1, 5, dtype=torch.bool)
    ctc = head("plain")
    with pytest.raises(ValueError, match=r"\(1, 5\)"):
        ctc.log_softmax(torch.randn(1, 4, D), trace=trace_of(keep, keep.float()))


def test_unknown_head_lists_the_choices():
    with pytest.raises(ValueError, match="'plain', 'factorized'.*'split'"):
        LayerSkipCTC(V, D, head_type="split")


@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_training_starts_at_even_odds_of_blank(head_type):
    torch.manual_seed(0)
    ctc = LayerSkipCTC(50, 16, head_type=head_type, own_head_layers=[2])
    hidden = torch.randn(1, 500, 16) * 0.1
    for layer_idx in (None, 2):
        assert float(ctc.blank_prob(hidden, layer_idx).mean()) == pytest.approx(0.5, abs=0.07)


def loss_inputs(num_frames=7):
    torch.manual_seed(1)
    log_probs = torch.randn(num_frames, 4, V).double().log_softmax(-1).requires_grad_()
    ys = torch.tensor([1, 1, 2, 3, 4, 5])  # of 3, 2, 1 and 0 labels
    lens = torch.tensor([num_frames, num_frames - 1, 1, 3])
    return log_probs, ys, lens, torch.tensor([3, 2, 1, 0])


def test_blank_regularised_loss_of_too_few_frames_is_zero_with_finite_gradients():
    log_probs, ys, lens, ylens = loss_inputs()
    lens = torch.tensor([3, 1, 1, 0])  # 1 1 2 needs four frames, 3 4 two
    loss = blank_regularized_ctc_loss(log_probs, ys, lens, ylens, 1.0)
    assert loss[:2].tolist() == [0.0, 0.0]
    assert loss[2] > 0
    assert loss[3] == 0
    (grad,) = torch.autograd.grad(loss.sum(), log_probs)
    assert grad.isfinite().all()
    assert not grad[:, :2].any()


def test_self_loop_penalty_makes_labels_shorter():
    def blank_frames(penalty):
        torch.manual_seed(0)
        ctc = LayerSkipCTC(V, D, head_type="plain", self_loop_penalty=penalty)
        h = torch.nn.Parameter(torch.randn(1, 12, D))
        optimizer = torch.optim.Adam([h], 0.1)
        for _ in range(100):
            optimizer.zero_grad()
            ctc(h, torch.tensor([12]), torch.tensor([[1, 2, 2]]), torch.tensor([3])).backward()
            optimizer.step()
        best = ctc.argmax(h)[0]
        assert [int(v) for v in best.unique_consecutive() if v] == [1, 2, 2]
        return int((best == 0).sum())

    assert blank_frames(0.0) < blank_frames(5.0) == 9


def test_negative_self_loop_penalty_is_refused():
    with pytest.raises(ValueError, match="self_loop_penalty.*-1"):
        head("plain", self_loop_penalty=-1.0)


def test_espnets_arguments_of_a_head():
    ours, stock = signature(LayerSkipCTC).parameters, signature(CTC).parameters
    assert list(ours)[: len(stock)] == list(stock)  # by position, too
    assert all(ours[name].default == stock[name].default for name in stock)
    assert LayerSkipCTC(V, D, 0.0, "builtin").ctc_type == "builtin"
    assert not LayerSkipCTC(V, D, ignore_nan_grad=False).ctc_loss.zero_infinity
    for ctc_type in ("builtin2", "gtnctc", "brctc"):
        with pytest.raises(ValueError, match=f"ctc_type: builtin, but got '{ctc_type}'"):
            LayerSkipCTC(V, D, ctc_type=ctc_type)


@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_a_quantized_head_has_the_same_gate(head_type):
    ctc, h = head(head_type, own_head_layers=[2]), torch.randn(2, 5, D)
    quantized = torch.ao.quantization.quantize_dynamic(ctc, {torch.nn.Linear})
    assert not isinstance(quantized.ctc_lo, torch.nn.Linear)
    for layer_idx in (None, 2):
        prob = quantized.blank_prob(h, layer_idx)
        assert_same(prob, quantized.softmax(h, layer_idx)[..., 0])
        assert float((prob - ctc.blank_prob(h, layer_idx)).abs().max()) < 0.02
