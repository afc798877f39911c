"""The training of a retrofit: short, of the upper layers and new heads only, and resumable."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from espnet_layerskip.training.resume import save_whole
from espnet_layerskip.training.retrofit_loss import Pupil, Taught

SAVE_SECONDS = 60.0
TELL_SECONDS = 10.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast it is trained.

    Attributes:
        epochs: Passes over the data; 0 = none.
        lr: Highest learning rate of the upper layers.
        head_lr: That of new heads.
        warmup: Share of the updates with a rising rate; then it falls as a half cosine to 0.
        grad_clip: Largest norm of the gradient.
        batch_seconds: Padded audio in a batch.
        seed: Of batches and random choices.
    """

    epochs: int = 4
    lr: float = 3e-4
    head_lr: float = 2e-3
    warmup: float = 0.1
    grad_clip: float = 5.0
    batch_seconds: float = 40.0
    seed: int = 0

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of an update (from 0) as a share of the highest."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return (step + 1) / (rising + 1)
        return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


@dataclass(frozen=True)
class Example:
    """An utterance to learn from.

    Attributes:
        utt_id: Its name.
        seconds: Its length.
        label: Token ids (L,) int64; None = not transcribed.
    """

    utt_id: str
    seconds: float
    label: torch.Tensor | None = None


@dataclass(frozen=True)
class Step:
    """One update of a training; what is random in it follows from its number and the seed.

    Attributes:
        number: From 0.
        batch: What is learnt from.
        seed: Of the training.
    """

    number: int
    batch: Sequence[Example]
    seed: int

    def draws(self) -> tuple[int, Random]:
        """Return the seed of PyTorch for SpecAugment, and where other choices come from."""
        draw = Random(f"{self.seed} update {self.number}")
        return draw.randrange(2**31), draw

    def __str__(self) -> str:
        """Name it in a message."""
        return f"update {self.number} ({', '.join(e.utt_id for e in self.batch)})"


def batches(examples: Sequence[Example], schedule: Schedule, epoch: int) -> list[list[Example]]:
    """Return the batches of an epoch: of similar length, in an order of its own."""
    draw = Random(f"{schedule.seed} {epoch}")
    noisy = {e.utt_id: e.seconds * draw.uniform(0.95, 1.05) for e in examples}
    found: list[list[Example]] = [[]]
    longest = 0.0
    for one in sorted(examples, key=lambda e: (noisy[e.utt_id], e.utt_id)):
        longest = max(longest, one.seconds)
        if found[-1] and longest * (len(found[-1]) + 1) > schedule.batch_seconds:
            found.append([])
            longest = one.seconds
        found[-1].append(one)
    draw.shuffle(found)
    return found


