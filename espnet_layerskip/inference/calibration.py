"""The calibration of a checkpoint: a JSON file beside it, which travels with the model."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from itertools import count
from pathlib import Path
from typing import Any

from espnet_layerskip.decoding.confidence import check_temperature
from espnet_layerskip.files import write_bytes, write_text
from espnet_layerskip.method.settings import SkipSettings, can_skip
from espnet_layerskip.training.checkpoint import file_digest

FILE_NAME = "calibration.json"
MAX_BYTES = 10_000_000  # a sweep of a thousand settings has a tenth of it

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
        data: Development set, or several: "name", "utterances", "speakers" and "sha256" of their
            tables; "seen": what they did for the model before ("trained the model" or "chose the
            checkpoint"), with how that is known; "shifts": names of the shifted copies on which
            the budget has to hold too; "reference" where ``espnet-layerskip retrofit`` had no
            transcripts: then ``max_increase`` is in percent of the tokens of what this reference
            has transcribed.
        full_depth: Row of full depth.
        chosen: Row of the setting to use; that of full depth if it is off.
        sweep: Rows of all settings that were tried.
        environment: Versions, machine and date.
        command: How it was made.
        asked: All that it depends on, in plain types; {} = not known.
        confidence: "temperature" of the words' confidences, how many "words" gave it and how
            many of them were "right"; {} = not known.
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
    confidence: dict[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> bool:
        """True if there is evidence that the budget is kept."""
        return self.kept_by == "upper bound"

    @property
    def is_off(self) -> bool:
        """True if no frame skips."""
        return self.settings.full_depth

    @property
    def temperature(self) -> float:
        """Temperature of the words' confidences; see `espnet_layerskip.decoding.confidence`."""
        return float(self.confidence.get("temperature", 1.0))

    def fits(self, gate_layer_idx: Sequence[int]) -> bool:
        """Return whether a model with these gates has all that decide."""
        return set(self.settings.gates_in_use or ()) <= set(gate_layer_idx)

    @property
    def gates(self) -> set[int]:
        """Layers of the gates that were tried, alone or together."""
        tried = [row["settings"].get("gates_in_use") for row in self.sweep]
        return {layer for gates in [self.settings.gates_in_use, *tried] for layer in gates or ()}

    def describe(self) -> str:
        """Return the setting and what it was chosen by, in one line."""
        found = f"on {self.data['utterances']} utterances of {self.data['name']}"
        if seen := self.data.get("seen"):
            found += f" (which {' and '.join(seen)})"
        if shifts := self.data.get("shifts"):
            found += f", also as {', '.join(map(str, shifts))}"
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


def keep_old(path: Path) -> Path | None:
    """Copy a calibration that is to be replaced to ``calibration.json.N``, the first free N.

    Returns:
        The copy; None if there is nothing to keep.
    """
    if not path.is_file():
        return None
    names = (path.with_name(f"{path.name}.{n}") for n in count(1))
    kept = next(name for name in names if not name.exists())
    write_bytes(kept, path.read_bytes())
    return kept


def read_calibration(path: Path | str) -> Calibration:
    """Read a calibration.

    Raises:
        ValueError: If the file is damaged or of another kind.
    """
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        needed = {f.name for f in fields(Calibration) if f.default_factory is MISSING}
        if not isinstance(content, Mapping) or needed - content.keys():
            raise ValueError("entries are missing")
        values = {f.name: content[f.name] for f in fields(Calibration) if f.name in content}
        _check(values)
        return Calibration(**values | {"settings": SkipSettings.from_json(values["settings"])})
    except (ValueError, TypeError, RecursionError) as e:
        raise ValueError(
            f"{path} is not a calibration ({e}): delete it, or write it anew with "
            "espnet-layerskip calibrate"
        ) from e


_KINDS = {"warnings": list, "sweep": list, "settings": Mapping, "data": Mapping}
_KINDS |= dict.fromkeys(("full_depth", "chosen", "environment", "asked", "confidence"), Mapping)
_KINDS |= dict.fromkeys(("metric", "kept_by", "checkpoint", "sha256", "command"), str)


