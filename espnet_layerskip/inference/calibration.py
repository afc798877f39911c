"""The calibration of a checkpoint: a JSON file beside it, which travels with the model."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from espnet_layerskip.files import write_text
from espnet_layerskip.method.settings import SkipSettings, can_skip
from espnet_layerskip.training.checkpoint import file_digest

FILE_NAME = "calibration.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """What was found for one checkpoint, and from what.

    Rows (``full_depth``, ``chosen`` and those of ``sweep``) are mappings as
    :meth:`espnet_layerskip.evaluation.choose.Trial.to_json` makes them.

    Attributes:
        settings: The setting to use, a whole record.
        metric: "wer" or "cer".
        max_increase: The budget: allowed increase of the metric over full depth, in percent of
            the full-depth value (relative) of the same weights.
        kept_by: What of the chosen setting keeps the budget: "upper bound"; "point estimate": it
            is not shown to keep it, but was asked for; "nothing": skipping is off.
        warnings: What to know before relying on it.
        checkpoint: File name of the weights.
        sha256: Of that file.
        data: Development set: "name", "utterances", "speakers" and "sha256" of its tables; "seen":
            what it did for the model before (it "trained the model" or "chose the checkpoint"),
            with how that is known; "reference" where ``espnet-layerskip retrofit`` had no
            transcripts: then ``max_increase`` is in percent of the tokens of what this reference
            has transcribed.
        full_depth: Row of full depth.
        chosen: Row of the setting to use; that of full depth if it is off.
        sweep: Rows of all settings that were tried.
        environment: Versions, machine and date.
        command: How it was made.
        asked: All that it depends on, in plain types; {} = not known.
    """

    settings: SkipSettings
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
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> bool:
        """True if there is evidence that the budget is kept."""
        return self.kept_by == "upper bound"

    @property
    def is_off(self) -> bool:
        """True if no frame skips."""
        return self.settings.full_depth

    def describe(self) -> str:
        """Return the setting and what it was chosen by, in one line."""
        found = f"on {self.data['utterances']} utterances of {self.data['name']}"
        if seen := self.data.get("seen"):
            found += f" (which {' and '.join(seen)})"
        budget = f"a {self.metric.upper()} increase of {self.max_increase:g} % (relative)"
        if reference := self.data.get("reference"):  # no transcripts
            budget = f"a {self.metric.upper()} of {self.max_increase:g} % against {reference}"
        if self.is_off:
            return f"off: no setting is shown to keep {budget} {found}"
        how = self.settings.describe()
        if not self.shown:
            return f"{how}: not shown: only its {self.kept_by} keeps {budget} {found}"
        return f"{how}: its {self.kept_by} keeps {budget} {found}"

    def save(self, path: Path) -> None:
        """Write the file in one step."""
        content = {**asdict(self), "settings": self.settings.to_json()}
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


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
        if isinstance(content, Mapping) and "settings" not in content:
            content = _from_older(content)
        needed = {f.name for f in fields(Calibration) if f.default_factory is MISSING}
        if not isinstance(content, Mapping) or needed - content.keys():
            raise ValueError("entries are missing")
        values = {f.name: content[f.name] for f in fields(Calibration) if f.name in content}
        return Calibration(**values | {"settings": SkipSettings.from_json(values["settings"])})
    except (ValueError, TypeError) as e:
        raise ValueError(
            f"{path} is not a calibration ({e}): delete it, or write it anew with "
            "espnet-layerskip calibrate"
        ) from e


def _from_older(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a file of version 0.1 in today's form: it had the settings among the rest."""
    names = ("blank_threshold", "spike_extension", "skip_context", "gate_layer_idx")
    if not set(names) <= content.keys():
        raise ValueError("entries are missing")
    settings = {name: content[name] for name in names[:3]}
    return {**content, "settings": {**settings, "gates_in_use": content["gate_layer_idx"]}}


def choose_skipping(
    encoder: Any,
    model_file: Path | str | None,
    blank_threshold: Any,
    settings: SkipSettings,
) -> Calibration | None:
    """Set what skips, as calibrated for "auto"; options beside it win.

    Args:
        encoder: Any encoder.
        model_file: The checkpoint that was loaded; None = none was.
        blank_threshold: "auto", or anything else: then no calibration is looked for.
        settings: What was asked for.

    Returns:
        The calibration that was read, if any.

    Raises:
        ValueError: If the calibration is damaged or a setting does not fit.
    """
    found = None
    if blank_threshold == "auto" and model_file is not None:
        found = _usable(encoder, Path(model_file))
    wanted = settings.resolved(encoder)
    if found is not None:
        if settings != SkipSettings():
            logger.warning("options beside blank_threshold 'auto' win over what was calibrated")
        wanted = settings.over(found.settings).resolved(encoder)
    if can_skip(encoder):
        encoder.settings = wanted
    return found


def _usable(encoder: Any, model_file: Path) -> Calibration | None:
    """Return the calibration beside a checkpoint.

    None if there is none, or (with a warning) if it is of other weights or other gates.

    Raises:
        ValueError: If the file is damaged.
    """
    path = calibration_file(model_file)
    if not can_skip(encoder) or not path.is_file():
        return None
    found = read_calibration(path)
    in_use, gates = list(found.settings.gates_in_use or ()), list(encoder.gate_layer_idx)
    if found.sha256 != file_digest(model_file):
        reason = f"is of other weights ({found.checkpoint}) than {model_file.name}"
    elif not set(in_use) <= set(gates):
        reason = f"is for gates {in_use}, the model has {gates}"
    else:
        level = logging.INFO if found.shown or found.is_off else logging.WARNING
        logger.log(level, "calibrated: %s", found.describe())
        return found
    logger.warning(
        "%s %s: it is not used, skipping is as configured; run espnet-layerskip calibrate",
        path,
        reason,
    )
    return None
