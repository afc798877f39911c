"""Ratios of a benchmark's rows, and why one is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_layerskip.evaluation.contenders import (
    ESPNET_LM,
    FULL,
    GREEDY_OFF,
    GREEDY_ON,
    ON,
    ONNX_FULL,
    ONNX_ON,
    STOCK,
)
from espnet_layerskip.evaluation.scoring import ROUNDING

CONDITION = ("audio_seconds", "batch_size", "threads")
HEADLINE = (10.0, 1, 2)  # the condition of the project's targets
TWIN = "twin_stock"  # takes the place of ESPnet's class where that cannot hold our weights

# Name: scope, row, and what it is compared with (the first of them that was built).
SPEEDUPS = {
    "encoder_vs_stock": ("encoder", ON, (STOCK, TWIN)),
    "encoder_vs_full_depth": ("encoder", ON, (FULL,)),
    "model_vs_stock": ("model", ON, (STOCK, TWIN)),
    "model_vs_full_depth": ("model", ON, (FULL,)),
    "model_onnx_vs_stock": ("model", ONNX_ON, (STOCK, TWIN)),
    "model_onnx_vs_full_depth": ("model", ONNX_ON, (ONNX_FULL,)),
    "model_onnx_vs_ours": ("model", ONNX_ON, (ON,)),
    "e2e_vs_stock_beam1": ("e2e", GREEDY_ON, ("stock_beam1",)),
    "e2e_vs_stock_beam10": ("e2e", GREEDY_ON, ("stock_beam10",)),
    "e2e_vs_full_depth": ("e2e", GREEDY_ON, (GREEDY_OFF,)),
    "e2e_onnx_vs_stock_beam10": ("e2e", f"{ONNX_ON}_greedy", ("stock_beam10",)),
    "e2e_onnx_vs_full_depth": ("e2e", f"{ONNX_ON}_greedy", (f"{ONNX_FULL}_greedy",)),
    "e2e_prefix_beam_vs_stock_beam1": ("e2e", "ours_prefix_beam_skip_on", ("stock_beam1",)),
    "e2e_prefix_beam_vs_stock_beam10": ("e2e", "ours_prefix_beam_skip_on", ("stock_beam10",)),
    "e2e_ngram_vs_stock_beam10": ("e2e", "ours_ngram_skip_on", ("stock_beam10",)),
    "e2e_ngram_vs_stock_beam10_ngram": ("e2e", "ours_ngram_skip_on", ("stock_beam10_ngram",)),
    "e2e_ngram_vs_stock_beam10_lm": ("e2e", "ours_ngram_skip_on", ("stock_beam10_lm",)),
    "e2e_espnet_lm_vs_stock_beam10_lm": ("e2e", f"ours_{ESPNET_LM}_skip_on", ("stock_beam10_lm",)),
}


def speedups(rows: Sequence[Mapping[str, Any]], max_wer_increase: float) -> dict[str, Any]:
    """Return how many times as fast rows are as others, in the same run.

    Args:
        rows: Records as `measure.measure_scope` makes them.
        max_wer_increase: How much larger, in percent of the other's WER, the WER of the faster
            row may be; where it is larger there is no ratio.

    Returns:
        Each name of `SPEEDUPS` with the ratio of the medians in the condition `HEADLINE`, or
        None; "reasons" by name where it is None; "headline" with that condition; "conditions",
        a list of all that were measured, with the same names and reasons.
    """
    keys = {tuple(row[name] for name in CONDITION) for row in rows}
    found = {key: _condition(rows, key, max_wer_increase) for key in sorted(keys)}
    nothing = dict.fromkeys(SPEEDUPS)
    not_measured = dict.fromkeys(SPEEDUPS, "this condition was not measured")
    headline = found.get(HEADLINE, {**nothing, "reasons": not_measured})
    return {
        **{name: headline[name] for name in (*SPEEDUPS, "reasons")},
        "headline": dict(zip(CONDITION, HEADLINE, strict=True)),
        "conditions": list(found.values()),
    }


def _condition(
    rows: Sequence[Mapping[str, Any]], key: tuple[Any, ...], max_wer_increase: float
) -> dict[str, Any]:
    here = [row for row in rows if tuple(row[name] for name in CONDITION) == key]
    ratios: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name, (scope, row, others) in SPEEDUPS.items():
        by_name = {r["name"]: r for r in here if r["scope"] == scope}
        try:
            ratios[name] = _ratio(by_name, scope, row, others, max_wer_increase)
        except ValueError as e:
            ratios[name], reasons[name] = None, str(e)
    return {**dict(zip(CONDITION, key, strict=True)), **ratios, "reasons": reasons}


def _ratio(
    rows: Mapping[str, Mapping[str, Any]],
    scope: str,
    name: str,
    others: Sequence[str],
    max_wer_increase: float,
) -> float:
    """Return how many times as fast a row is.

    Raises:
        ValueError: If there is no ratio; says why.
    """
    if not rows:
        raise ValueError(f"scope {scope} was not run")
    other = next((n for n in others if n in rows and rows[n]["median_s"] is not None), others[0])
    for needed in (name, other):
        if needed not in rows:
            raise ValueError(f"there is no row {needed}")
        if rows[needed]["status"] != "ok":
            raise ValueError(f"{needed} {rows[needed]['status']}")
    ratio = float(rows[other]["median_s"] / rows[name]["median_s"])
    wer, allowed = rows[name]["wer"], rows[other]["wer"] * (1.0 + max_wer_increase / 100.0)
    if wer > allowed + ROUNDING:
        raise ValueError(
            f"the WER of {name}, {wer:.2f}, is more than {max_wer_increase:g} % above the "
            f"{rows[other]['wer']:.2f} of {other} (the times alone: {ratio:.2f})"
        )
    return ratio
