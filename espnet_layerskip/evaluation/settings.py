"""Inference-time skipping settings: written on the command line, applied to an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from espnet_layerskip.method.settings import (
    PRECISIONS,
    SKIP_CONTEXTS,
    check_choice,
    parse_blank_threshold,
    parse_exit_layer,
    parse_gates,
    parse_spike_extension,
)

KEYS = ("threshold", "extension", "context", "exit", "gates", "precision", "repeats")


@dataclass(frozen=True)
class SkipSettings:
    """How an encoder is to skip; None keeps what the experiment's configuration says.

    Attributes:
        threshold: Blank threshold in (0, 1]; 1.0 = off.
        extension: Frames (left, right) of each spike that run too.
        context: What a kept frame sees in the upper layers.
        exit_layer: 1-based gate layer after which all frames stop.
        gates: Gate layers that decide; None = all that the encoder has.
        precision: Of the encoder; not applied here, a system makes an encoder of its own.
        repeats: Repeat threshold in (0, 1]; 1.0 = off.
    """

    threshold: float | None = None
    extension: tuple[int, int] | None = None
    context: str | None = None
    exit_layer: int | None = None
    gates: tuple[int, ...] | None = None
    precision: str | None = None
    repeats: float | None = None

    def resolved(self, encoder: Any, stored: SkipSettings | None = None) -> SkipSettings:
        """Return the settings with None replaced, but for exit layer and precision.

        Args:
            encoder: The encoder that they are for.
            stored: Where the values come from; None = the encoder's present ones.

        Raises:
            ValueError: If a setting is given for an encoder that cannot skip.
        """
        if not can_skip(encoder):
            if self not in (SkipSettings(), OFF):
                raise ValueError(
                    f"the settings {self.describe()!r} need a layer-skipping encoder, but this "
                    f"experiment has {type(encoder).__name__}; leave them out"
                )
            return OFF
        if stored is None:
            extension = tuple(encoder.spike_extension)
            stored = SkipSettings(
                encoder.blank_threshold,
                extension,
                encoder.skip_context,
                gates=_fewer_gates(encoder),
                repeats=getattr(encoder, "repeat_threshold", None),
            )
        return SkipSettings(
            stored.threshold if self.threshold is None else self.threshold,
            stored.extension if self.extension is None else self.extension,
            stored.context if self.context is None else self.context,
            self.exit_layer,
            stored.gates if self.gates is None else self.gates,
            self.precision,
            stored.repeats if self.repeats is None else self.repeats,
        )

    @property
    def full_depth(self) -> bool:
        """True if every frame runs every layer; ask it of resolved settings."""
        return self.threshold == 1.0 and self.exit_layer is None

    def apply(self, encoder: Any) -> None:
        """Set the encoder's attributes; stock encoders have none.

        Raises:
            ValueError: For a value that the encoder refuses.
        """
        if not can_skip(encoder):
            return
        if self.threshold is not None:
            encoder.blank_threshold = self.threshold
        if self.extension is not None:
            encoder.spike_extension = self.extension
        if self.context is not None:
            encoder.skip_context = self.context
        if self.repeats is not None:
            encoder.repeat_threshold = self.repeats
        encoder.exit_layer = self.exit_layer
        encoder.gates_in_use = self.gates or encoder.gate_layer_idx

    def describe(self) -> str:
        """Return the settings as they are written on the command line."""
        parts = []
        if self.threshold is not None:
            parts.append(f"threshold={self.threshold:g}")
        if self.extension is not None:
            parts.append(f"extension={self.extension[0]},{self.extension[1]}")
        if self.context is not None:
            parts.append(f"context={self.context}")
        if self.exit_layer is not None:
            parts.append(f"exit={self.exit_layer}")
        if self.gates is not None:
            parts.append(f"gates={','.join(map(str, self.gates))}")
        if self.precision is not None:
            parts.append(f"precision={self.precision}")
        if self.repeats is not None and self.repeats != 1.0:
            parts.append(f"repeats={self.repeats:g}")
        return " ".join(parts)


OFF = SkipSettings(threshold=1.0)


def can_skip(encoder: Any) -> bool:
    """Return whether the encoder has at least one blank gate."""
    return bool(getattr(encoder, "gate_layer_idx", None))


def _fewer_gates(encoder: Any) -> tuple[int, ...] | None:
    """Return the gates in use; None = all that the encoder has."""
    in_use = tuple(getattr(encoder, "gates_in_use", encoder.gate_layer_idx))
    return None if in_use == tuple(encoder.gate_layer_idx) else in_use


def parse_settings(items: Sequence[str]) -> SkipSettings:
    """Read ``threshold=0.9 extension=1,1 context=packed exit=4 gates=4,8``; each is optional.

    The others are ``precision=int8`` and ``repeats=0.5``, the threshold of repeats.
    ``off`` is 1.0 for the two thresholds, ``auto`` keeps what the experiment says.

    Raises:
        ValueError: For an unknown key, a key given twice or a value that cannot be read.
    """
    values: dict[str, str] = {}
    for item in items:
        key, sign, value = item.partition("=")
        if key not in KEYS or not sign:
            raise ValueError(f"setting {item!r} is not known: write KEY=VALUE with a KEY of {KEYS}")
        if key in values:
            raise ValueError(f"setting {key} is given twice ({item!r}): give it once")
        values[key] = value
    context, precision = values.get("context"), values.get("precision")
    return SkipSettings(
        parse_blank_threshold(values.get("threshold")),
        parse_spike_extension(values.get("extension")),
        None if context is None else check_choice("skip_context", context, SKIP_CONTEXTS),
        parse_exit_layer(values.get("exit")),
        parse_gates(values.get("gates")),
        None if precision is None else check_choice("precision", precision, PRECISIONS),
        parse_blank_threshold(values.get("repeats"), "repeats"),
    )
