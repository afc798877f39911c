"""A calibration for people: the table of the sweep and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espnet_layerskip.evaluation.scoring import Interval
from espnet_layerskip.evaluation.tables import markdown_table
from espnet_layerskip.inference.calibration import Calibration
from espnet_layerskip.method.settings import SkipSettings


def calibration_page(found: Calibration) -> str:
    """Return the sweep, cheapest setting first, and the choice, as markdown."""
    name, full = found.metric.upper(), found.full_depth
    rate = full["rate"]
    header = [
        *("threshold", "extension", "gates"),
        f"{name} %",
        "increase, points [95 %]",
        "limit against budget",
        *("skipped", "encoder FLOPs", "fits"),
    ]
    rows = sorted(found.sweep, key=lambda row: row["encoder_flops"])
    return "\n".join(
        [
            f"Budget: {name} at most {found.max_increase:g} % (relative) over the {rate:.2f} % of "
            f"full depth, that is {found.max_increase / 100 * rate:+.3f} points, on "
            f"{found.data['utterances']} utterances of {found.data['name']}.",
            "",
            markdown_table(header, [_cells(row, full, found.chosen) for row in [*rows, full]]),
            "",
            "A setting counts only if every more cautious one that was tried (higher threshold, "
            "wider extension, fewer gates) fits too.",
            "",
            f"Calibrated: {found.describe()}",
        ]
    )


def _cells(row: Mapping[str, Any], full: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[str]:
    settings, increase = SkipSettings.from_json(row["settings"]), row["increase"]
    shown = dict(item.split("=") for item in settings.describe().split())
    names = ("threshold", "extension", "gates")
    return [
        *(["off", "", ""] if row is full else [shown.get(name, "all") for name in names]),
        f"{row['rate']:.2f}",
        str(Interval(**increase)),
        f"{row['excess']['high']:+.2f}",
        f"{100 * row['skip_ratio']:.1f} %",
        f"{100 * row['encoder_flops'] / max(1, full['encoder_flops']):.1f} %",
        ("yes" if row["fits"] else "no") + (", chosen" if row == chosen else ""),
    ]
