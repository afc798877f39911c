"""Training curves: every loss, error rate and gate statistic by epoch."""

from __future__ import annotations

import re

from espnet_layerskip.evaluation.report import canvas
from espnet_layerskip.evaluation.report.canvas import Drawing
from espnet_layerskip.evaluation.report.templates import caption
from espnet_layerskip.evaluation.report.training_history import History

# Panels in this order; the rest (times, memory, optimizer) is not what training is judged by.
_WANTED = (
    (r"loss$", "total loss"),
    (r"loss_ctc$", "CTC loss, final"),
    (r"loss_interctc_layer(\d+)$", "CTC loss, layer {}"),
    (r"loss_kd_blank_layer(\d+)$", "distillation, blank, layer {}"),
    (r"loss_kd_label_layer(\d+)$", "distillation, labels, layer {}"),
    (r"loss_att$", "attention loss"),
    (r"cer_ctc$", "CER, skipping off"),
    (r"cer_ctc_skip$", "CER, skipping on"),
    (r"cer_interctc_layer(\d+)$", "CER, layer {}"),
    (r"skip_ratio$", "frames skipped (share)"),
    (r"gate_precision_layer(\d+)$", "gate precision, layer {}"),
    (r"gate_recall_layer(\d+)$", "gate recall, layer {}"),
)


@canvas.style()
def draw_training(history: History, command: str) -> Drawing | None:
    """Draw every curve that the training has; None if it has none."""
    panels = _panels(history)
    if not panels:
        return None
    rows = (len(panels) + 1) // 2
    figure = canvas.new_figure(0.6 + 1.65 * rows)
    axes = figure.subplots(rows, 2, squeeze=False, sharex=True).ravel()
    for (key, title), ax in zip(panels, axes, strict=False):
        for part, color, dash in (("train", canvas.BLUE, "-"), ("valid", canvas.VERMILLION, "--")):
            curve = history.curves[part].get(key, {})
            marker = "o" if len(curve) == 1 else None
            ax.plot(list(curve), list(curve.values()), dash, color=color, marker=marker)
        ax.set_title(title, fontsize=9)
        ax.tick_params(labelsize=8)
        ax.xaxis.get_major_locator().set_params(integer=True)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(panels) - 2) : len(panels)]:  # the last of each column
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("epoch")
    axes[0].plot([], [], color=canvas.BLUE, label="training")
    axes[0].plot([], [], "--", color=canvas.VERMILLION, label="validation")
    figure.legend(loc="outside upper left", ncols=2)
    about = caption("training", history=history)
    return canvas.finish(figure, "training", "Training curves", about, command)


def _panels(history: History) -> list[tuple[str, str]]:
    """Return (key, title) of the curves that there are, in the order of ``_WANTED``."""
    keys = sorted({*history.curves["train"], *history.curves["valid"]}, key=_natural)
    found = []
    for pattern, title in _WANTED:
        for key in keys:
            if match := re.match(pattern, key):
                found.append((key, title.format(*match.groups())))
    return found


def _natural(key: str) -> list[tuple[bool, int, str]]:
    return [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"(\d+)", key)]
