"""All figures of a report, and the page: one HTML file that opens without a network."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path

import soundfile

from espnet_layerskip.evaluation.environment import describe
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.report import cost_figures, gate_figures
from espnet_layerskip.evaluation.report.canvas import WIDTH, Drawing, inline_svg
from espnet_layerskip.evaluation.report.changes import confusion, find_changes, marked_words
from espnet_layerskip.evaluation.report.collect import Material
from espnet_layerskip.evaluation.report.sweep import OFF_NAME, ON_NAME, STOCK_KIND, in_words
from espnet_layerskip.evaluation.report.templates import render_page
from espnet_layerskip.evaluation.report.traces import log_mel
from espnet_layerskip.evaluation.report.training_figure import draw_training
from espnet_layerskip.evaluation.report.utterance_figure import draw_utterance
from espnet_layerskip.evaluation.scoring import MAX_WER_POINTS
from espnet_layerskip.evaluation.tables import over_seeds

AUDIO_BYTES = 2_000_000  # of FLAC in the page; the page says where audio is left out


def draw_all(material: Material, command: str) -> list[Drawing]:
    """Return the drawings; those of utterances first, in the order of the examples."""
    drawings = []
    for trace, why in material.examples:
        feats = log_mel(material.experiment, material.speech[trace.utt_id])
        drawings.append(draw_utterance(trace, feats, _file_name(trace.utt_id), why, command))
    drawings += [
        cost_figures.draw_flops(material.points, command),
        cost_figures.draw_time(material.points, material.num_threads, material.num_timed, command),
        cost_figures.draw_changes_of_wer(material.points, command),
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
    return render_page(
        name=Path(material.exp).resolve().name,
        material=material,
        command=command,
        off=points[OFF_NAME],
        on=points.get(ON_NAME),
        stock=next((p for p in material.points if p.kind == STOCK_KIND), None),
        examples=list(zip(material.examples, drawings, strict=False)),
        drawings={d.name: d for d in drawings},
        changes=find_changes(material.traces),
        right=confusion(material.traces),
        environment=[line.removeprefix("- ") for line in describe(material.environment)],
        max_wer_points=MAX_WER_POINTS,
        usual_width=WIDTH,
        audio_source=_AudioSources(AUDIO_BYTES),
        in_words=in_words,
        inline_svg=lambda drawing: Markup(inline_svg(drawing)),
        marked_words=marked_words,
        over_seeds=over_seeds,
    )


class _AudioSources:
    """Gives out audio for the page, until there is enough of it.

    Args:
        limit: In bytes of FLAC.
    """

    def __init__(self, limit: int):
        self.left = limit

    def __call__(self, speech: Speech) -> str | None:
        """Return the samples as a data URI; None if they are too much."""
        buffer = io.BytesIO()
        soundfile.write(buffer, speech.samples, speech.rate, format="FLAC", subtype="PCM_16")
        data = buffer.getvalue()
        if len(data) > self.left:
            return None
        self.left -= len(data)
        return f"data:audio/flac;base64,{base64.b64encode(data).decode()}"


def _file_name(utt_id: str) -> str:
    """Return the file name of an utterance's figure, without suffix."""
    return "utterance_" + re.sub(r"[^\w.-]+", "_", utt_id)
