"""All figures of a report, in the order of the page."""

from __future__ import annotations

import re

from espnet_layerskip.evaluation.report.canvas import Drawing
from espnet_layerskip.evaluation.report.collect import Material
from espnet_layerskip.evaluation.report.cost_figures import (
    draw_changes_of_wer,
    draw_flops,
    draw_time,
)
from espnet_layerskip.evaluation.report.gate_figures import (
    draw_precision_recall,
    draw_reliability,
    draw_skip_ratio,
)
from espnet_layerskip.evaluation.report.training_figure import draw_training
from espnet_layerskip.evaluation.report.utterance_figure import draw_utterance


def draw_all(material: Material, command: str) -> list[Drawing]:
    """Return the drawings; those of utterances first, in the order of the examples."""
    drawings = [
        draw_utterance(e.trace, e.feats, utterance_name(e.trace.utt_id), e.why, command)
        for e in material.examples
    ]
    drawings += [
        draw_flops(material.points, command),
        draw_time(material.points, material.num_threads, material.num_timed, command),
        draw_changes_of_wer(material.points, command),
        draw_skip_ratio(material.traces, command),
        draw_precision_recall(material.traces, command),
        draw_reliability(material.traces, command),
    ]
    training = draw_training(material.history, command)
    return drawings if training is None else [*drawings, training]


def utterance_name(utt_id: str) -> str:
    """Return the file name of an utterance's figure, without suffix."""
    return "utterance_" + re.sub(r"[^\w.-]+", "_", utt_id)
