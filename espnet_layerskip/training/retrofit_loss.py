"""What a trained model teaches its gated twin: one pass of both, and the loss.

The teacher is the model as it is, at full depth. The student has the same weights and gates. The
layers up to the first gate are frozen and shared, so that the first gate sees what it will see
later and these layers need no gradients. All of the student runs in evaluation mode: BatchNorm's
statistics stay, nothing is dropped out, and untouched weights give the teacher's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from espnet_layerskip.method.ctc import BLANK, head_log_softmax
from espnet_layerskip.method.frames import Encoded, Frames, LayerState
from espnet_layerskip.method.settings import SkipSettings
from espnet_layerskip.method.walk import advance
from espnet_layerskip.training.distillation import distillation_terms


@dataclass(frozen=True)
class Lesson:
    """How the student is taught.

    Attributes:
        skip_prob: Share of batches in which the gates are applied; the others run at full depth.
        extensions: Spike extensions (left, right); one is drawn for each gated batch.
        ctc_weight: Weight of the CTC loss of utterances with labels, beside the distillation.
        state_weight: Weight of the squared distance of the output states to the teacher's, by
            frame that ran. It tells more than the peaky posteriors do, and an attention decoder
            reads these states.
    """

    skip_prob: float = 0.75
    extensions: tuple[tuple[int, int], ...] = ((0, 0), (1, 1))
    ctc_weight: float = 0.3
    state_weight: float = 1.0


class Pupil:
    """A student beside its teacher.

    Args:
        teacher: ESPnet ASR model in evaluation mode, its encoder in our class without a gate.
        student: The same model with gates; other parameters than it learns are frozen.
        lesson: How it is taught.
        new_heads: Gate layers with a head of their own that is to be trained.
    """

    def __init__(self, teacher: Any, student: Any, lesson: Lesson, new_heads: Sequence[int] = ()):
        self.teacher, self.student, self.lesson = teacher, student.eval(), lesson
        self.gates = tuple(student.encoder.gate_layer_idx)
        upper = list(student.encoder.encoders)[self.gates[0] :]
        self.upper = [p for layer in upper for p in layer.parameters()]
        self.heads = [p for k in new_heads for p in student.ctc.projection(k).parameters()]
        self.new_heads = frozenset(new_heads)
        for parameter in student.parameters():
            parameter.requires_grad_(False)
        for parameter in (*self.upper, *self.heads):
            parameter.requires_grad_(True)

    def loss(
        self,
        x: torch.Tensor,
        lens: torch.Tensor,
        labels: Sequence[torch.Tensor | None],
        draw: Random,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a batch, by utterance as the CTC loss is, and numbers for the log.

        Args:
            x: Encoder input (B, T, F).
            lens: Its lengths (B,).
            labels: Token ids (L,) of each utterance; None = not known.
            draw: Where random choices come from.
        """
        gated = draw.random() < self.lesson.skip_prob
        how = SkipSettings(spike_extension=draw.choice(self.lesson.extensions))
        alike = self.student.encoder.padding_invariant or bool((lens == lens[0]).all())
        if alike:
            return self._loss(x, lens, labels, gated, how)
        parts = [
            self._loss(row[None, :n], n[None], [label], gated, how)
            for row, n, label in zip(x, lens, labels, strict=True)
        ]
        total = torch.stack([part for part, _ in parts]).mean()
        names = {name for _, numbers in parts for name in numbers}
        mean = {n: sum(part.get(n, 0.0) for _, part in parts) / len(parts) for n in sorted(names)}
        return total, mean

    def _loss(
        self,
        x: torch.Tensor,
        lens: torch.Tensor,
        labels: Sequence[torch.Tensor | None],
        gated: bool,
        how: SkipSettings,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        taught, wanted, below = self._teach(x, lens)
        settings = how.over(self.student.encoder.settings)
        states: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        encoder, ctc = self.student.encoder, self.student.ctc

        def note(state: LayerState) -> None:
            if state.layer_idx in self.gates:
                active = state.gates[-1].keep_mask if state.gates else state.valid_mask
                states[state.layer_idx] = (encoder.normalised(state.full()), active)

        note(below)
        gates = encoder.gates(settings, skip=True) if gated else {}
        advance(encoder, below, gates, ctc, note=note)
        encoded: Encoded = encoder.finish(below, taught.lens, settings)
        log_probs = encoded.log_softmax(ctc)
        kept = below.valid_mask if encoded.keep_mask is None else encoded.keep_mask
        utterances = len(lens)
        parts = {"final": divergence(wanted, log_probs, kept) / utterances}
        for layer_idx, (state, active) in states.items():
            if layer_idx != self.gates[0] or layer_idx in self.new_heads:
                found = head_log_softmax(ctc, state, layer_idx, None)
                parts[f"layer{layer_idx}"] = divergence(wanted, found, active) / utterances
        if self.lesson.state_weight:
            distance = ((encoded.out - taught.out) ** 2).mean(-1)[kept].sum() / utterances
            parts["state"] = self.lesson.state_weight * distance
        if self.lesson.ctc_weight and any(label is not None for label in labels):
            ctc_loss = labelled_loss(log_probs, encoded.lens, labels)
            parts["ctc"] = self.lesson.ctc_weight * ctc_loss
        total = torch.stack(list(parts.values())).sum()
        numbers = {f"loss_{name}": float(value.detach()) for name, value in parts.items()}
        if encoded.trace is not None:
            numbers["skip_ratio"] = encoded.trace.skip_ratio()
        return total, {"loss": float(total.detach()), **numbers}

    @torch.no_grad()
    def _teach(
        self, x: torch.Tensor, lens: torch.Tensor
    ) -> tuple[Encoded, torch.Tensor, LayerState]:
        """Return the teacher's result and log-probabilities, and where the student starts."""
        encoder, ctc = self.teacher.encoder, self.teacher.ctc
        state, olens = encoder.start(x, lens, encoder.settings)
        advance(encoder, state, {}, ctc, stop=self.gates[0])
        valid = state.valid_mask
        frames = Frames(
            state.full().clone(),
            state.frames.pos_emb,
            None if bool(valid.all()) else valid,
            context=self.student.encoder.skip_context,
        )
        below = LayerState(frames, valid, list(self.student.encoder.encoders), self.gates[0])
        advance(encoder, state, {}, ctc)
        taught: Encoded = encoder.finish(state, olens, encoder.settings)
        return taught, taught.log_softmax(ctc), below


def divergence(
    teacher: torch.Tensor, student: torch.Tensor, frame_mask: torch.Tensor
) -> torch.Tensor:
    """Return KL(teacher || student) of log-probabilities (B, T, V), summed over some frames."""
    blank, label = distillation_terms(teacher, student)
    return (blank + label)[frame_mask].sum()


def labelled_loss(
    log_probs: torch.Tensor, lens: torch.Tensor, labels: Sequence[torch.Tensor | None]
) -> torch.Tensor:
    """Return the CTC loss of the utterances with labels, divided by the number of all.

    Args:
        log_probs: (B, T, V).
        lens: Lengths (B,).
        labels: Token ids (L,) or None, of each utterance; at least one is not None.
    """
    rows = [i for i, label in enumerate(labels) if label is not None]
    known = [label for label in labels if label is not None]
    loss = F.ctc_loss(
        log_probs[rows].float().transpose(0, 1),
        pad_sequence(known, batch_first=True).to(log_probs.device),
        lens[rows],
        torch.tensor([len(label) for label in known]),
        blank=BLANK,
        reduction="none",
        zero_infinity=True,
    )
    return loss.sum() / len(labels)
