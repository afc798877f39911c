"""What the page's script (page.js) draws from: measured settings and examples, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from espnet_layerskip.evaluation.report.canvas import Drawing
from espnet_layerskip.evaluation.report.changes import marked_words
from espnet_layerskip.evaluation.report.collect import Material
from espnet_layerskip.evaluation.report.sweep import (
    OFF_KIND,
    ON_KIND,
    Point,
    measured_settings,
    sweep_lines,
)
from espnet_layerskip.evaluation.report.traces import Trace, Variant
from espnet_layerskip.evaluation.report.utterance_figure import VEIL_TOP, levels_of, shown


def page_data(material: Material, drawings: Sequence[Drawing]) -> dict[str, Any]:
    """Return what the script needs.

    Args:
        material: What was measured.
        drawings: As `draw_all` returns them: those of the examples come first.
    """
    chosen = measured_settings(material.points)
    off = next(p for p in material.points if p.own and p.kind == OFF_KIND)
    examples = zip(material.examples, drawings, strict=False)
    return {
        "veil_top": VEIL_TOP,
        "settings": [_setting(p, off, material.points) for p in chosen],
        "configured": next((i for i, p in enumerate(chosen) if p.kind == ON_KIND), 0),
        "lines": _lines(material.points),
        "utterances": {
            drawing.name: _utterance(trace, drawing, material.variants.get(trace.utt_id, ()))
            for (trace, _), drawing in examples
        },
    }


def as_json(data: dict[str, Any]) -> str:
    """Return data as JSON that no HTML parser ends early."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _lines(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return for each extension the numbers of its settings, by rising threshold, off the last."""
    found: list[dict[str, Any]] = []
    start = 0
    for (left, right), line in sweep_lines(points).items():
        end = start + len(line) + 1
        found.append({"name": f"{left},{right}", "settings": [*range(start, end)]})
        start = end
    return found


def _setting(point: Point, off: Point, points: Sequence[Point]) -> dict[str, Any]:
    time = 100.0 * point.time_ms.difference / off.time_ms.difference - 100.0
    parts = [
        f"{100 * point.skip_ratio:.0f} % of frames skip",
        f"WER {point.wer.difference:.2f} %",
    ]
    if point is not off:
        parts[1] += f" ({point.change})"
        parts.append(f"FLOPs {100 * point.gflops / off.gflops - 100:+.0f} %")
        parts.append(
            f"failed: {point.failure}"
            if point.failure
            else f"time of these utterances {time:+.0f} %"
        )
    return {
        "threshold": "off" if point is off else point.short_name,
        "row": next(i for i, p in enumerate(points) if p is point),
        "about": parts,
        "failed": bool(point.failure),
        "configured": point.kind == ON_KIND,
    }


def _utterance(trace: Trace, drawing: Drawing, variants: Sequence[Variant]) -> dict[str, Any]:
    return {
        "seconds": trace.seconds,
        "frame": trace.frame_seconds,
        "layers": trace.num_layers,
        "gates": [
            {"layer": gate.layer_idx, "blank": _percents(gate.blank_prob)} for gate in trace.gates
        ],
        "final": _percents(trace.final_blank_prob),
        "off": [[frame, shown(token)] for frame, token, _ in trace.spikes_off],
        "panels": {name: panel._asdict() for name, panel in drawing.panels.items()},
        "variants": [_variant(trace, variant) for variant in variants],
    }


def _variant(trace: Trace, variant: Variant) -> dict[str, Any]:
    levels = levels_of(trace, variant.spikes)
    return {
        "depth": [[int(n), len(list(run))] for n, run in groupby(variant.depth.tolist())],
        "tokens": [
            [frame, shown(token), round(prob, 3), level]
            for (frame, token, prob), level in zip(variant.spikes, levels, strict=True)
        ],
        "words": marked_words(trace.ref, variant.text),
    }


def _percents(probs: Any) -> list[float | None]:
    """Return probabilities in percent; None where there is none."""
    return [None if p != p else round(100 * float(p), 1) for p in probs]
