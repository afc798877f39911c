#!/usr/bin/env python3
"""When does skipping pay? Measure the encoder, fit what it costs, and write the chart and the page.

    tools/when_does_it_pay.py measure   # docs/when_does_it_pay.csv; some 5 minutes on an idle core
    tools/when_does_it_pay.py write     # from it docs/when_does_it_pay.md, .png and .html

What is measured: Conformer encoders of 12 layers with random weights, one utterance at a time, one
thread (its processor time, the fastest of interleaved passes), skipping on against skipping off in
the same fast form, skip_context: full. A threshold is chosen so that the wanted share of the frames
skips.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from string import Template
from typing import Any

import numpy as np

TOOLS = Path(__file__).resolve().parent  # the templates of the two pages are here
DOCS = TOOLS.parent / "docs"
LAYERS, GATES = 12, (3, 6, 9)
SKIPPED = (0.5, 0.7, 0.9)  # share of the frames
SECONDS = (1.0, 3.0, 10.0, 30.0)
WORTH = 1.05  # times as fast; less is not worth it
# Width: (feature bins, heads, units of the feed-forward, kernel, channels of the subsampling).
WIDTHS = {96: (40, 4, 384, 15, 32), 256: (80, 4, 2048, 31, 0), 512: (80, 8, 2048, 31, 0)}
COLUMNS = ("width", "layers", "gate", "seconds", "frames", "kept", "stem_ms", "off_ms", "on_ms")
# What a pass costs in ms: fixed and per frame of the subsampling; of a layer fixed, for each frame
# that runs, for each pair of frames that attention joins, for each frame that skips; of the gate.
TERMS = ("stem", "stem_frame", "layer", "frame", "pair", "skipped", "gate", "gate_frame")

Row = dict[str, float]


def measure(widths: Sequence[int], seconds: Sequence[float], repeats: int) -> Iterator[Row]:
    """Yield a row for each width, length, gate and share of skipped frames."""
    import time

    import torch

    from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
    from espnet_layerskip.evaluation.timing import num_threads, time_interleaved
    from espnet_layerskip.method.ctc import LayerSkipCTC
    from espnet_layerskip.method.settings import OFF, SkipSettings

    for width in widths:
        bins, heads, units, kernel, channels = WIDTHS[width]
        torch.manual_seed(0)
        encoder: Any = LayerSkipConformerEncoder(
            input_size=bins, output_size=width, attention_heads=heads, linear_units=units,
            num_blocks=LAYERS, cnn_module_kernel=kernel, stem_channels=channels,
            rel_pos_type="latest", macaron_style=True, use_cnn_module=True,
            gate_layer_idx=list(GATES), spike_extension=[0, 0], skip_context="full",
        )  # fmt: skip
        ctc: Any = LayerSkipCTC(500, width).eval()
        encoder.eval().optimize_for_inference()
        for length in seconds:
            x = torch.randn(
                1, round(100 * length), bins, generator=torch.Generator().manual_seed(1)
            )
            run = partial(encoder.run, x, torch.tensor([x.size(1)]), ctc)
            stem = partial(encoder.subsample, x, torch.tensor([x.size(1)]))
            cases, kept = {"stem": stem, "off": partial(run, OFF)}, {}
            with torch.inference_mode(), num_threads(1):
                for gate in GATES:
                    how = SkipSettings(0.999999, gates_in_use=(gate,), min_spike_ratio=0.0)
                    probs = run(how).trace.gates[0].blank_prob.flatten().sort().values
                    for skipped in SKIPPED:
                        least = max(1, round((1.0 - skipped) * len(probs)))
                        at = replace(how, blank_threshold=float(probs[least - 1]))
                        cases[f"{gate} {skipped}"] = partial(run, at)
                        kept[gate, skipped] = 1.0 - run(at).trace.skip_ratio()
                taken = time_interleaved([cases], repeats, clock=time.thread_time)
            for (gate, skipped), share in kept.items():
                values = (
                    *(width, LAYERS, gate, length, len(probs), round(share, 4)),
                    *(round(1e3 * min(taken[c]), 3) for c in ("stem", "off", f"{gate} {skipped}")),
                )
                yield dict(zip(COLUMNS, values, strict=True))


def terms(frames: float, kept: float, gate: int, layers: int = LAYERS) -> list[float]:
    """Return how often each of `TERMS` is paid; without a gate ``gate`` is ``layers``."""
    upper, run = layers - gate, kept * frames
    return [
        1.0, frames, layers, gate * frames + upper * run, gate * frames**2 + upper * run * frames,
        upper * (frames - run), float(upper > 0), frames * (upper > 0),
    ]  # fmt: skip


def fit(rows: Sequence[Row]) -> dict[int, dict[str, float]]:
    """Return by width the cost of each of `TERMS` in ms: relative least squares, none negative."""
    from scipy.optimize import nnls

    found = {}
    for width in sorted({int(row["width"]) for row in rows}):
        design, times = [], []
        for row in (r for r in rows if r["width"] == width):
            on = terms(row["frames"], row["kept"], int(row["gate"]))
            off = terms(row["frames"], 1.0, LAYERS)
            stem = [1.0, row["frames"], *[0.0] * (len(TERMS) - 2)]
            design += [on, off, stem]
            times += [row["on_ms"], row["off_ms"], row["stem_ms"]]
        scaled = np.array(design) / np.array(times)[:, None]
        found[width] = dict(zip(TERMS, nnls(scaled, np.ones(len(times)))[0].tolist(), strict=True))
    return found


def speedup(cost: Mapping[str, float], frames: float, kept: float, gate: int) -> float:
    """Return how many times as fast the encoder is with skipping, by the fitted costs."""
    price = [cost[name] for name in TERMS]
    off, on = (np.dot(price, terms(frames, *how)) for how in ((1.0, LAYERS), (kept, gate)))
    return float(off / on)


def ratio(row: Row) -> float:
    """Return how many times as fast a measured row is with skipping."""
    return row["off_ms"] / row["on_ms"]


def residual(rows: Sequence[Row], costs: Mapping[int, Mapping[str, float]]) -> tuple[float, float]:
    """Return the median and the largest error of the fitted speed-ups, in percent."""
    off = []
    for row in rows:
        fitted = speedup(costs[int(row["width"])], row["frames"], row["kept"], int(row["gate"]))
        off.append(100 * abs(fitted / ratio(row) - 1))
    return median(off), max(off)


def break_even(cost: Mapping[str, float], kept: float, gate: int, per_second: float) -> str:
    """Return from how many seconds on skipping is worth it, up to a minute."""
    for tenths in range(5, 601):
        if speedup(cost, tenths / 10 * per_second, kept, gate) >= WORTH:
            return f"{tenths / 10:g}" if tenths > 5 else "0.5 or less"
    return "not worth it"


def draw(rows: Sequence[Row], costs: Mapping[int, Mapping[str, float]], command: str) -> Any:
    """Return the chart: a panel for each width and gate, a line for each share that skips."""
    from espnet_layerskip.evaluation.report import canvas

    lines = ((canvas.VERMILLION, "o"), (canvas.GREEN, "s"), (canvas.BLUE, "^"))
    per_second = frames_per_second(rows)
    xs = np.geomspace(min(SECONDS), max(SECONDS), 40)
    with canvas.style():
        figure = canvas.new_figure(6.4, 7.0)
        axes = figure.subplots(len(GATES), len(costs), sharex=True, sharey=True, squeeze=False)
        for ax, (gate, (width, cost)) in zip(
            axes.flat, ((g, c) for g in GATES for c in costs.items()), strict=True
        ):
            ax.axhspan(0.0, WORTH, color=canvas.GRID, alpha=0.6, lw=0)
            for skipped, (color, marker) in zip(SKIPPED, lines, strict=True):
                here = [r for r in rows if (r["width"], r["gate"]) == (width, gate)
                        and abs(1 - r["kept"] - skipped) < 0.06]  # fmt: skip
                ax.plot(
                    [r["seconds"] for r in here],
                    [ratio(r) for r in here],
                    marker,
                    color=color,
                    ms=4,
                )
                fitted = [speedup(cost, x * per_second, 1 - skipped, gate) for x in xs]
                ax.plot(xs, fitted, color=color, lw=1.2)
            ax.set_title(f"width {width}, gate after {gate} of {LAYERS}", fontsize=8)
            ax.set_xscale("log")
            ax.set_xticks(SECONDS, [f"{s:g}" for s in SECONDS])
            ax.minorticks_off()
        axes[0, 0].set_ylim(0.8, 0.2 + max(map(ratio, rows)))
        for ax in axes[-1]:
            ax.set_xlabel("seconds")
        for ax in axes[:, 0]:
            ax.set_ylabel("times as fast")
        for skipped, (color, marker) in zip(SKIPPED, lines, strict=True):
            label = f"{100 * skipped:.0f} % of the frames skip"
            axes[0, 0].plot([], [], color=color, marker=marker, ms=4, label=label)
        figure.legend(loc="outside upper left", ncols=3, columnspacing=1.2)
        caption = (
            "Points are measured, lines are the fitted cost. Grey: not worth it. Conformer, one "
            "thread, one utterance at a time, encoder only."
        )
        title = "When does skipping pay?"
        return canvas.finish(figure, "when_does_it_pay", title, caption, command)


def frames_per_second(rows: Sequence[Row]) -> float:
    """Return the encoder's frames per second, of the longest inputs."""
    longest = max(rows, key=lambda row: row["seconds"])
    return longest["frames"] / longest["seconds"]


