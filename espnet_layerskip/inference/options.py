"""Inference options beside the skipping: the decoder, the fast form, quantization."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from espnet_layerskip.method.settings import PRECISIONS, check_choice

DECODER_TYPES = ("espnet", "greedy", "prefix_beam", "ngram")

logger = logging.getLogger(__name__)


def set_fast_form(
    encoder: Any, precision: str = "float32", optimize: bool = True, convert: bool = False
) -> None:
    """Let an encoder run in its fast form, if it has one.

    Args:
        encoder: Any encoder in evaluation mode.
        precision: One of PRECISIONS.
        optimize: False = the plain form, which is float32.
        convert: In float32, put a stock encoder into our class, see `use_fast_class`.

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
    if exact and optimize and convert:
        use_fast_class(encoder)
    if optimize and hasattr(encoder, "optimize_for_inference"):
        try:
            encoder.optimize_for_inference(precision)
        except ValueError as e:
            if not exact:
                raise
            logger.info("the encoder runs in its plain form: %s", e)


def use_fast_class(encoder: Any) -> None:
    """Put a stock encoder into our class, in place, if that has a fast form for it.

    The output stays the same (1e-5), nothing is skipped and no parameter is touched; any other
    encoder is left alone, as is one with ``ctc_trim``.

    Args:
        encoder: Any encoder in evaluation mode.
    """
    from espnet_layerskip.encoders import ENCODERS
    from espnet_layerskip.encoders.convert import make_ours, make_stock

    known = {ours.STOCK: ours for ours in ENCODERS.values()}
    ours = known.get(type(encoder))
    if ours is None or ours.FAST is None or getattr(encoder, "ctc_trim", False):
        return
    try:
        make_ours(encoder, (), skip_context="packed")
    except ValueError as e:
        logger.info("the encoder stays in ESPnet's class: %s", e)
        return
    try:
        encoder.optimize_for_inference()
    except ValueError as e:
        make_stock(encoder)
        logger.info("the encoder stays in ESPnet's class: %s", e)


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