def _check(values: Mapping[str, Any]) -> None:
    """Raise ValueError for an entry that is not what `Calibration` says; settings check their own.

    Entries are printed and logged: none may fail there.
    """
    wrong = [n for n, kind in _KINDS.items() if not isinstance(values.get(n, {}), kind)]
    budget = values["max_increase"]
    if type(budget) not in (int, float) or not 0.0 <= budget < math.inf:
        wrong.append("max_increase")
    if "temperature" in values.get("confidence", {}):
        check_temperature(values["confidence"]["temperature"])
    if wrong or not {"name", "utterances"} <= values["data"].keys():
        raise ValueError(f"entries of another kind: {', '.join(wrong) or 'data'}")


def choose_skipping(
    encoder: Any,
    model_file: Path | str | None,
    blank_threshold: Any,
    settings: SkipSettings,
) -> Calibration | None:
    """Set what skips, as calibrated for "auto"; options beside it win. Log it in one line.

    Args:
        encoder: Any encoder.
        model_file: The checkpoint that was loaded; None = none was.
        blank_threshold: "auto", or anything else: then no calibration is looked for.
        settings: What was asked for.

    Returns:
        The calibration that is used, if any.

    Raises:
        ValueError: If the calibration is damaged or a setting does not fit.
    """
    wanted, found, problem = settings.resolved(encoder), None, ""
    if not can_skip(encoder):
        return None
    if blank_threshold == "auto" and model_file is not None:
        found, problem = find_calibration(model_file, encoder.gate_layer_idx)
    if found is not None:
        wanted = settings.over(found.settings).resolved(encoder)
    encoder.settings = wanted
    log_choice(wanted, found, settings != SkipSettings(), problem)
    return found


def calibrated_temperature(
    used: Calibration | None, model_file: Path | str | None, encoder: Any, blank_threshold: Any
) -> float:
    """Return the temperature of the confidences, which belongs to the weights; 1 = not known.

    Args:
        used: The calibration whose setting is used, if any.
        model_file: The checkpoint, if any: where a threshold of one's own is used, or "off", it
            leads to the calibration all the same.
        encoder: Of the model.
        blank_threshold: As it was asked for; None (as configured): no calibration is looked at.
    """
    if used is None and None not in (model_file, blank_threshold) and can_skip(encoder):
        try:
            used, _ = find_calibration(model_file, encoder.gate_layer_idx)  # type: ignore[arg-type]
        except ValueError as e:
            logger.warning("%s; confidences are not corrected", e)
    return 1.0 if used is None else used.temperature


def log_choice(
    settings: SkipSettings, found: Calibration | None, asked: bool, problem: str = ""
) -> None:
    """Say in one line of the log how a model skips, and why so.

    Args:
        settings: A whole record.
        found: The calibration that is used, if any.
        asked: Whether the caller has named a setting.
        problem: Why a calibration that is there is not used.
    """
    now = "off" if settings.full_depth else settings.describe()
    how = "as asked for" if asked else "as configured"
    if problem:
        logger.warning("skipping is %s (%s): %s", how, now, problem)
    elif found is None:
        logger.info("skipping is %s: %s", how, now)
    elif asked:
        logger.warning("skipping: %s: the options win over what was calibrated", now)
    elif found.shown or found.is_off:
        logger.info("skipping is as calibrated: %s", found.describe())
    else:
        logger.warning("skipping is as calibrated, not shown to keep its budget: %s", now)


def find_calibration(
    model_file: Path | str, gate_layer_idx: Sequence[int]
) -> tuple[Calibration | None, str]:
    """Return the calibration beside a checkpoint, or None and why the one there is not used.

    Args:
        model_file: The checkpoint.
        gate_layer_idx: Gates of the model.

    Raises:
        ValueError: If the file is damaged.
    """
    path, model_file = calibration_file(model_file), Path(model_file)
    if not path.is_file():
        return None, ""
    found, reason = read_calibration(path), ""
    if found.sha256 != file_digest(model_file):
        reason = f"is of other weights ({found.checkpoint}) than {model_file.name}"
    elif not found.fits(gate_layer_idx):
        in_use = list(found.settings.gates_in_use or ())
        reason = f"is for gates {in_use}, the model has {list(gate_layer_idx)}"
    if reason:
        return None, f"{path} {reason}: it is not used; run espnet-layerskip calibrate"
    return found, ""
