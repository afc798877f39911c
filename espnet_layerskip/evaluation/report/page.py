"""The page: one HTML file with everything in it, that opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from espnet_layerskip.evaluation.environment import describe
from espnet_layerskip.evaluation.report.canvas import WIDTH, Drawing, inline_svg
from espnet_layerskip.evaluation.report.collect import Material
from espnet_layerskip.evaluation.report.draw import utterance_name
from espnet_layerskip.evaluation.report.page_texts import AudioBudget, changed_texts, sides
from espnet_layerskip.evaluation.report.summary import facts, results_table

# Nothing is fetched: were a link to slip in, the browser would refuse it.
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def build_page(material: Material, drawings: Sequence[Drawing], command: str) -> str:
    """Return the whole page.

    Args:
        material: What was measured.
        drawings: Figures of `espnet_layerskip.evaluation.report.draw`.
        command: What makes the report, as it can be typed again.
    """
    by_name = {d.name: d for d in drawings}
    audio = AudioBudget()
    sections = [
        ("utterances", "Utterances", _utterances(material, by_name, command, audio)),
        ("cost", "Accuracy against cost", _figures(by_name, command, _COST)),
        (
            "changed",
            "What skipping changed",
            changed_texts(material.traces, material.speech, audio),
        ),
        ("gate", "The gate", _figures(by_name, command, _GATE)),
        ("training", "Training", _training(material, by_name, command)),
        ("numbers", "All numbers", _numbers(material)),
        ("made", "How this page was made", _made(material, command)),
    ]
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-heading"><h2 id="{key}-heading">{title}</h2>'
        f"{content}</section>\n"
        for key, title, content in sections
    )
    style = (
        files("espnet_layerskip.evaluation.report").joinpath("page.css").read_text(encoding="utf-8")
    )
    name = escape(Path(material.exp).resolve().name)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="color-scheme" content="light dark">
<title>Layer skipping: {name}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header>
<h1>Layer skipping: {name}</h1>
<p>Frames that an intermediate CTC head is sure are blank skip the upper encoder layers. Test set
{escape(material.data_dir)}: {len(material.speech)} utterances, {material.num_words} words; greedy
decoding. The gate's settings: {escape(material.chosen)}.</p>
{_notices(material)}
{facts(material)}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{body}</main>
</body>
</html>
"""


_COST = ("wer_flops", "wer_time", "wer_change")
_GATE = ("skip_ratio", "gate_precision_recall", "gate_reliability")


def _notices(material: Material) -> str:
    lines = [material.history.incomplete] if material.history.incomplete else []
    lines += [f"Could not be measured: {line}" for line in material.failures]
    load, cores = material.environment["load_before"], material.environment["usable_cores"]
    if load is not None and load[0] > 0.5 * cores:
        lines.append(
            f"The machine was busy when this was measured (load average {load[0]:.1f} on {cores} "
            "cores): its times say little."
        )
    return "".join(f'<p class="notice" role="note">{escape(line)}</p>' for line in lines)


def _numbers(material: Material) -> str:
    return (
        "<p>WER and CER in percent; the intervals are 95 % of a bootstrap over the test "
        "utterances and know nothing of other training seeds. Time: encoder only, batch 1, "
        f"{material.num_threads} thread(s), median (shortest to longest pass) over "
        f"{material.num_timed} utterances. A row whose WER is more than 0.3 points above the same "
        "weights with skipping off is marked failed: it is no speed-up.</p>"
        + results_table(material.points)
    )


def _utterances(
    material: Material, drawings: dict[str, Drawing], command: str, audio: AudioBudget
) -> str:
    parts = []
    for example in material.examples:
        trace = example.trace
        drawing = drawings[utterance_name(trace.utt_id)]
        texts = sides(trace.ref, [("skipping off", trace.text_off), ("skipping on", trace.text_on)])
        parts.append(
            f"<h3>{escape(trace.utt_id)}: {escape(example.why[0].lower() + example.why[1:])}</h3>"
            f"{audio.player(example.speech)}{texts}{_figure(drawing, command)}"
        )
    return "".join(parts)


def _figures(drawings: dict[str, Drawing], command: str, names: Sequence[str]) -> str:
    return "".join(
        f"<h3>{escape(drawings[name].title)}</h3>{_figure(drawings[name], command)}"
        for name in names
    )


def _figure(drawing: Drawing, command: str) -> str:
    wide = drawing.width > WIDTH
    # A wide figure keeps its scale and is scrolled, by keyboard as well.
    box = (
        f'<div class="drawing wide" tabindex="0" role="region" '
        f'aria-label="{escape(drawing.title, quote=True)}, can be scrolled">'
        f'<div style="min-width: {drawing.width * 5:.0f}rem">'
        if wide
        else '<div class="drawing"><div>'
    )
    return (
        f'<figure id="figure-{drawing.name}">{box}{inline_svg(drawing)}</div></div>'
        f"<figcaption>{escape(drawing.caption)}"
        f'<details class="command"><summary>Command</summary><code>{escape(command)}</code>'
        f"</details></figcaption></figure>"
    )


def _training(material: Material, drawings: dict[str, Drawing], command: str) -> str:
    if "training" in drawings:
        return _figure(drawings["training"], command)
    return (
        "<p>There are no training curves: the experiment has neither a checkpoint.pth that can be "
        "read nor a train.log with epoch results.</p>"
    )


def _made(material: Material, command: str) -> str:
    lines = [
        *(line.removeprefix("- ") for line in describe(material.environment)),
        f"experiment: {material.exp}, checkpoint {material.checkpoint}, SHA-256 {material.sha256}",
    ]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<pre>{escape(command)}</pre><ul>{items}</ul>"