def train(
    pupil: Pupil,
    examples: Sequence[Example],
    schedule: Schedule,
    lessons: Callable[[Sequence[Step]], Iterable[Sequence[Taught]]],
    checkpoint: Path,
    question: Mapping[str, Any],
) -> dict[str, float]:
    """Train the student in place; go on where an interrupted run of the same call was.

    An interrupted and an uninterrupted run give the same weights.

    Args:
        pupil: Student and teacher.
        examples: What to learn from.
        schedule: How long and how fast.
        lessons: Gives what the teacher says of the batches of some updates, in their order.
        checkpoint: File to note the progress in, about once a minute.
        question: What the training depends on; plain types. Another one's checkpoint is refused.

    Returns:
        "seconds" of training and "cpu_seconds" of this process, in all runs together, "updates",
        and the means of the last epoch.

    Raises:
        ValueError: If the checkpoint cannot be read or is of another training.
    """
    epochs = (batches(examples, schedule, epoch) for epoch in range(schedule.epochs))
    found = [batch for epoch in epochs for batch in epoch]
    plan = [Step(number, batch, schedule.seed) for number, batch in enumerate(found)]
    groups = [{"params": pupil.upper, "lr": schedule.lr, "top": schedule.lr}]
    if pupil.heads:
        groups.append({"params": pupil.heads, "lr": schedule.head_lr, "top": schedule.head_lr})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    parameters = [*pupil.upper, *pupil.heads]
    done, before = _resume(pupil, optimizer, checkpoint, question)
    progress = _Progress(len(plan), schedule.epochs, done, before)
    saved = time.monotonic()
    for step, taught in zip(plan[done:], lessons(plan[done:]), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * schedule.rate(step.number, len(plan))
        loss, numbers = pupil.loss(taught, [e.label for e in step.batch], step.draws()[1])
        optimizer.zero_grad()
        if loss.requires_grad and bool(loss.isfinite()):  # all frames skipped: nothing to learn
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(parameters, schedule.grad_clip)
            if bool(norm.isfinite()):
                optimizer.step()
        progress(step.number + 1, numbers)
        if time.monotonic() - saved > SAVE_SECONDS or step is plan[-1]:
            saved = time.monotonic()
            _save(pupil, optimizer, checkpoint, question, step.number + 1, progress.spent)
    seconds, cpu_seconds = progress.spent
    spent = {"seconds": seconds, "cpu_seconds": cpu_seconds, "updates": float(len(plan))}
    return spent | progress.means()


def _save(
    pupil: Pupil,
    optimizer: torch.optim.Optimizer,
    checkpoint: Path,
    question: Mapping[str, Any],
    done: int,
    spent: tuple[float, float],
) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    learnt = {n: p.detach() for n, p in pupil.student.named_parameters() if p.requires_grad}
    state = {
        "question": dict(question),
        "done": done,
        "spent": list(spent),
        "model": learnt,
        "optimizer": optimizer.state_dict(),
    }
    save_whole(state, checkpoint)


def _resume(
    pupil: Pupil,
    optimizer: torch.optim.Optimizer,
    checkpoint: Path,
    question: Mapping[str, Any],
) -> tuple[int, tuple[float, float]]:
    """Load an interrupted training; return the updates done, and their seconds and CPU seconds."""
    if not checkpoint.is_file():
        return 0, (0.0, 0.0)
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        before, done, (seconds, cpu) = state["question"], int(state["done"]), state["spent"]
        model, optimizer_state = state["model"], state["optimizer"]
    except Exception as e:
        raise ValueError(
            f"{checkpoint} cannot be read ({type(e).__name__}): begin again with --force"
        ) from e
    changed = sorted(
        key for key in {*before, *question} if before.get(key) != dict(question).get(key)
    )
    if changed:
        raise ValueError(
            f"{checkpoint} is of a training that differs in {', '.join(changed)}: give the options "
            "of that one to go on with it, another --output, or --force to begin again"
        )
    pupil.student.load_state_dict(model, strict=False)
    optimizer.load_state_dict(optimizer_state)
    print(f"going on after update {done}", file=sys.stderr)
    return done, (float(seconds), float(cpu))


class _Progress:
    """Tells on stderr, about every ten seconds, how far the training is."""

    def __init__(self, steps: int, epochs: int, done: int, spent: tuple[float, float]):
        self.steps, self.per_epoch = steps, max(1, steps // max(1, epochs))
        self.begun, self.before, self.spent = done, spent, spent
        self.started = self.told = time.monotonic()
        self.cpu = time.process_time()
        self.sums: dict[str, list[float]] = {}

    def __call__(self, done: int, numbers: Mapping[str, float]) -> None:
        """Take the number of updates done, and what the last one gave."""
        if (done - 1) % self.per_epoch == 0 and self.steps - done >= self.per_epoch - 1:
            self.sums = {}
        for name, value in numbers.items():
            total = self.sums.setdefault(name, [0.0, 0.0])
            total[0] += value
            total[1] += 1.0
        now = time.monotonic()
        elapsed = now - self.started
        cpu = time.process_time() - self.cpu
        self.spent = self.before[0] + elapsed, self.before[1] + cpu
        if now - self.told < TELL_SECONDS and done < self.steps:
            return
        self.told = now
        left = elapsed / (done - self.begun) * (self.steps - done)
        shown = " ".join(f"{name} {value:.3f}" for name, value in self.means().items())
        print(
            f"update {done} of {self.steps}, {shown}, {self.spent[0]:.0f} s, {left:.0f} s to go",
            file=sys.stderr,
            flush=True,
        )

    def means(self) -> dict[str, float]:
        """Return the means since the current epoch began (of this run)."""
        return {name: total / count for name, (total, count) in self.sums.items()}
