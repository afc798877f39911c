"""SkipSettings: the one record of how an encoder skips. No PyTorch: commands check it first."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

SKIP_CONTEXTS = ("packed", "packed_original", "full")
PRECISIONS = ("float32", "bfloat16", "int8")
BLANK = 0  # ESPnet's CTC blank is token 0
MOST_FRAMES = 10_000  # of an extension, or as min_skipped_frames: minutes, no setting but a mistake

# KEY of KEY=VALUE and the attribute that it sets, in the order in which they are printed.
KEYS = {
    "threshold": "blank_threshold",
    "extension": "spike_extension",
    "context": "skip_context",
    "exit": "exit_layer",
    "gates": "gates_in_use",
    "repeats": "repeat_threshold",
    "fallback": "min_spike_ratio",
    "min_skipped": "min_skipped_frames",
}
# Values that are not printed.
_USUAL = {"repeats": 1.0, "fallback": 0.02, "min_skipped": 0}


@dataclass(frozen=True)
class SkipSettings:
    """How an encoder skips; None keeps what the model has (except for ``exit_layer``).

    Configurations, command lines, calibration files, rows of tables and the attributes of an
    encoder all read and write this record. Values may be given as they are or as text: "auto" is
    None, "off" is 1.0 for a threshold, lists are "A,B".

    Attributes:
        blank_threshold: A frame skips where p(blank) > this; in (0, 1], 1.0 = off. One number
            for all gates, or one for each gate layer of the encoder, from the lowest up.
        spike_extension: Frames (left, right) of each spike that run too.
        skip_context: What a kept frame sees of the others in the upper layers: "packed",
            "packed_original" or "full".
        gates_in_use: Gate layers that decide, at least one.
        repeat_threshold: Of neighbouring frames with the same most probable label, each with a
            probability above this, only the peak runs on; in (0, 1], 1.0 = off.
        min_spike_ratio: An utterance with fewer spikes per frame runs at full depth; in [0, 1].
        exit_layer: Gate layer after which every frame stops, whatever the gates say; None = no
            early exit.
        min_skipped_frames: An utterance of which a gate would drop fewer frames goes on whole,
            because dropping so few takes longer than it saves; so does one of which they would
            be more than 4 of 5, without a look at its frames; 0 = no such rule. In a cascade each
            gate judges the frames that it would newly drop. Not in training.

    Raises:
        ValueError: For a value that cannot be read or is out of its range.

    Example:
        >>> SkipSettings(blank_threshold="off", spike_extension="1,2").describe()
        'threshold=1 extension=1,2'
    """

    blank_threshold: float | tuple[float, ...] | None = None
    spike_extension: tuple[int, int] | None = None
    skip_context: str | None = None
    gates_in_use: tuple[int, ...] | None = None
    repeat_threshold: float | None = None
    min_spike_ratio: float | None = None
    exit_layer: int | None = None
    min_skipped_frames: int | None = None

    def __post_init__(self) -> None:
        for name, read in _READERS.items():
            object.__setattr__(self, name, read(getattr(self, name)))

    def over(self, base: SkipSettings) -> SkipSettings:
        """Return these settings, with what they leave open taken from ``base``.

        Example:
            >>> SkipSettings(blank_threshold=0.8).over(SkipSettings(0.9, (1, 1))).describe()
            'threshold=0.8 extension=1,1'
        """
        open_ones = (f.name for f in fields(self) if getattr(self, f.name) is None)
        return replace(self, **{n: getattr(base, n) for n in open_ones if n != "exit_layer"})

    def resolved(self, encoder: Any) -> SkipSettings:
        """Return the complete record for an encoder; OFF for one without gates.

        Raises:
            ValueError: If it does not fit the encoder's gates.
        """
        if can_skip(encoder):
            return self.over(encoder.settings).checked(encoder.gate_layer_idx)
        if any(
            value is not None and value != getattr(OFF, name)
            for name, value in asdict(self).items()
        ):
            raise ValueError(
                f"the settings {self.describe()!r} need gates, but the encoder is a "
                f"{type(encoder).__name__} without a gate: train with encoder: layerskip_... and "
                "gate_layer_idx: [K], add gates with add_skipping, or leave the settings out"
            )
        return OFF

    def checked(self, gate_layer_idx: Sequence[int]) -> SkipSettings:
        """Return these settings if they fit an encoder with gates after these layers.

        Raises:
            ValueError: If they name other gates, or have another number of thresholds.
        """
        layers = sorted(gate_layer_idx)
        if isinstance(self.blank_threshold, tuple) and len(self.blank_threshold) != len(layers):
            raise ValueError(
                f"blank_threshold must be one number, or one for each of the gate layers {layers}, "
                f"but got {list(self.blank_threshold)}"
            )
        in_use = self.gates_in_use
        if in_use is not None and (not set(in_use) <= set(layers) or (layers and not in_use)):
            raise ValueError(
                f"gates_in_use must be some of the gate layers {layers}, at least one "
                f"(blank_threshold 1.0 turns all off), but got {list(in_use)}"
            )
        if self.exit_layer is not None and self.exit_layer not in layers:
            raise ValueError(
                f"exit_layer must be None or one of the gate layers {layers}, which have a trained "
                f"head, but got {self.exit_layer!r}"
            )
        return self

    def thresholds(self, gate_layer_idx: Sequence[int]) -> dict[int, float]:
        """Return the threshold of each gate that decides, by layer; for a complete record."""
        layers = sorted(gate_layer_idx)
        values = self.blank_threshold
        by_gate = values if isinstance(values, tuple) else (values,) * len(layers)
        in_use = layers if self.gates_in_use is None else self.gates_in_use
        return {k: p for k, p in zip(layers, by_gate, strict=True) if k in in_use and p is not None}

    @property
    def full_depth(self) -> bool:
        """True if every frame runs every layer; for a complete record."""
        one = self.blank_threshold
        every = one if isinstance(one, tuple) else (one,)
        return all(threshold == 1.0 for threshold in every) and self.exit_layer is None

    def describe(self) -> str:
        """Return the settings as they are written on the command line, KEY=VALUE KEY=VALUE."""
        parts = []
        for key, name in KEYS.items():
            value = getattr(self, name)
            if value is None or value == _USUAL.get(key):
                continue
            parts.append(f"{key}={_text(value)}")
        return " ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return plain types by attribute; `from_json` reads them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> SkipSettings:
        """Undo `to_json`; other keys are ignored."""
        known = (f.name for f in fields(SkipSettings))
        return SkipSettings(**{name: data[name] for name in known if name in data})

    @staticmethod
    def from_items(items: Iterable[str]) -> SkipSettings:
        """Read ``threshold=0.9 extension=1,1 context=packed exit=4 gates=4,8 repeats=0.5``.

        Raises:
            ValueError: For an unknown key, a key given twice or a value that cannot be read.
        """
        texts: dict[str, str] = {}
        for item in items:
            key, sign, value = item.partition("=")
            if key not in KEYS or not sign:
                raise ValueError(
                    f"setting {item!r} is not known: write KEY=VALUE with a KEY of {tuple(KEYS)}"
                )
            if KEYS[key] in texts:
                raise ValueError(f"setting {key} is given twice ({item!r}): give it once")
            texts[KEYS[key]] = value
        return SkipSettings(**texts)  # type: ignore[arg-type]


def is_short(length: Any, min_skipped_frames: int) -> Any:
    """Return whether so many frames would be more than 4 of 5 of an utterance.

    Then there is next to nothing to gain, and no need to look.

    Args:
        length: Frames of the utterance: a number or a tensor.
        min_skipped_frames: See `SkipSettings`.
    """
    return 4 * length < 5 * min_skipped_frames


def can_skip(encoder: Any) -> bool:
    """Return whether an encoder has at least one gate."""
    return bool(getattr(encoder, "gate_layer_idx", None))


def check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Return the value if it is one of the choices.

    Raises:
        ValueError: Otherwise; lists the choices.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, but got {value!r}")
    return value


def check_count(name: str, value: Any) -> int:
    """Return a number of things if it is whole and at least 1.

    Raises:
        ValueError: Otherwise.
    """
    found = _integers([value])
    if isinstance(value, str) or found is None or found[0] < 1:
        raise ValueError(f"{name} must be at least 1, but got {value!r}: a whole number is needed")
    return found[0]


def read_threshold(value: Any, name: str = "blank_threshold") -> float | tuple[float, ...] | None:
    """Return a threshold, or None to keep what the model has.

    Args:
        value: A number in (0, 1], or text; "off" (YAML reads a bare ``off`` as False) is 1.0,
            "auto" and None keep; several ("P,P" or a list) are one for each gate.
        name: Of the option, for the error.

    Raises:
        ValueError: For anything else.

    Example:
        >>> [read_threshold(value) for value in ("auto", "off", 0.9, "0.9,0.95")]
        [None, 1.0, 0.9, (0.9, 0.95)]
    """
    value = value.tolist() if hasattr(value, "tolist") else value  # of NumPy or PyTorch
    if value is None or value == "auto":
        return None
    parts = value.split(",") if isinstance(value, str) else value
    parts = parts if isinstance(parts, list | tuple) else [parts]
    numbers = tuple(1.0 if part == "off" or part is False else _number(part) for part in parts)
    if not numbers or not all(0.0 < number <= 1.0 for number in numbers):
        raise ValueError(
            f"{name} must be a number in (0, 1] (1.0 = off), 'off' or 'auto', but got {value!r}"
        )
    return numbers if len(numbers) > 1 else numbers[0]


def read_extension(value: Any, name: str = "spike_extension") -> tuple[int, int] | None:
    """Return (left, right) in frames, or None to keep what the model has.

    Args:
        value: A pair of integers >= 0, "L,R", or None.
        name: Of the option, for the error.

    Raises:
        ValueError: For anything else.
    """
    if value is None:
        return None
    pair = _integers(value)
    if pair is None or len(pair) != 2 or not 0 <= min(pair) <= max(pair) <= MOST_FRAMES:
        raise ValueError(
            f"{name} must be two integers >= 0, at most {MOST_FRAMES}: [left, right] in frames or "
            f"'L,R', but got {value!r}"
        )
    return pair[0], pair[1]


def read_extensions(value: Any, name: str = "train_spike_extensions") -> list[tuple[int, int]]:
    """Return several extensions; ValueError for anything else than a list of them."""
    pairs = value if isinstance(value, list | tuple) else [None]
    found = [pair for one in pairs if (pair := read_extension(one, name)) is not None]
    if len(found) != len(pairs):
        raise ValueError(f"{name} must be a list of [left, right], but got {value!r}")
    return found


def _read_context(value: Any) -> str | None:
    return check_choice("skip_context", value, SKIP_CONTEXTS) if value else None


def read_gates(value: Any, name: str = "gates") -> tuple[int, ...] | None:
    """Return layer numbers in their order, each once; None for None.

    Args:
        value: Whole numbers, one, or "K,K".
        name: Of the option, for the error.

    Raises:
        ValueError: For anything else.
    """
    found = None if value is None else _integers(value)
    if value is not None and found is None:
        raise ValueError(f"{name} must be layer numbers 'K' or 'K,K,...', but got {value!r}")
    return None if found is None else tuple(sorted(set(found)))


def _read_repeats(value: Any) -> float | None:
    found = read_threshold(value, "repeat_threshold")
    if isinstance(found, tuple):
        raise ValueError(f"repeat_threshold must be one number in (0, 1], but got {value!r}")
    return found


def read_ratio(value: Any, name: str = "min_spike_ratio") -> float | None:
    """Return a share in [0, 1], or None for None.

    Raises:
        ValueError: For anything else.
    """
    if value is not None and not 0.0 <= _number(value) <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], but got {value!r}")
    return None if value is None else float(value)


def _read_exit(value: Any) -> int | None:
    if value is None or value == "none":
        return None
    found = _integers([value])
    if found is None:
        raise ValueError(f"exit_layer must be a layer number or 'none', but got {value!r}")
    return found[0]


def _read_min_skipped(value: Any) -> int | None:
    found = None if value is None else _integers([value])
    if value is not None and (found is None or not 0 <= found[0] <= MOST_FRAMES):
        raise ValueError(
            f"min_skipped_frames must be a whole number >= 0 (0 = no rule), at most {MOST_FRAMES}, "
            f"but got {value!r}"
        )
    return None if found is None else found[0]


_READERS: dict[str, Callable[[Any], Any]] = {
    "blank_threshold": read_threshold,
    "spike_extension": read_extension,
    "skip_context": _read_context,
    "gates_in_use": read_gates,
    "repeat_threshold": _read_repeats,
    "min_spike_ratio": read_ratio,
    "exit_layer": _read_exit,
    "min_skipped_frames": _read_min_skipped,
}


def _number(value: Any) -> float:
    try:
        return math.nan if value is True else float(value)
    except (TypeError, ValueError):
        return math.nan


def _integers(value: Any) -> tuple[int, ...] | None:
    """Return the integers of a list, of "A,B" or of one; None if there is anything else.

    Those of NumPy and PyTorch are integers too, True is none.
    """
    parts = value.replace(" ", "").split(",") if isinstance(value, str) else value
    parts = [parts] if isinstance(parts, int) else parts
    try:
        return tuple(int(p) if isinstance(p, str) else _index(p) for p in parts)
    except (TypeError, ValueError):
        return None


def _index(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_text(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


OFF = SkipSettings(blank_threshold=1.0)
