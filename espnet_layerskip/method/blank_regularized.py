"""CTC loss that makes labels short, so that more frames are blank (Yang et al., 2305.11558)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

NEVER = -1e30  # log of zero that keeps gradients finite


def blank_regularized_ctc_loss(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    self_loop_penalty: float,
    blank: int = 0,
) -> torch.Tensor:
    """Return -log of the sum over all paths, with a price on every repeated label frame.

    The soft restriction of Yang et al., "Blank-regularized CTC for Frame Skipping in Neural
    Transducer", Interspeech 2023 (arXiv:2305.11558): in the CTC topology every self-loop of
    a label, not of blank, has the log weight ``-self_loop_penalty``.

    Args:
        log_probs: (T, B, V) float32, normalised over V.
        targets: (sum of target_lengths,) int64, labels of all utterances, one after another.
        input_lengths: (B,) int64.
        target_lengths: (B,) int64.
        self_loop_penalty: >= 0; 0.0 is CTC.
        blank: Token of the blank.

    Returns:
        (B,) float32. An utterance that has too few frames for its labels has loss 0.
    """
    device, num_frames, batch = log_probs.device, log_probs.size(0), log_probs.size(1)
    rows = torch.split(targets.to(device), target_lengths.tolist())
    labels = pad_sequence(list(rows), batch_first=True)
    width = labels.size(1)
    states = labels.new_full((batch, 2 * max(1, width) + 1), blank)  # blank, label, blank, ...
    states[:, 1 : 2 * width : 2] = labels
    emitted = log_probs.gather(2, states.expand(num_frames, -1, -1))  # (T, B, S)
    is_label = torch.arange(states.size(1), device=device) % 2 == 1
    stay = -self_loop_penalty * is_label.float()
    # the blank between two labels may be left out where they differ
    jump = torch.where(is_label[2:] & (states[:, 2:] != states[:, :-2]), 0.0, NEVER)
    score = torch.cat((emitted[0, :, :2], torch.full_like(emitted[0, :, 2:], NEVER)), 1)
    lengths = input_lengths.to(device)[:, None]
    for t in range(1, num_frames):
        step = F.pad(score[:, :-1], (1, 0), value=NEVER)
        leap = F.pad(score[:, :-2] + jump, (2, 0), value=NEVER)
        paths = torch.stack((score + stay, step, leap)).logsumexp(0) + emitted[t]
        score = torch.where(t < lengths, paths, score)
    last = 2 * target_lengths.to(device)[:, None]  # the blank after the last label
    at_label = score.gather(1, (last - 1).clamp(min=0)).masked_fill(last == 0, NEVER)
    total = torch.logaddexp(score.gather(1, last), at_label).squeeze(1)
    return torch.where((total < NEVER / 2) | (lengths.squeeze(1) == 0), 0.0, -total)
