"""The forms of one model that are compared: skipping, full depth, stock, precisions, twins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from espnet_layerskip._compat import ConformerEncoder
from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.settings import OFF, SkipSettings, can_skip
from espnet_layerskip.evaluation.stock import fast_class, stock_class
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.method.settings import PRECISIONS

ON, FULL, STOCK = "ours_skip_on", "ours_skip_off", "stock_class_same_weights"
INT8 = "int8_skip_off"


@dataclass(frozen=True)
class Variant:
    """One form of a model.

    Attributes:
        system: What runs; why it cannot, where it cannot be built.
        full_depth: Name of the same form at full depth, which its saving is related to; ""
            for a form that is at full depth itself.
        reference: Name of the form that its WER is judged by; "" = other weights, or the
            reference itself.
    """

    system: System | str
    full_depth: str = ""
    reference: str = ""


def make_variants(
    experiment: Experiment, settings: SkipSettings, twins: Mapping[str, Experiment]
) -> dict[str, Variant]:
    """Return the forms by name.

    Args:
        experiment: With a gate.
        settings: How it skips; None values keep what the experiment says.
        twins: Other experiments at full depth, by label: a trained stock twin, a shallower one.
            A stock one comes in ESPnet's class, and (``_fast``) in our fast form.

    Raises:
        ValueError: If the experiment's encoder has no gate.
    """
    encoder = experiment.encoder
    if not can_skip(encoder):
        raise ValueError(
            f"the experiment has a {type(encoder).__name__} without a gate: an encoder with "
            "gate_layer_idx is needed; give a stock experiment as a twin"
        )
    full = System(experiment, OFF)
    found = {
        ON: Variant(System(experiment, settings), FULL, FULL),
        FULL: Variant(full),
        STOCK: Variant(_attempt(partial(stock_class, full)), "", FULL),
    }
    for precision in PRECISIONS[1:]:
        on, off = (f"{precision}_skip_{switch}" for switch in ("on", "off"))
        for name, wanted, full_depth in ((on, settings, off), (off, OFF, "")):
            build = partial(System, experiment, replace(wanted, precision=precision))
            found[name] = Variant(_attempt(build), full_depth, FULL)
    for layer in encoder.gate_layer_idx:
        system = System(experiment, SkipSettings(threshold=1.0, exit_layer=layer))
        found[f"exit_at_{layer}"] = Variant(system, FULL, FULL)
    for label, twin in twins.items():
        system = System(twin, OFF)
        found[f"twin_{label}"] = Variant(system)
        if _is_stock(twin):
            found[f"twin_{label}_fast"] = Variant(_attempt(partial(fast_class, system)))
    return found


def _is_stock(experiment: Experiment) -> bool:
    encoder = experiment.encoder
    ours = isinstance(encoder, LayerSkipConformerEncoder)
    return isinstance(encoder, ConformerEncoder) and not ours


def _attempt(build: Callable[[], System]) -> System | str:
    try:
        return build()
    except (ValueError, RuntimeError, AttributeError) as e:
        return f"cannot be built: {e}"
