"""From how many skipped frames on skipping pays, measured on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import median
from typing import Any

import torch

from espnet_layerskip._compat import TooShortUttError
from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.inputs import TestSet
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.evaluation.timing import time_interleaved
from espnet_layerskip.method.gate import BlankGate
from espnet_layerskip.method.settings import SkipSettings
from espnet_layerskip.method.trace import GateTrace
from espnet_layerskip.method.walk import advance

DROPPED = (12, 24, 48, 96, 144)  # frames
KEPT = 0.3  # of all frames; kept ones lie evenly between the others
MARGIN = 1.5  # of what was measured: in use, caches are colder than here (by a sixth at d = 96)
LIMIT = 400  # where it never pays: no shorter utterance skips (16 s at 25 frames a second)


@dataclass(frozen=True)
class DropSome(BlankGate):
    """A gate that looks and decides like any other, and then drops what it is told to.

    Args:
        kept: Frames that go on (1, T) bool.
    """

    kept: torch.Tensor | None = None

    def decide(
        self,
        layer_idx: int,
        seen: tuple[torch.Tensor, ...],
        valid_mask: torch.Tensor,
        before: GateTrace | None,
    ) -> GateTrace:
        """Decide as a `BlankGate`, but for the frames."""
        found = super().decide(layer_idx, seen, valid_mask, before)
        assert self.kept is not None
        return replace(found, keep_mask=self.kept & valid_mask)


def with_break_even(
    experiment: Experiment, data: TestSet, settings: Sequence[SkipSettings]
) -> list[SkipSettings]:
    """Return the settings with what `break_even` finds for the first of them that skips.

    Where no speech is long enough for the encoder there is nothing to measure, and no rule.

    Args:
        experiment: Its encoder has gates.
        data: Speech.
        settings: Whole records; those without a gate that decides stay as they are.
    """
    gated = [one for one in settings if not one.full_depth and one.exit_layer is None]
    if not gated:
        return list(settings)
    system = System(experiment, gated[0])
    try:
        feats, _ = system.batch([max(data.speech, key=lambda one: one.seconds)])
    except TooShortUttError:
        return list(settings)
    least = break_even(system.encoder, system.model.ctc, feats, system.settings)
    return [replace(one, min_skipped_frames=least) if one in gated else one for one in settings]


def break_even(
    encoder: Any,
    ctc: Any,
    feats: torch.Tensor,
    settings: SkipSettings,
    repeats: int = 25,
    clock: Callable[[], float] | None = None,
) -> int:
    """Return ``min_skipped_frames``: fewer dropped frames than that cost time instead of saving it.

    Skipping and full depth take turns, up to the log-probabilities, and so do inputs of some
    lengths; the median of what a pass saved counts. A line through it, by number of dropped frames,
    says where the saving begins. The last gate in use is the one that is measured: it saves the
    least.

    Args:
        encoder: A `LayerSkipEncoder` with gates, in evaluation mode.
        ctc: Its CTC head.
        feats: Any features (1, T, F) that the encoder takes; repeated where longer ones are needed.
        settings: How it skips, a whole record.
        repeats: Timed passes.
        clock: Seconds, monotonic; None = the processor's time with one thread, which other programs
            disturb less, else the time of day.
    """
    if clock is None:
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    layer_idx = max(settings.thresholds(encoder.gate_layer_idx))
    cases: dict[str, Callable[[], object]] = {}
    with torch.inference_mode():
        for n in DROPPED:
            case = _case(encoder, ctc, feats, settings, layer_idx, n)
            cases |= {f"{name} {n}": run for name, run in case.items()}
        taken = time_interleaved([cases], repeats, warmup=2, clock=clock)
    passes = [zip(taken[f"off {n}"], taken[f"on {n}"], strict=True) for n in DROPPED]
    return beginning(DROPPED, [median(off - on for off, on in pairs) for pairs in passes])


def beginning(dropped: Sequence[int], saved: Sequence[float]) -> int:
    """Return the number of dropped frames from which on time is saved, with the margin.

    The line is Theil's and Sen's, of medians: one disturbed timing does not move it.

    Args:
        dropped: Numbers of frames.
        saved: Seconds that dropping them saved; negative = it cost time.
    """
    points = list(zip(dropped, saved, strict=True))
    slope = median((t - s) / (n - m) for (m, s), (n, t) in combinations(points, 2))
    start = median(s - slope * m for m, s in points)
    if slope <= 0.0:
        return LIMIT
    return min(LIMIT, max(1, math.ceil(MARGIN * -start / slope)))


def _case(
    encoder: Any,
    ctc: Any,
    feats: torch.Tensor,
    settings: SkipSettings,
    layer_idx: int,
    dropped: int,
) -> dict[str, Callable[[], object]]:
    """Return what is timed, "off" and "on", for an input of which so many frames are dropped."""
    wanted = round(dropped / (1.0 - KEPT))
    lens = torch.tensor([feats.size(1)])
    per_frame = feats.size(1) / int(encoder.subsample(feats, lens)[2])
    length = math.ceil((wanted + 2) * per_frame)
    x = feats.repeat(1, -(-length // feats.size(1)), 1)[:, :length].contiguous()
    lens = torch.tensor([length])
    total = int(encoder.subsample(x, lens)[2])
    kept = torch.zeros(1, total, dtype=torch.bool)
    kept[0, torch.linspace(0, total - 1, max(1, total - dropped)).long()] = True
    gate = DropSome(kept=kept, min_skipped_frames=1)

    def run(gates: dict[int, BlankGate]) -> object:
        state, olens = encoder.start(x, lens, settings)
        advance(encoder, state, gates, ctc)
        encoded = encoder.finish(state, olens, settings)
        return encoded, encoded.log_softmax(ctc)

    return {"off": lambda: run({}), "on": lambda: run({layer_idx: gate})}
