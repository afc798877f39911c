"""The skipping settings that calibration tries."""

from __future__ import annotations

from itertools import combinations

from espnet_layerskip.bench.experiment import Experiment
from espnet_layerskip.bench.settings import OFF, SkipSettings

THRESHOLDS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
EXTENSIONS = ((0, 0), (1, 1), (2, 2))


def settings_to_try(experiment: Experiment) -> list[SkipSettings]:
    """Return full depth, then thresholds x extensions x sets of gates, all resolved.

    The experiment's own threshold and extension are among them; its context is kept.
    """
    stored, gates = experiment.stored, experiment.encoder.gate_layer_idx
    assert stored.threshold is not None
    assert stored.extension is not None
    thresholds = sorted({*THRESHOLDS, stored.threshold} - {1.0})
    subsets = [s for n in range(1, len(gates) + 1) for s in combinations(gates, n)]
    out = [OFF.resolved(experiment.encoder, stored)]
    for subset in subsets:
        used = None if len(subset) == len(gates) else subset
        for extension in sorted({*EXTENSIONS, stored.extension}):
            for threshold in thresholds:
                out.append(SkipSettings(threshold, extension, stored.context, None, used))
    return out
