"""Parsing of the skipping options, the same for commands, YAML files and Python callers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

DECODER_TYPES = ("espnet", "greedy", "prefix_beam", "ngram")
SKIP_CONTEXTS = ("packed", "packed_original", "full")
PRECISIONS = ("float32", "bfloat16", "int8")
OFF = 1.0

logger = logging.getLogger(__name__)


def parse_blank_threshold(
    value: str | float | bool | None, name: str = "blank_threshold"
) -> float | None:
    """Return the threshold to set, or None to keep what the model has.

    Args:
        value: "auto" or None (keep), "off" (1.0; YAML reads a bare ``off`` as False), or a
            number in (0, 1].
        name: Of the option, for the error.

    Raises:
        ValueError: For anything else.

    Example:
        >>> [parse_blank_threshold(value) for value in ("auto", "off", "0.9")]
        [None, 1.0, 0.9]
    """
    if value is None or value == "auto":
        return None
    if value == "off" or value is False:
        return OFF
    try:
        threshold = float(value) if value is not True else float("nan")
    except ValueError:
        threshold = float("nan")
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"{name} must be 'auto', 'off' or a number in (0, 1], but got {value!r}")
    return threshold


def parse_spike_extension(value: str | Sequence[int] | None) -> tuple[int, int] | None:
    """Return (left, right) in frames, or None to keep the model's own.

    Args:
        value: "L,R", a pair of integers >= 0, or None.

    Raises:
        ValueError: For anything else.

    Example:
        >>> parse_spike_extension("1,2")
        (1, 2)
    """
    if value is None:
        return None
    parts = value.replace(" ", "").split(",") if isinstance(value, str) else list(value)
    try:
        left, right = (int(part) for part in parts)
    except (TypeError, ValueError):
        left = right = -1
    if left < 0 or right < 0:
        raise ValueError(
            f"spike_extension must be two frame counts 'L,R', both >= 0, but got {value!r}"
        )
    return left, right


def parse_gates(value: str | None) -> tuple[int, ...] | None:
    """Return the gate layers to use, or None for all that the model has.

    Args:
        value: "K" or "K,K,...", or None.

    Raises:
        ValueError: For anything else.

    Example:
        >>> parse_gates("8,4")
        (4, 8)
    """
    if value is None:
        return None
    try:
        return tuple(sorted({int(part) for part in value.split(",")}))
    except ValueError:
        message = f"gates must be layer numbers 'K' or 'K,K,...', but got {value!r}"
        raise ValueError(message) from None


def parse_exit_layer(value: str | int | None) -> int | None:
    """Return the layer after which every frame stops, or None for no early exit.

    Raises:
        ValueError: For anything but an integer, "none" or None.
    """
    if value is None or value == "none":
        return None
    try:
        return int(value)
    except ValueError:
        message = f"exit_layer must be a layer number or 'none', but got {value!r}"
        raise ValueError(message) from None


def check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Return the value if it is one of the choices.

    Raises:
        ValueError: Otherwise; lists the choices.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, but got {value!r}")
    return value


def set_skipping(
    encoder: Any,
    blank_threshold: str | float | None = None,
    spike_extension: str | Sequence[int] | None = None,
    skip_context: str | None = None,
    exit_layer: str | int | None = None,
) -> None:
    """Set the skipping options of an encoder; None keeps what it has.

    Args:
        encoder: A layerskip encoder; on any other only "off" and None can be asked for.
        blank_threshold: See :func:`parse_blank_threshold`.
        spike_extension: See :func:`parse_spike_extension`.
        skip_context: One of SKIP_CONTEXTS.
        exit_layer: See :func:`parse_exit_layer`.

    Raises:
        ValueError: For a wrong value, or if the encoder has no gate.
    """
    threshold = parse_blank_threshold(blank_threshold)
    values = {
        "blank_threshold": threshold,
        "spike_extension": parse_spike_extension(spike_extension),
        "skip_context": skip_context and check_choice("skip_context", skip_context, SKIP_CONTEXTS),
        "exit_layer": parse_exit_layer(exit_layer),
    }
    given = [name for name, value in values.items() if value is not None]
    if threshold == OFF:
        given.remove("blank_threshold")
    if given and not getattr(encoder, "gate_layer_idx", None):
        raise ValueError(
            f"{', '.join(given)} cannot be set: the encoder is a {type(encoder).__name__} without "
            "a gate; train it with encoder: layerskip_conformer and gate_layer_idx: [K]"
        )
    if getattr(encoder, "gate_layer_idx", None):
        for name, value in values.items():
            if value is not None:
                setattr(encoder, name, value)


def set_fast_form(encoder: Any, precision: str = "float32", optimize: bool = True) -> None:
    """Let an encoder run in its fast form, if it has one.

    Args:
        encoder: Any encoder in evaluation mode.
        precision: One of PRECISIONS.
        optimize: False = the plain form, which is float32.

    Raises:
        ValueError: If another precision than float32 is asked for and cannot be had.
    """
    check_choice("precision", precision, PRECISIONS)
    exact = precision == "float32"
    if not exact and not (optimize and hasattr(encoder, "optimize_for_inference")):
        raise ValueError(
            f"precision {precision} needs a layerskip encoder and its fast form, but got a "
            f"{type(encoder).__name__} with optimize={optimize}"
        )
    if optimize and hasattr(encoder, "optimize_for_inference"):
        try:
            encoder.optimize_for_inference(precision)
        except ValueError as e:
            if not exact:
                raise
            logger.info("the encoder runs in its plain form: %s", e)


def quantize_dynamic(model: Any, espnet_arguments: Mapping[str, Any]) -> None:
    """Quantize encoder and decoder in place, as ESPnet's ``quantize_asr_model`` does.

    The CTC head and the search keep their modules.

    Args:
        model: ESPnet ASR model.
        espnet_arguments: Those of ESPnet's Speech2Text: ``quantize_modules`` (names of classes
            of torch.nn) and ``quantize_dtype``.
    """
    import torch

    modules = espnet_arguments.get("quantize_modules", ["Linear"])
    dtype = espnet_arguments.get("quantize_dtype", "qint8")
    for module in (model.encoder, model.decoder):
        if module is not None:
            torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
                module,
                qconfig_spec={getattr(torch.nn, name) for name in modules},
                dtype=getattr(torch, dtype),
                inplace=True,
            )
