"""Thresholds and extensions to try: those that calibration sweeps and a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.method.settings import OFF, SkipSettings

THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
EXTENSIONS = ((0, 0), (1, 1), (2, 2))


def grid(
    stored: SkipSettings,
    thresholds: Sequence[float] | None = None,
    extensions: Sequence[tuple[int, int]] | None = None,
) -> list[SkipSettings]:
    """Return thresholds x extensions, extension by extension, by rising threshold.

    Args:
        stored: Its threshold (unless it is off) and extension are tried too.
        thresholds: None = THRESHOLDS.
        extensions: None = EXTENSIONS.
    """
    own = None if stored.full_depth else stored.blank_threshold
    same = {*(thresholds or THRESHOLDS), *([own] if isinstance(own, float) else [])}
    tried: list[float | tuple[float, ...]] = [*sorted(same)]
    if isinstance(own, tuple):  # one for each gate
        tried.append(own)
    pairs = {*(extensions or EXTENSIONS), stored.spike_extension or (0, 0)}
    return [SkipSettings(p, pair) for pair in sorted(pairs) for p in tried]


def settings_to_try(
    experiment: Experiment,
    thresholds: Sequence[float] | None = None,
    extensions: Sequence[tuple[int, int]] | None = None,
) -> list[SkipSettings]:
    """Return full depth, then the grid with every set of gates; all resolved.

    Args:
        experiment: Its own context is kept.
        thresholds: No others are tried; None = as `grid` has them.
        extensions: No others are tried; None = as `grid` has them.
    """
    encoder, stored = experiment.encoder, experiment.settings
    gates = encoder.gate_layer_idx
    subsets = [s for n in range(1, len(gates) + 1) for s in combinations(gates, n)]
    wanted = grid(stored, thresholds, extensions)
    if thresholds:
        wanted = [one for one in wanted if one.blank_threshold in thresholds]
    if extensions:
        wanted = [one for one in wanted if one.spike_extension in extensions]
    tried = [one.over(SkipSettings(gates_in_use=s)) for s in subsets for one in wanted]
    return [one.resolved(encoder) for one in (OFF, *tried)]
