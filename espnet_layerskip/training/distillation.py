"""Distillation of the final CTC distribution into an intermediate one.

By the chain rule the KL divergence over blank and labels splits exactly:

    KL(p || q) = KL(p_blank || q_blank) + (1 - p(blank)) * KL(p_label || q_label)

with binary blank distributions in the first term and label distributions conditioned on
"not blank" in the second. So both heads, plain and factorized, take the same two terms
with weights of their own; equal weights give the full KL.
"""

from collections.abc import Sequence

import torch

from espnet_layerskip.method.ctc import BLANK
from espnet_layerskip.method.gate import BlankGate

FRAME_SELECTIONS = ("all", "spikes")


def distillation_terms(
    teacher_log_probs: torch.Tensor, student_log_probs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the blank and the label term of KL(teacher || student), both (B, T).

    The teacher is detached: gradients flow into the student only.

    Args:
        teacher_log_probs: (B, T, V) log-probabilities of the final layer.
        student_log_probs: (B, T, V) log-probabilities of the intermediate layer.
    """
    teacher = teacher_log_probs.detach().float()
    student = student_log_probs.float()
    t_blank, t_label = _split(teacher)
    s_blank, s_label = _split(student)
    blank = (t_blank.exp() * (t_blank - s_blank)).sum(-1)
    label = (t_label.exp() * (t_label - s_label)).sum(-1)
    return blank, t_blank[..., 1].exp() * label


def select_frames(
    teacher_log_probs: torch.Tensor,
    valid_mask: torch.Tensor,
    selection: str = "all",
    spike_extension: Sequence[int] = (1, 1),
) -> torch.Tensor:
    """Return the frames on which to distil, (B, T) bool.

    Args:
        teacher_log_probs: (B, T, V).
        valid_mask: (B, T) bool, True = real frame.
        selection: "all", or "spikes": the frames where the teacher's blank is below 0.5
            and their neighbours (a KL over all frames is dominated by easy blanks,
            arXiv:2506.01503).
        spike_extension: Neighbours (left, right) of the teacher's spikes, in frames.

    Raises:
        ValueError: For an unknown selection.
    """
    if selection == "all":
        return valid_mask
    if selection == "spikes":
        gate = BlankGate(0.5, tuple(spike_extension), min_spike_ratio=0.0)  # type: ignore[arg-type]
        return gate(teacher_log_probs.detach()[..., BLANK].exp(), valid_mask)
    raise ValueError(f"kd_frames must be one of {FRAME_SELECTIONS}, but got {selection!r}")


def _split(log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log (blank, non-blank) (..., 2) and the label distribution (..., V - 1)."""
    labels = log_probs[..., BLANK + 1 :]
    non_blank = labels.logsumexp(-1, keepdim=True)
    return torch.cat((log_probs[..., BLANK : BLANK + 1], non_blank), -1), labels - non_blank
