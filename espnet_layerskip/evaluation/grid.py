"""The skipping settings that calibration tries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.settings import OFF, SkipSettings

THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
EXTENSIONS = ((0, 0), (1, 1), (2, 2))


def settings_to_try(
    experiment: Experiment,
    thresholds: Sequence[float] | None = None,
    extensions: Sequence[tuple[int, int]] | None = None,
) -> list[SkipSettings]:
    """Return full depth, then thresholds x extensions x sets of gates, all resolved.

    Args:
        experiment: Its own threshold and extension are tried too; its context is kept.
        thresholds: None = THRESHOLDS.
        extensions: None = EXTENSIONS.
    """
    stored, gates = experiment.stored, experiment.encoder.gate_layer_idx
    assert stored.threshold is not None
    assert stored.extension is not None
    tried = sorted({*(thresholds or THRESHOLDS), stored.threshold} - {1.0})
    subsets = [s for n in range(1, len(gates) + 1) for s in combinations(gates, n)]
    out = [OFF.resolved(experiment.encoder, stored)]
    for subset in subsets:
        used = None if len(subset) == len(gates) else subset
        for extension in sorted({*(extensions or EXTENSIONS), stored.extension}):
            for threshold in tried:
                one = SkipSettings(threshold, extension, gates=used)
                out.append(one.resolved(experiment.encoder, stored))
    return out
