"""Layer skipping for any loaded ESPnet model, in place and without training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from espnet_layerskip.encoders.convert import make_ours, make_stock

logger = logging.getLogger(__name__)


def add_skipping(
    model: Any, gate_layer_idx: Sequence[int], optimize: bool = True, **settings: Any
) -> Any:
    """Give the encoder of a loaded model gates, in place; no parameter is touched.

    The gates ask the model's CTC head, so it should be trained for their layers (ESPnet's
    ``interctc_layer_idx``, or our ``model: layerskip``). Where it is not, there is a warning.

    Args:
        model: An ESPnet ASR model, or a Speech2Text object (ESPnet's or ours).
        gate_layer_idx: 1-based layers after which a gate sits.
        optimize: Run the exact fast form, where the encoder has one and is in evaluation mode.
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
    if getattr(asr_model, "ctc", None) is None:
        raise ValueError(
            f"{type(asr_model).__name__} has no CTC head (ctc_weight: 0.0), which the gates need"
        )
    trained = {*getattr(encoder, "interctc_layer_idx", ()), *getattr(encoder, "gate_layer_idx", ())}
    make_ours(encoder, gate_layer_idx, **settings)
    if untrained := sorted(set(gate_layer_idx) - trained):
        logger.warning(
            "the CTC head is not known to be trained for layers %s (interctc_layer_idx: %s): its "
            "gates may be wrong there",
            untrained,
            sorted(trained),
        )
    if optimize and not encoder.training:
        with suppress(ValueError):  # no fast form: it runs in the plain one
            encoder.optimize_for_inference()
    return model


def remove_skipping(model: Any) -> Any:
    """Make the encoder of a loaded model the stock one again, in place; see `add_skipping`.

    Raises:
        ValueError: If its encoder does not skip.
    """
    make_stock(_parts(model)[1])
    return model


def _parts(model: Any) -> tuple[Any, Any]:
    """Return the ASR model in a Speech2Text object or a model, and its encoder."""
    asr_model = getattr(model, "asr_model", model)
    encoder = getattr(asr_model, "encoder", None)
    if encoder is None:
        raise ValueError(
            "an ESPnet ASR model or Speech2Text object with an encoder is needed, but got a "
            f"{type(model).__name__}"
        )
    return asr_model, encoder
