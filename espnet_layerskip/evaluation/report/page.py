"""All figures of a report, and the page: one HTML file that opens without a network."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import soundfile

from espnet_layerskip.evaluation.compare import BUSY, unsteadiness
from espnet_layerskip.evaluation.environment import describe
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.report import cost_figures, gate_figures
from espnet_layerskip.evaluation.report.canvas import WIDTH, Drawing, inline_svg
from espnet_layerskip.evaluation.report.changes import (
    BETTER,
    SAME,
    UNCHANGED,
    WORSE,
    compare_texts,
    marked_words,
)
from espnet_layerskip.evaluation.report.collect import Material
from espnet_layerskip.evaluation.report.comparison import lengths, time_ms
from espnet_layerskip.evaluation.report.interaction import as_json, page_data
from espnet_layerskip.evaluation.report.sweep import (
    OFF_NAME,
    ON_NAME,
    STOCK_KIND,
    Point,
    in_words,
)
from espnet_layerskip.evaluation.report.templates import render_page
from espnet_layerskip.evaluation.report.traces import log_mel
from espnet_layerskip.evaluation.report.training_figure import draw_training
from espnet_layerskip.evaluation.report.utterance_figure import draw_utterance
from espnet_layerskip.evaluation.report.why import explain
from espnet_layerskip.evaluation.tables import over_seeds
from espnet_layerskip.evaluation.verdict import verdict

AUDIO_BYTES = 2_000_000  # of audio in the page; the page says where it is left out
WAV_BYTES = 16_000  # FLAC below this is given as WAV: Chromium cannot seek in FLAC of some KB
MAX_UNCHANGED = 200  # transcripts in the page that skipping did not change
# The buttons above the transcripts: what they say, and what they let through.
FILTERS = [
    ("changed", [WORSE, SAME, BETTER]),
    ("worse", [WORSE]),
    ("better", [BETTER]),
    ("as many errors", [SAME]),
    ("unchanged", [UNCHANGED]),
    ("all", [WORSE, SAME, BETTER, UNCHANGED]),
]


def draw_all(material: Material, command: str) -> list[Drawing]:
    """Return the drawings; those of utterances first, in the order of the examples."""
    drawings, missing = [], [line.split(":")[0] for line in material.failures]
    for trace, why in material.examples:
        feats = log_mel(material.experiment, material.speech[trace.utt_id])
        variants = material.variants.get(trace.utt_id, ())
        name = _file_name(trace.utt_id)
        drawings.append(draw_utterance(trace, feats, name, why, command, variants))
    points, threads = material.points, material.num_threads
    drawings += [
        cost_figures.draw_flops(points, command, missing),
        cost_figures.draw_time(points, threads, material.num_timed, command, missing),
        cost_figures.draw_changes_of_wer(points, command),
        gate_figures.draw_skip_ratio(material.traces, command),
        gate_figures.draw_precision_recall(material.traces, command),
        gate_figures.draw_reliability(material.traces, command),
    ]
    training = draw_training(material.history, command)
    return drawings if training is None else [*drawings, training]


def build_page(material: Material, drawings: Sequence[Drawing], command: str) -> str:
    """Return the whole page.

    Args:
        material: What was measured.
        drawings: What `draw_all` made of it.
        command: What makes the report, as it can be typed again.
    """
    from markupsafe import Markup

    points = {point.name: point for point in material.points}
    off, on = points[OFF_NAME], points.get(ON_NAME)
    trace = material.traces[0]
    gates = [gate.layer_idx for gate in trace.gates]
    texts = compare_texts(material.traces)
    changed = [c for c in texts if c.effect != UNCHANGED]
    unchanged = [c for c in texts if c.effect == UNCHANGED]
    script = files(__package__).joinpath("page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render_page(
        name=Path(material.exp).resolve().name,
        material=material,
        command=command,
        off=off,
        on=on,
        stock=next((p for p in material.points if p.kind == STOCK_KIND), None),
        verdict=verdict([p.record for p in material.points]),
        unsteady=_unsteady(material.points),
        lengths=lengths(off),
        time_ms=time_ms,
        why=explain(on, off, gates, trace.num_layers, material.stem_share) if on else [],
        examples=list(zip(material.examples, drawings, strict=False)),
        drawings={d.name: d for d in drawings},
        changes=changed,
        texts=[*changed, *unchanged[:MAX_UNCHANGED]],
        left_out=max(0, len(unchanged) - MAX_UNCHANGED),
        filters=FILTERS,
        right=Counter((c.errors_off == 0, c.errors_on == 0) for c in texts),
        environment=[line.removeprefix("- ") for line in describe(material.environment)],
        max_wer_points=material.max_wer_points,
        usual_width=WIDTH,
        audio_source=_audio_sources(AUDIO_BYTES),
        in_words=in_words,
        inline_svg=lambda drawing: Markup(inline_svg(drawing)),
        marked_words=marked_words,
        over_seeds=over_seeds,
        script=Markup(script),
        script_hash=digest,
        data=Markup(as_json(page_data(material, drawings))),
    )


def _unsteady(points: Sequence[Point]) -> float:
    """Return by how much passes of the same row differ, in percent; 0 = by what is usual."""
    passes = {p.name: [p.time_ms.low, p.time_ms.difference, p.time_ms.high] for p in points}
    spread = unsteadiness(passes)
    return 100.0 * spread if spread > BUSY else 0.0


def _audio_sources(left: int) -> Callable[[Speech], str | None]:
    """Return what gives speech as a data URI; None from where it is more than so many bytes."""

    def source(speech: Speech) -> str | None:
        nonlocal left
        kind, data = "flac", _encoded(speech, "FLAC")
        if len(data) < WAV_BYTES:
            kind, data = "wav", _encoded(speech, "WAV")
        if len(data) > left:
            return None
        left -= len(data)
        return f"data:audio/{kind};base64,{base64.b64encode(data).decode()}"

    return source


def _encoded(speech: Speech, form: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, speech.samples, speech.rate, format=form, subtype="PCM_16")
    return buffer.getvalue()


def _file_name(utt_id: str) -> str:
    """Return the file name of an utterance's figure, without suffix."""
    return "utterance_" + re.sub(r"[^\w.-]+", "_", utt_id)
