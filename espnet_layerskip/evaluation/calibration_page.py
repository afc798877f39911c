"""A calibration for people: the table of the sweep and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espnet_layerskip.evaluation.scoring import ROUNDING, Interval
from espnet_layerskip.evaluation.tables import markdown_table
from espnet_layerskip.inference.calibration import Calibration
from espnet_layerskip.method.settings import SkipSettings


def calibration_page(found: Calibration) -> str:
    """Return the sweep in the order of the tests, and the choice, as markdown."""
    name, full = found.metric.upper(), found.full_depth
    rate = full["rate"]
    header = [
        *("threshold", "extension", "gates"),
        f"{name} %",
        *("increase, points [95 %]", "over the budget, upper limit"),
        *("skipped", "encoder FLOPs", "utterances needed", "keeps the budget"),
    ]
    rows = sorted(found.sweep, key=lambda row: -row["encoder_flops"])
    speakers = found.data.get("speakers")
    by = f" by {speakers} speakers" if speakers else ""
    return "\n".join(
        [
            f"Budget: {name} at most {found.max_increase:g} % (relative) over the {rate:.2f} % of "
            f"full depth, that is {found.max_increase / 100 * rate:+.3f} points, on "
            f"{found.data['utterances']} utterances of {found.data['name']}{by}.",
            *(f"This set {role}: {how}." for role, how in found.data.get("seen", {}).items()),
            "",
            markdown_table(header, [_cells(row, full, found.chosen) for row in [full, *rows]]),
            "",
            "Shown: the upper limit (97.5 %) is not over the budget. The settings are tested from "
            "top to bottom, and the first that fails ends the test: of many settings some fit by "
            "luck. One that saves less than 1 % of the FLOPs is not tested. Utterances needed: so "
            "many like these would show a setting that changes as much, but loses nothing.",
            "",
            f"Calibrated: {found.describe()}",
        ]
    )


def _cells(row: Mapping[str, Any], full: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    settings, increase = SkipSettings.from_json(row["settings"]), row["increase"]
    shown = dict(item.split("=") for item in settings.describe().split())
    names = ("threshold", "extension", "gates")
    off = row is full
    verdict = "" if off else "shown" if row["fits"] else "not shown"
    if not off and not row["fits"]:
        verdict += (
            ", measured" if row["excess"]["difference"] <= ROUNDING else ", not measured either"
        )
    if row == chosen:
        verdict += ", chosen" if verdict else "chosen"
    return [
        *(["off", "", ""] if off else [shown.get(name, "all") for name in names]),
        f"{row['rate']:.2f}",
        "" if off else str(Interval(**increase)),
        "" if off else f"{row['excess']['high']:+.2f}",
        f"{100 * row['skip_ratio']:.1f} %",
        f"{100 * row['encoder_flops'] / max(1, full['encoder_flops']):.1f} %",
        "" if off else str(row.get("utterances_needed") or "no number"),
        verdict,
    ]
