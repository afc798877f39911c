"""The calibration of a checkpoint: a JSON file beside it, which travels with the model."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from espnet_layerskip.files import write_text
from espnet_layerskip.method.settings import set_skipping
from espnet_layerskip.training.checkpoint import file_digest

FILE_NAME = "calibration.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """What was found for one checkpoint, and from what.

    Rows (``full_depth``, ``chosen`` and those of ``sweep``) are mappings as
    :meth:`espnet_layerskip.evaluation.choose.Trial.to_json` makes them.

    Attributes:
        blank_threshold: The setting to use: threshold in (0, 1], 1.0 = off.
        spike_extension: Its (left, right) in frames.
        skip_context: Its context.
        gate_layer_idx: Its gates.
        metric: "wer" or "cer".
        max_increase: The budget: allowed increase of the metric over full depth, in percent of
            the full-depth value (relative) of the same weights.
        kept_by: What of the chosen setting keeps the budget: "upper bound", "point estimate",
            or "nothing": then no setting does, and skipping is off.
        warnings: What to know before relying on it.
        checkpoint: File name of the weights.
        sha256: Of that file.
        data: Development set: "name", "utterances" and "sha256" of its tables.
        full_depth: Row of full depth.
        chosen: Row of the setting to use; that of full depth if it is off.
        sweep: Rows of all settings that were tried.
        environment: Versions, machine and date.
        command: How it was made.
    """

    blank_threshold: float
    spike_extension: tuple[int, int]
    skip_context: str
    gate_layer_idx: tuple[int, ...]
    metric: str
    max_increase: float
    kept_by: str
    warnings: list[str]
    checkpoint: str
    sha256: str
    data: dict[str, Any]
    full_depth: dict[str, Any]
    chosen: dict[str, Any]
    sweep: list[dict[str, Any]]
    environment: dict[str, Any]
    command: str

    @property
    def is_off(self) -> bool:
        """True if no frame skips."""
        return self.blank_threshold >= 1.0

    def describe(self) -> str:
        """Return the setting and what it was chosen by, in one line."""
        found = f"on {self.data['utterances']} utterances of {self.data['name']}"
        budget = f"a {self.metric.upper()} increase of {self.max_increase:g} % (relative)"
        if self.is_off:
            return f"off: no setting keeps {budget} {found}"
        left, right = self.spike_extension
        return (
            f"threshold {self.blank_threshold:g}, extension {left},{right}, gates "
            f"{','.join(map(str, self.gate_layer_idx))}, {self.skip_context}: its {self.kept_by} "
            f"keeps {budget} {found}"
        )

    def save(self, path: Path) -> None:
        """Write the file in one step."""
        write_text(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")


def calibration_file(model_file: Path | str) -> Path:
    """Return where the calibration of a checkpoint is."""
    return Path(model_file).parent / FILE_NAME


def read_calibration(path: Path | str) -> Calibration:
    """Read a calibration.

    Raises:
        ValueError: If the file is damaged or of another kind.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        known = {field.name for field in fields(Calibration)}
        if not isinstance(content, Mapping) or known - content.keys():
            raise ValueError("entries are missing")
        values = {name: content[name] for name in known}
        for name in ("spike_extension", "gate_layer_idx"):
            values[name] = tuple(values[name])
        return Calibration(**values)
    except (ValueError, TypeError) as e:
        raise ValueError(
            f"{path} is not a calibration ({e}): delete it, or write it anew with "
            "espnet-layerskip calibrate"
        ) from e


def choose_skipping(
    encoder: Any,
    model_file: Path | str | None,
    blank_threshold: float | str | None,
    *others: Any,
) -> Calibration | None:
    """Set what skips, as calibrated for "auto"; options beside it win.

    Args:
        encoder: Any encoder.
        model_file: The checkpoint that was loaded; None = none was.
        blank_threshold: As of :func:`~espnet_layerskip.method.settings.set_skipping`.
        others: Its other options; None = not given.

    Returns:
        The calibration that was read, if any.

    Raises:
        ValueError: If the calibration is damaged or an option does not fit.
    """
    found = None
    if blank_threshold == "auto" and model_file is not None:
        found = use_calibration(encoder, model_file)
    if found is not None and any(option is not None for option in others):
        logger.warning("options beside blank_threshold 'auto' win over what was calibrated")
    set_skipping(encoder, blank_threshold, *others)
    return found


def use_calibration(encoder: Any, model_file: Path | str) -> Calibration | None:
    """Set an encoder as the calibration beside its checkpoint says.

    Args:
        encoder: Any encoder; one without a gate is left as it is.
        model_file: The checkpoint that was loaded.

    Returns:
        The calibration; None if there is none, or (with a warning) if it is of other weights
        or other gates: then the encoder is left as it is.

    Raises:
        ValueError: If the file is damaged.
    """
    path = calibration_file(model_file)
    gates = getattr(encoder, "gate_layer_idx", None)
    if not gates or not path.is_file():
        return None
    found = read_calibration(path)
    if found.sha256 != file_digest(Path(model_file)):
        reason = f"is of other weights ({found.checkpoint}) than {Path(model_file).name}"
    elif not set(found.gate_layer_idx) <= set(gates):
        reason = f"is for gates {list(found.gate_layer_idx)}, the model has {list(gates)}"
    else:
        encoder.blank_threshold = found.blank_threshold
        encoder.spike_extension = found.spike_extension
        encoder.skip_context = found.skip_context
        encoder.gates_in_use = found.gate_layer_idx
        logger.info("calibrated: %s", found.describe())
        return found
    logger.warning(
        "%s %s: it is not used, skipping is as configured; run espnet-layerskip calibrate",
        path,
        reason,
    )
    return None
