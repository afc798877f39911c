"""Every loss against its definition in float64, in value and gradient."""

import copy

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from espnet_layerskip.method.blank_regularized import blank_regularized_ctc_loss
from espnet_layerskip.method.ctc import HEAD_TYPES, LayerSkipCTC, factorized_log_probs
from espnet_layerskip.training.consistency import consistency_loss
from espnet_layerskip.training.distillation import distillation_terms
from tests.properties.subjects import few
from tests.support.numerics import assert_same

pytestmark = pytest.mark.numerics

seeds = st.integers(0, 2**16)
# logits far from each other: posteriors as peaky as those of a trained model
scales = st.sampled_from([1.0, 0.1, 10.0])
sizes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(2, 6))


def logits(seed, scale, *shape):
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=draw, dtype=torch.double)


def assert_same_loss(ours, reference, x, size=0.0):
    """Compare a loss of float32 (or float64) values with its definition, and the gradients.

    ``size`` is that of the terms that are added up, where they cancel one another.
    """
    found, grads = [], []
    for loss, dtype in ((ours, torch.float32), (reference, torch.float64)):
        leaf = x.to(dtype).requires_grad_()
        value = loss(leaf)
        found.append(value.detach().double())
        grads.append(torch.autograd.grad(value, leaf)[0].double())
    assert_same(*found, rtol=2e-6, scale=1.0 + max(float(found[1].abs()), size))
    assert_same(*grads, rtol=2e-6, scale=1.0 + float(grads[1].abs().max()))


def normalise(z, head_type):
    """Return probabilities by their definition."""
    if head_type == "plain":
        return z.exp() / z.exp().sum(-1, keepdim=True)
    blank, label = 1 / (1 + (-z[..., :1]).exp()), z[..., 1:].exp()
    return torch.cat((blank, (1 - blank) * label / label.sum(-1, keepdim=True)), -1)


@few(20)
@given(seeds, st.sampled_from([1.0, 0.1, 5.0]), sizes)
@example(6, 5.0, (3, 1, 6))
def test_the_factorized_head_is_its_definition(seed, scale, size):
    z, weight = logits(seed, scale, *size), logits(seed + 1, 1.0, *size)
    assert_same_loss(
        lambda z: (factorized_log_probs(z) * weight.to(z.dtype)).sum(),
        lambda z: (normalise(z, "factorized").log() * weight).sum(),
        z,
        float((normalise(z, "factorized").log() * weight).abs().sum()),
    )


@few(20)
@given(seeds, scales, sizes, st.sampled_from([(1.0, 1.0), (0.3, 0.0), (0.0, 2.0)]))
def test_distillation_is_its_definition(seed, scale, size, weights):
    """KL of blank against the rest, and of the labels where there is one; together the whole KL."""
    batch, length, tokens = size
    p = logits(seed, scale, batch, length, tokens).log_softmax(-1)

    def ours(z):
        blank, label = distillation_terms(p.to(z.dtype), z.log_softmax(-1))
        return (weights[0] * blank + weights[1] * label).sum()

    def definition(z):
        t, s = p.exp(), z.log_softmax(-1).exp()
        total = 0.0
        for pt, ps in zip(t.flatten(0, 1), s.flatten(0, 1), strict=True):
            rest, other = pt[1:].sum(), ps[1:].sum()
            blank = pt[0] * (pt[0] / ps[0]).log() + rest * (rest / other).log()
            label = sum(a * ((a / rest) / (b / other)).log() for a, b in zip(pt[1:], ps[1:]))  # noqa: B905
            total = total + weights[0] * blank + weights[1] * label
        return total

    z = logits(seed + 1, scale, batch, length, tokens)
    assert_same_loss(ours, definition, z)
    if weights == (1.0, 1.0):
        whole = torch.nn.functional.kl_div(z.log_softmax(-1), p, None, None, "sum", True)
        assert_same(ours(z).double(), whole, rtol=2e-6, scale=1.0 + float(whole))


