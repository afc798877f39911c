"""The numbers of the page: what matters at the top, and everything as a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from espnet_layerskip.evaluation.report.collect import Material
from espnet_layerskip.evaluation.report.sweep import OFF_NAME, ON_NAME, STOCK_KIND, Point
from espnet_layerskip.evaluation.scoring import Interval
from espnet_layerskip.evaluation.tables import over_seeds

_HEADER = (
    "system",
    "WER %",
    "95 % interval",
    "CER %",
    "against skipping off, points",
    "frames skipped %",
    "GFLOPs per s of audio",
    "encoder ms per s of audio",
    "status",
)


def facts(material: Material) -> str:
    """Return the few numbers that a reader comes for."""
    by_name = {p.name: p for p in material.points}
    off, on = by_name[OFF_NAME], by_name.get(ON_NAME)
    shown = [("WER, skipping off", f"{off.wer.difference:.2f} %", f"interval {_range(off.wer)}")]
    if on is not None:
        shown = [*_accuracy_facts(on), *shown, *_cost_facts(on, off)]
    stock = next((p for p in material.points if p.kind == STOCK_KIND), None)
    if stock is not None:
        note = f"interval {_range(stock.wer)}"
        shown.append((f"WER, {stock.name}", f"{stock.wer.difference:.2f} %", note))
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in shown
    )
    return f'<dl class="facts">{items}</dl>'


def _accuracy_facts(on: Point) -> list[tuple[str, str, str]]:
    settings, (left, right) = on.settings, on.settings.extension or (0, 0)
    how = f"threshold {settings.threshold:g}, extension {left},{right}, context {settings.context}"
    return [
        ("frames skipped", f"{100 * on.skip_ratio:.1f} %", how),
        ("WER, skipping on", f"{on.wer.difference:.2f} %", f"against off: {on.change}"),
    ]


def _cost_facts(on: Point, off: Point) -> list[tuple[str, str, str]]:
    """Say what skipping saves; a loss of accuracy is no saving."""
    flops, time = on.gflops / off.gflops - 1, on.time_ms.difference / off.time_ms.difference - 1
    saved = f"{100 * time:+.1f} %"
    note = f"{off.time_ms.difference:.2f} to {on.time_ms.difference:.2f} ms per s of audio"
    if on.record["status"] != "ok":
        saved, note = "failed", on.record["status"].removeprefix("failed: ")
    return [
        (
            "encoder FLOPs, on against off",
            f"{100 * flops:+.1f} %",
            f"{off.gflops:.3f} to {on.gflops:.3f} GFLOPs per s of audio",
        ),
        ("encoder time, on against off", saved, note),
    ]


def results_table(points: Sequence[Point]) -> str:
    """Return every row as an HTML table."""
    head = "".join(
        f'<th scope="col"{_number(i)}>{escape(name)}</th>' for i, name in enumerate(_HEADER)
    )
    body = "".join(f"<tr>{_row(point)}</tr>" for point in points)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="All rows, can be scrolled">'
        "<table><caption>All rows</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(point: Point) -> str:
    wer, time, status = point.wer, point.time_ms, point.record["status"]
    shown_time = f"{time.difference:.2f} ({time.low:.2f} to {time.high:.2f})"
    cells = [
        point.name,
        over_seeds(point.record["wer"]),
        _range(wer),
        over_seeds(point.record["cer"]),
        str(point.change),
        f"{100 * point.skip_ratio:.1f}",
        f"{point.gflops:.3f}",
        shown_time if status == "ok" else "failed",
        status,
    ]
    first = f'<th scope="row">{escape(cells[0])}</th>'
    return first + "".join(
        f"<td{_number(i)}>{escape(cell)}</td>" for i, cell in enumerate(cells[1:], 1)
    )


def _number(column: int) -> str:
    return ' class="number"' if 0 < column < len(_HEADER) - 1 else ""


def _range(interval: Interval) -> str:
    return f"{interval.low:.2f} to {interval.high:.2f}"