def markdown(rows: Sequence[Row], costs: Mapping[int, Mapping[str, float]]) -> str:
    """Return the table of break-even lengths, and the costs with their error."""
    from espnet_layerskip.evaluation.tables import markdown_table

    per_second = frames_per_second(rows)
    shares = [f"{100 * s:.0f} % skip" for s in SKIPPED]
    table = [
        (f"{width}", f"{gate} of {LAYERS}",
         *(break_even(cost, 1 - s, gate, per_second) for s in SKIPPED))
        for width, cost in costs.items() for gate in GATES
    ]  # fmt: skip
    costs_table = [
        (f"{width}", *(f"{cost[name]:.3g}" for name in TERMS)) for width, cost in costs.items()
    ]
    usual, worst = residual(rows, costs)
    return Template((TOOLS / "when_does_it_pay.md.in").read_text(encoding="utf-8")).substitute(
        break_even=markdown_table(("width", "gate after layer", *shares), table),
        costs=markdown_table(("width", *TERMS), costs_table),
        points=len(rows), usual=f"{usual:.1f}", worst=f"{worst:.0f}", worth=WORTH, layers=LAYERS,
        per_second=f"{per_second:.0f}",
    )  # fmt: skip


def page(rows: Sequence[Row], costs: Mapping[int, Mapping[str, float]], chart: str) -> str:
    """Return the calculator: one HTML file that opens without a network."""
    usual, worst = residual(rows, costs)
    per_second = frames_per_second(rows)
    data = {"costs": costs, "layers": LAYERS, "per_second": per_second, "worth": WORTH}
    source = (TOOLS / "when_does_it_pay.html.in").read_text(encoding="utf-8")
    return Template(source).substitute(
        data=json.dumps(data),
        chart=chart,
        points=len(rows),
        worth=WORTH,
        usual=f"{usual:.1f}",
        worst=f"{worst:.0f}",
    )


def read(path: Path) -> list[Row]:
    """Return the measured rows."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, or write from what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("measure", "write"))
    parser.add_argument("--csv", type=Path, default=DOCS / "when_does_it_pay.csv")
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS), choices=WIDTHS)
    parser.add_argument("--seconds", type=float, nargs="+", default=list(SECONDS))
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args(argv)
    if args.what == "measure":
        with args.csv.open("w", encoding="utf-8", newline="") as file:
            out = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            out.writeheader()
            for row in measure(args.widths, args.seconds, args.repeats):
                out.writerow(row)
                file.flush()
        return
    from espnet_layerskip.evaluation.report.canvas import inline_svg

    rows = read(args.csv)
    costs = fit(rows)
    drawing = draw(rows, costs, "tools/when_does_it_pay.py write")
    (DOCS / "when_does_it_pay.md").write_text(markdown(rows, costs), encoding="utf-8")
    (DOCS / "when_does_it_pay.png").write_bytes(drawing.png)
    (DOCS / "when_does_it_pay.html").write_text(
        page(rows, costs, inline_svg(drawing)), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
