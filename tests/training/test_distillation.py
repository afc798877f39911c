import pytest
import torch

from espnet_layerskip.training.distillation import distillation_terms, select_frames

pytestmark = pytest.mark.numerics


def log_probs(seed, *shape, grad=False):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return x.requires_grad_(grad)


def test_terms_in_closed_form():
    t = torch.tensor([[[0.5, 0.25, 0.25]]]).log()
    s = torch.tensor([[[0.8, 0.15, 0.05]]]).log()
    blank, label = distillation_terms(t, s)
    kl_blank = 0.5 * torch.tensor(0.5 / 0.8).log() + 0.5 * torch.tensor(0.5 / 0.2).log()
    kl_label = 0.5 * torch.tensor(0.5 / 0.75).log() + 0.5 * torch.tensor(0.5 / 0.25).log()
    assert float(blank) == pytest.approx(float(kl_blank), rel=1e-5)
    assert float(label) == pytest.approx(0.5 * float(kl_label), rel=1e-5)


def test_equal_distributions_cost_nothing_and_the_teacher_gets_no_gradient():
    t, s = log_probs(0, 1, 4, 5, grad=True), log_probs(1, 1, 4, 5, grad=True)
    blank, label = distillation_terms(t.log_softmax(-1), t.log_softmax(-1))
    nothing = max(blank.abs().max(), label.abs().max())
    blank, label = distillation_terms(t.log_softmax(-1), s.log_softmax(-1))
    assert nothing < 1e-6 * min(blank.max(), label.max())
    (blank + label).sum().backward()
    assert t.grad is None
    assert s.grad.abs().max() > 0


def test_selection_of_frames():
    blank = torch.tensor([[0.9, 0.9, 0.4, 0.9, 0.9, 0.1]])
    teacher = torch.stack((blank, 1 - blank), -1).log()
    valid = torch.tensor([[True] * 5 + [False]])
    assert select_frames(teacher, valid).tolist() == valid.tolist()
    spikes = select_frames(teacher, valid, "spikes", (1, 0))
    assert spikes.tolist() == [[False, True, True, False, False, False]]
    with pytest.raises(ValueError, match="'all', 'spikes'.*'some'"):
        select_frames(teacher, valid, "some")
