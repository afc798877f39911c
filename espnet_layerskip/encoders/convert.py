"""From a stock ESPnet encoder to ours and back: another class over the same modules."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.encoders.base import LayerSkipEncoder


def make_ours(encoder: Any, gate_layer_idx: Sequence[int], **options: Any) -> None:
    """Make an encoder skip, in place; parameters, hooks and mode are kept.

    Args:
        encoder: One of a stock class in `ENCODERS`, or one of ours (to change its gates).
        gate_layer_idx: 1-based layers after which a gate sits.
        options: As in `LayerSkipEncoder.init_skipping`.

    Raises:
        ValueError: For an encoder of another class, or options that it cannot have; the
            encoder is then unchanged.
    """
    found = from_stock(encoder, gate_layer_idx, **options)
    if isinstance(encoder, LayerSkipEncoder):
        encoder.stop_watching()
    encoder.__class__ = type(found)
    encoder.__dict__.update(found.__dict__)


def make_stock(encoder: Any) -> None:
    """Undo `make_ours`, also for an encoder that was built as one of ours.

    Raises:
        ValueError: If it is not one of ours.
    """
    if not isinstance(encoder, LayerSkipEncoder):
        raise ValueError(f"the encoder is a {type(encoder).__name__}, which does not skip")
    encoder.end_skipping()
    encoder.__class__ = encoder.STOCK


def from_stock(encoder: Any, gate_layer_idx: Sequence[int] = (), **options: Any) -> Any:
    """Return our form of an encoder, with the same modules; it stays as it is. See `make_ours`."""
    known = {ours.STOCK: ours for ours in ENCODERS.values()}
    stock = stock_of(encoder)
    if stock not in known:
        names = ", ".join(sorted(cls.__name__ for cls in known))
        raise ValueError(f"the encoder is a {stock.__name__}, which cannot skip; known are {names}")
    found = copy.copy(encoder)
    if isinstance(encoder, LayerSkipEncoder):  # its gates are no reason for ctc_trim
        found.ctc_trim = encoder._stock_trim
    found.__class__ = known[stock]
    found.init_skipping(gate_layer_idx, **options)
    return found


def stock_of(encoder: Any) -> type:
    """Return ESPnet's class of an encoder, ours or stock."""
    return encoder.STOCK if isinstance(encoder, LayerSkipEncoder) else type(encoder)


def to_stock(encoder: Any) -> Any:
    """Return the stock form of one of our encoders, with the same modules."""
    found = copy.copy(encoder)
    found._hooks = []  # those of the encoder that stays, on modules that both share
    make_stock(found)
    return found
