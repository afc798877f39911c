"""Layer skipping for any loaded ESPnet model, in place and without training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from espnet_layerskip.encoders.convert import make_ours, make_stock
from espnet_layerskip.inference.calibration import find_calibration, log_choice
from espnet_layerskip.method.settings import SkipSettings, read_gates

logger = logging.getLogger(__name__)


def add_skipping(
    model: Any,
    gate_layer_idx: Sequence[int],
    optimize: bool = True,
    model_file: Path | str | None = None,
    **settings: Any,
) -> Any:
    """Give the encoder of a loaded model gates, in place; no parameter is touched.

    Without ``blank_threshold`` it skips as was calibrated for these gates, if that is known: our
    Speech2Text knows it, for other objects ``model_file`` leads to it. A line of the log (INFO)
    says what is used.

    The gates ask the model's CTC head, so it should be trained for their layers (ESPnet's
    ``interctc_layer_idx``, or our ``model: layerskip``). Where it is not, there is a warning.

    Args:
        model: An ESPnet ASR or S2T (OWSM) model, or an object that holds one: Speech2Text
            (ESPnet's or ours), Speech2TextGreedySearch, ForcedAligner, CTCSegmentation,
            DistributedDataParallel.
        gate_layer_idx: 1-based layers after which a gate sits.
        optimize: Run the exact fast form, where the encoder has one and is in evaluation mode.
        model_file: The checkpoint that ``model`` was loaded from.
        settings: Those of `SkipSettings` (``blank_threshold=0.9`` ...), and ``train_skip_prob``
            and ``train_spike_extensions`` of the encoder.

    Returns:
        ``model``.

    Raises:
        ValueError: For a model without a CTC head, an encoder that cannot skip, or settings
            that do not fit; the model is then as it was.

    Example::

        speech2text = espnet2.bin.asr_inference.Speech2Text(config, checkpoint, ctc_weight=1.0)
        add_skipping(speech2text, gate_layer_idx=[4], blank_threshold=0.9)
    """
    asr_model, encoder = _parts(model)
    gates = read_gates(gate_layer_idx, "gate_layer_idx")
    if not gates:
        raise ValueError("add_skipping needs a gate: gate_layer_idx=[K], the layer before it")
    names = {f.name for f in fields(SkipSettings)}
    if unknown := settings.keys() - {*names, "train_skip_prob", "train_spike_extensions"}:
        raise TypeError(
            f"add_skipping has no setting {', '.join(sorted(unknown))}; it has "
            f"{', '.join(sorted(names))}, train_skip_prob and train_spike_extensions"
        )
    if model_file is not None and not Path(model_file).is_file():
        raise ValueError(f"model_file {model_file}: no such file; the checkpoint (.pth) is needed")
    if getattr(asr_model, "ctc", None) is None:
        raise ValueError(
            f"{type(asr_model).__name__} has no CTC head (ctc_weight: 0.0), which the gates need"
        )
    trained = {*getattr(encoder, "interctc_layer_idx", ()), *getattr(encoder, "gate_layer_idx", ())}
    asked = SkipSettings(**{name: settings.pop(name) for name in names & settings.keys()})
    found, problem = getattr(model, "calibration", None), ""
    if asked.blank_threshold is not None or (found is not None and not found.fits(gates)):
        found = None
    if asked.blank_threshold is None and model_file is not None:
        found, problem = find_calibration(model_file, gates)
    if found is not None and asked.gates_in_use is None and (new := set(gates) - found.gates):
        problem = f"it was calibrated without gates after layers {sorted(new)}"
        found = None
    wanted = asked if found is None else asked.over(found.settings)
    told = {name: value for name, value in asdict(wanted).items() if value is not None}
    fast = getattr(encoder, "fast_form", lambda: None)()
    make_ours(encoder, gates, **told, **settings)
    log_choice(encoder.settings, found, asked != SkipSettings(), problem)
    if untrained := sorted(set(gates) - trained):
        logger.warning(
            "the CTC head is not known to be trained for layers %s (interctc_layer_idx: %s): its "
            "gates may be wrong there",
            untrained,
            sorted(trained),
        )
    if optimize and not encoder.training:
        with suppress(ValueError):  # no fast form: it runs in the plain one
            encoder.optimize_for_inference("float32" if fast is None else fast.precision)
    return model


def remove_skipping(model: Any) -> Any:
    """Make the encoder of a loaded model the stock one again, in place; see `add_skipping`.

    Raises:
        ValueError: If its encoder does not skip.
    """
    make_stock(_parts(model)[1])
    return model


def choose_skipping(model: Any, settings: SkipSettings) -> Any:
    """Let a loaded model skip as a record says, whether it has gates or not; in place.

    Args:
        model: As of `add_skipping`.
        settings: ``gates_in_use`` are the gate layers. None: those that the encoder has, or else
            the layers whose CTC heads ESPnet has trained (``interctc_layer_idx``).

    Returns:
        ``model``.

    Raises:
        ValueError: As of `add_skipping`, and if there are no gates and no trained heads.
    """
    _, encoder = _parts(model)
    gates = settings.gates_in_use
    own = getattr(encoder, "gate_layer_idx", [])
    if own and set(gates or own) <= set(own):
        encoder.settings = settings.over(encoder.settings)
        return model
    gates = gates or tuple(getattr(encoder, "interctc_layer_idx", ()))
    if not gates:
        raise ValueError(
            f"the {type(encoder).__name__} has no gates and no interctc_layer_idx, so that no CTC "
            "head is known to be trained for one of its layers: name the layers (gates=K,K)"
        )
    if own:  # what it was trained with stays, but for what belongs to its gates
        now = encoder.settings
        threshold = None if isinstance(now.blank_threshold, tuple) else now.blank_threshold
        settings = settings.over(replace(now, gates_in_use=None, blank_threshold=threshold))
    wanted = {k: v for k, v in asdict(settings).items() if v is not None and k != "gates_in_use"}
    return add_skipping(model, gates, **wanted)


def _parts(model: Any) -> tuple[Any, Any]:
    """Return the ASR or S2T model in an inference object or a model, and its encoder."""
    held = (getattr(model, name, None) for name in ("asr_model", "s2t_model", "network", "module"))
    asr_model = next((one for one in held if one is not None), model)
    encoder = getattr(asr_model, "encoder", None)
    if encoder is None:
        raise ValueError(
            "an ESPnet ASR or S2T model or Speech2Text object with an encoder is needed, but got a "
            f"{type(model).__name__}"
        )
    return asr_model, encoder
