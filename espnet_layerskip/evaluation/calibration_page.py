"""A calibration for people: the table of the sweep and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_layerskip.evaluation.scoring import ROUNDING, Interval
from espnet_layerskip.evaluation.tables import markdown_table
from espnet_layerskip.inference.calibration import Calibration
from espnet_layerskip.method.settings import SkipSettings


def calibration_page(found: Calibration) -> str:
    """Return the sweep in the order of the tests, the conditions, and the choice, as markdown."""
    name, full = found.metric.upper(), found.full_depth
    rate = full["rate"]
    several = bool(full.get("conditions"))
    header = [
        *("threshold", "extension", "gates"),
        f"{name} %",
        *("increase, points [95 %]", "over the budget, upper limit"),
        *(["worst condition"] if several else []),
        *("skipped", "encoder FLOPs", "utterances needed", "keeps the budget"),
    ]
    rows = sorted(found.sweep, key=lambda row: -row["encoder_flops"])
    speakers = found.data.get("speakers")
    by = f" by {speakers} speakers" if speakers else ""
    conditions = []
    if several:
        conditions = [
            "In several conditions: error rate, increase and skipped are those of the first, the "
            "upper limit that of the worst one. A setting is shown only if it is so in each.",
            "",
        ]
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
            *conditions,
            *(condition_table(found, rows) if several else []),
            f"Calibrated: {found.describe()}",
            *confidence_line(found.confidence),
        ]
    )


def confidence_line(confidence: Mapping[str, Any]) -> list[str]:
    """Return what is known of the confidence of words, as lines of markdown."""
    if not confidence:
        return []
    return [
        "",
        "Confidence of words: temperature {temperature}, of {words} words of which {right} are "
        "right.".format(**confidence),
    ]


def condition_table(found: Calibration, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a calibration has found in each condition, as lines of markdown.

    Args:
        found: With several conditions.
        rows: Its sweep in the order of the tests: where skipping is off, the first one is shown.
    """
    shown = found.chosen if not found.is_off else next(iter(rows), found.full_depth)
    name = found.metric.upper()
    header = [
        *("condition", "utterances", f"{name} % at full depth", f"{name} %"),
        *("increase, points [95 %]", "budget, points", "over it, upper limit", "skipped"),
    ]
    cells = []
    for full, one in zip(found.full_depth["conditions"], shown["conditions"], strict=True):
        condition = one["condition"]
        cells.append(
            [
                *(condition["name"], str(condition["utterances"])),
                *(f"{full['rate']:.2f}", f"{one['rate']:.2f}", str(Interval(**one["increase"]))),
                f"{condition['max_increase'] / 100 * full['rate']:+.2f}",
                *(f"{one['excess']['high']:+.2f}", f"{100 * one['skip_ratio']:.1f} %"),
            ]
        )
    how = SkipSettings.from_json(shown["settings"]).describe()
    what = "The setting" if not found.is_off else "Skipping is off; the first setting"
    return [f"{what} in each condition ({how}):", "", markdown_table(header, cells), ""]


def _cells(row: Mapping[str, Any], full: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    settings, increase = SkipSettings.from_json(row["settings"]), row["increase"]
    shown = dict(item.split("=") for item in settings.describe().split())
    names = ("threshold", "extension", "gates")
    off = row is full
    verdict = "" if off else "shown" if row["fits"] else "not shown"
    if not off and not row["fits"]:
        each = [one["excess"]["difference"] for one in row.get("conditions") or [row]]
        verdict += ", measured" if max(each) <= ROUNDING else ", not measured either"
    if row == chosen:
        verdict += ", chosen" if verdict else "chosen"
    return [
        *(["off", "", ""] if off else [shown.get(name, "all") for name in names]),
        f"{row['rate']:.2f}",
        "" if off else str(Interval(**increase)),
        "" if off else f"{row['excess']['high']:+.2f}",
        *(["" if off else _worst(row)] if full.get("conditions") else []),
        f"{100 * row['skip_ratio']:.1f} %",
        f"{100 * row['encoder_flops'] / max(1, full['encoder_flops']):.1f} %",
        "" if off else str(row.get("utterances_needed") or "no number"),
        verdict,
    ]


def _worst(row: Mapping[str, Any]) -> str:
    worst = max(row["conditions"], key=lambda one: float(one["excess"]["high"]))
    return str(worst["condition"]["name"])