@few(20)
@given(seeds, scales, sizes, st.integers(0, 6))
def test_consistency_is_its_definition(seed, scale, size, cut):
    """KL of each view from the other, which is given no gradient, by utterance."""
    batch, length, tokens = size
    mask = torch.ones(2 * batch, length, dtype=torch.bool)
    mask[-1, cut:] = False

    def definition(z):
        log_probs, total = z.log_softmax(-1), 0.0
        for i in range(batch):
            for t in range(length):
                if mask[i, t] and mask[batch + i, t]:
                    a, b = log_probs[i, t], log_probs[batch + i, t]
                    for p, q in ((a.detach(), b), (b.detach(), a)):
                        total = total + 0.5 * (p.exp() * (p - q)).sum()
        return total / batch + 0.0 * z.sum()

    assert_same_loss(
        lambda z: consistency_loss(z.log_softmax(-1), mask),
        definition,
        logits(seed, scale, 2 * batch, length, tokens),
    )


def sum_over_paths(log_probs, labels, penalty):
    """Return -log of the sum over all paths (T, V) -> labels, each repeat of a label priced."""
    length, tokens = log_probs.shape
    paths = torch.cartesian_prod(*[torch.arange(tokens)] * length).view(-1, length)
    good = []
    for path in paths.tolist():
        kept = [v for i, v in enumerate(path) if i == 0 or v != path[i - 1]]
        good.append([v for v in kept if v] == labels)
    paths = paths[torch.tensor(good)]
    if not len(paths):
        return 0.0 * log_probs.sum()
    loops = ((paths[:, 1:] == paths[:, :-1]) & (paths[:, 1:] > 0)).sum(1)
    score = log_probs[torch.arange(length), paths].sum(1) - penalty * loops
    return -score.logsumexp(0)


@few(15)
@given(
    seeds,
    st.sampled_from([1.0, 3.0]),
    st.lists(st.integers(1, 2), max_size=3),
    st.integers(1, 5),
    st.sampled_from([0.7, 0.0, 3.0]),
    st.sampled_from(HEAD_TYPES),
)
def test_ctc_is_the_priced_sum_over_paths(seed, scale, labels, length, penalty, head_type):
    """Blank-regularised CTC and, at price 0, CTC: through both heads, in a padded batch."""
    torch.manual_seed(seed)
    ctc = LayerSkipCTC(3, 4, head_type=head_type, self_loop_penalty=penalty).eval()
    exact = copy.deepcopy(ctc).double()
    h = logits(seed, scale, 1, length, 4)
    ys = torch.tensor([[*labels, -1], [1, *[-1] * len(labels)]])

    def ours(h):
        lens, ys_lens = torch.tensor([length, length]), torch.tensor([len(labels), 1])
        both = torch.cat((h, h.detach()))
        return 2 * (
            ctc(both, lens, ys, ys_lens) - 0.5 * ctc(h.detach(), lens[1:], ys[1:], ys_lens[1:])
        )

    def definition(h):
        return sum_over_paths(normalise(exact.ctc_lo(h[0]), head_type).log(), labels, penalty)

    found, grads = [], []
    for loss, x in ((ours, h.float()), (definition, h)):
        x.requires_grad_()
        value = loss(x)
        found.append(value.detach().double())
        grads.append(torch.autograd.grad(value, x)[0].double())
    assert_same(*found, rtol=5e-6, scale=10.0 + float(found[1].abs()))
    assert_same(*grads, rtol=2e-5, scale=1.0)


@few(15)
@given(seeds, st.lists(st.integers(1, 3), min_size=0, max_size=4), st.integers(1, 8))
def test_without_a_price_the_loss_is_that_of_pytorch(seed, labels, length):
    log_probs = logits(seed, 1.0, length, 2, 4).log_softmax(-1).requires_grad_()
    ys, lens = torch.tensor([*labels, 1]), torch.tensor([length, max(1, length - 1)])
    inputs = log_probs, ys, lens, torch.tensor([len(labels), 1])
    ours = blank_regularized_ctc_loss(*inputs, self_loop_penalty=0.0)
    torchs = torch.nn.functional.ctc_loss(*inputs, reduction="none", zero_infinity=True)
    assert_same(ours, torchs, scale=1.0 + float(torchs.detach().max()))
    grads = [torch.autograd.grad(loss.sum(), log_probs)[0] for loss in (ours, torchs)]
    # PyTorch's gradient is that with respect to the logits; both sum to it through a log-softmax
    through = [g - log_probs.exp() * g.sum(-1, keepdim=True) for g in grads]
    assert_same(*through, scale=1.0)
