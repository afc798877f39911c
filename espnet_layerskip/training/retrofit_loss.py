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


@dataclass
class Taught:
    """What a teacher says of a batch, and where its student starts; small when it is sent.

    Attributes:
        lens: Lengths (B,) int64, subsampled.
        below: States (B, T, D) after the layer of the first gate, which both share.
        out: The teacher's normalised output (B, T, D). Its posteriors follow by the CTC head.
        pos_emb: ESPnet's positional embedding of T frames, or None.
    """

    lens: torch.Tensor
    below: torch.Tensor
    out: torch.Tensor
    pos_emb: torch.Tensor | None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle plain arrays: tensors would be shared files, which end with their process."""
        return {k: None if v is None else v.cpu().numpy() for k, v in vars(self).items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take them back."""
        vars(self).update({k: None if v is None else torch.from_numpy(v) for k, v in state.items()})

    def to(self, device: torch.device | str) -> Taught:
        """Return it on a device."""
        pos_emb = None if self.pos_emb is None else self.pos_emb.to(device)
        return Taught(self.lens.to(device), self.below.to(device), self.out.to(device), pos_emb)


def teach(model: Any, gate: int, x: torch.Tensor, lens: torch.Tensor) -> list[Taught]:
    """Return what a model says of a batch at full depth: in one, or one an utterance.

    Args:
        model: ESPnet ASR model in evaluation mode, its encoder in our class.
        gate: Layer of the student's first gate.
        x: Encoder input (B, T, F).
        lens: Its lengths (B,).
    """
    encoder, ctc = model.encoder, model.ctc
    if not encoder.padding_invariant and not bool((lens == lens[0]).all()):
        rows = zip(x, lens, strict=True)
        return [one for row, n in rows for one in teach(model, gate, row[None, :n], n[None])]
    with torch.no_grad():
        state, olens = encoder.start(x, lens, encoder.settings)
        advance(encoder, state, {}, ctc, stop=gate)
        below = state.full().clone()
        advance(encoder, state, {}, ctc)
        out = encoder.finish(state, olens, encoder.settings).out
    return [Taught(olens, below, out, state.frames.pos_emb)]


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
        self, taught: Sequence[Taught], labels: Sequence[torch.Tensor | None], draw: Random
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a batch, by utterance as the CTC loss is, and numbers for the log.

        Args:
            taught: Of the batch, as `teach` gives it.
            labels: Token ids (L,) of each utterance; None = not known.
            draw: Where random choices come from.
        """
        gated = draw.random() < self.lesson.skip_prob
        how = SkipSettings(spike_extension=draw.choice(self.lesson.extensions))
        if len(taught) == 1:
            return self._loss(taught[0], labels, gated, how)
        parts = [
            self._loss(one, [label], gated, how) for one, label in zip(taught, labels, strict=True)
        ]
        total = torch.stack([part for part, _ in parts]).mean()
        names = {name for _, numbers in parts for name in numbers}
        mean = {n: sum(part.get(n, 0.0) for _, part in parts) / len(parts) for n in sorted(names)}
        return total, mean

    def _loss(
        self,
        taught: Taught,
        labels: Sequence[torch.Tensor | None],
        gated: bool,
        how: SkipSettings,
    ) -> tuple[torch.Tensor, dict[str, float]]:
        with torch.no_grad():
            wanted = head_log_softmax(self.teacher.ctc, taught.out, None, None)
        below = self._start(taught)
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
        utterances = len(taught.lens)
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

    def _start(self, taught: Taught) -> LayerState:
        """Return where the student starts: before the first gate decides."""
        encoder = self.student.encoder
        places = torch.arange(taught.below.size(1), device=taught.below.device)
        valid = places < taught.lens[:, None]
        frames = Frames(
            taught.below,
            taught.pos_emb,
            None if bool(valid.all()) else valid,
            context=encoder.skip_context,
        )
        return LayerState(frames, valid, list(encoder.encoders), self.gates[0])


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
