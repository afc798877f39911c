"""Figures of made-up results: no text overlaps, axes have labels, captions say what to see."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_layerskip.evaluation.report import canvas
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
from espnet_layerskip.evaluation.report.templates import caption
from espnet_layerskip.evaluation.report.traces import Variant
from espnet_layerskip.evaluation.report.training_figure import draw_training
from espnet_layerskip.evaluation.report.training_history import History
from espnet_layerskip.evaluation.report.utterance_figure import (
    draw_utterance,
    levels_of,
    stagger,
)

COMMAND = "espnet-layerskip report --exp exp"


@pytest.fixture
def figures(monkeypatch):
    """The matplotlib figures that are finished in a test."""
    kept = []
    finish = canvas.finish

    def keep(figure, *args, **kwargs):
        kept.append(figure)
        return finish(figure, *args, **kwargs)

    monkeypatch.setattr(canvas, "finish", keep)
    monkeypatch.setattr(canvas, "PNG_DPI", 30)  # of the file only
    return kept


def shown_texts(figure):
    """(text, bounding box in pixels) of every text that can be seen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    FigureCanvasAgg(figure).draw()
    hidden = set()
    for ax in figure.axes:
        if not ax.get_visible():
            hidden |= set(ax.findobj(Text))
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not low <= tick.get_loc() <= high:
                    hidden |= {tick.label1, tick.label2}
    return [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(lambda a: isinstance(a, Text))
        if text.get_visible() and text.get_text().strip() and text not in hidden
    ]


def check_texts(figure):
    texts = shown_texts(figure)
    width, height = figure.canvas.get_width_height()
    for i, (text, box) in enumerate(texts):
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
        assert inside, f"{text!r} is cut: {box} of {width} x {height}"
        for other, other_box in texts[i + 1 :]:
            overlap = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            height_ = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert overlap <= 1 or height_ <= 1, f"{text!r} overlaps {other!r}"


def check(drawing, figures):
    assert len(figures) == 1
    check_texts(figures[0])
    axes = [ax for ax in figures[0].axes if ax.get_visible()]
    assert any(ax.get_xlabel() for ax in axes)
    assert all(ax.get_ylabel() or ax.get_title(loc="left") or ax.get_yticklabels() for ax in axes)
    assert "ook " in drawing.caption
    assert COMMAND in drawing.svg


def test_overlapping_and_cut_texts_are_seen():
    """Negative control."""
    with canvas.style():
        for place, message in (((0.5, 0.5), "overlaps"), ((1.5, 0.5), "is cut")):
            figure = canvas.new_figure(2.0)
            figure.text(0.5, 0.5, "one")
            figure.text(*place, "two")
            with pytest.raises(AssertionError, match=message):
                check_texts(figure)


@pytest.mark.slow
def test_cost_figures(points, figures):
    points[3].record["status"] = "failed: WER +0.50"
    flops = draw_flops(points, COMMAND, ["gone"])
    check(flops, figures)
    assert "from 0.5 to 0.99" in flops.caption
    assert "Not shown, because it could not be measured: gone." in flops.caption
    assert len(flops.tips) == len(points)
    assert "WER 14.00 %" in next(t for t in flops.tips.values() if t.startswith("stopped"))
    assert "Failed: WER +0.50" in flops.tips["row3"]
    [ax] = figures[0].axes
    texts = [text.get_text() for text in ax.texts]
    assert {"0.5", "0.8", "0.95", "0.99", "skipping off"} <= set(texts)
    assert "stopped at layer 4\n\u2196 0.6, WER 14.0" in texts, "it lies outside: how far"
    low, high = ax.get_xlim()
    assert low > 0.8, "made for our own rows, not for the early exit"
    assert high < 1.1
    figures.clear()
    time = draw_time(points, 1, 20, COMMAND)
    check(time, figures)
    assert "Not shown" not in time.caption
    figures.clear()
    check(draw_changes_of_wer(points, COMMAND), figures)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "tokens"), [(1.2, "bpe"), (3.0, "char"), (12.0, "bpe")])
def test_utterance_figure(trace_maker, figures, seconds, tokens):
    trace = trace_maker(seconds=seconds, gates=2)
    if tokens == "bpe":
        spikes = [(f, "\u2581WORDPIECE", 0.9) for f, _, _ in trace.spikes[::2]]
        trace = dataclasses.replace(trace, spikes=spikes)
    crowded = [(f, "WORDPIECE", 0.9) for f, _, _ in trace.spikes_off]
    variants = [Variant(trace.depth, "", crowded)]
    feats = np.random.default_rng(0).normal(size=(int(100 * seconds), 80))
    drawing = draw_utterance(trace, feats, "utterance_u1", "Why.", COMMAND, variants)
    check(drawing, figures)
    panel, levels = drawing.panels["tokens"], levels_of(trace, crowded)
    assert panel.y[1] > 1.07 + 0.21 * (max(levels) + 1), "room for another setting's tokens"
    assert drawing.panels["depth"].x == (0.0, seconds)
    assert 0 < panel.top < panel.bottom < drawing.panels["depth"].top


def test_utterance_without_tokens(trace_maker, figures):
    trace = dataclasses.replace(trace_maker(), spikes=[], text_on="")
    check(draw_utterance(trace, np.zeros((300, 80)), "u", "Why.", COMMAND), figures)


def test_the_caption_tells_why_frames_run_or_skip(trace_maker):
    def about(**values):
        return caption("utterance", why="", trace=dataclasses.replace(trace_maker(), **values))

    assert "repeat" not in about()
    assert "3 of them repeat a sure label" in about(num_repeats=3)
    assert "runs whole" not in about()
    assert "It runs whole, because too few of its frames would skip" in about(whole=True)


@pytest.mark.slow
def test_gate_figures(trace_maker, figures):
    traces = [trace_maker(f"u{i}", 2.0 + 0.2 * i, i, gates=2) for i in range(6)]
    for draw in (draw_precision_recall, draw_reliability, draw_skip_ratio):
        figures.clear()
        drawing = draw(traces, COMMAND)
        check(drawing, figures)
    assert len(drawing.tips) == len(traces)


def test_gate_figures_of_one_utterance_without_blanks(trace_maker, figures):
    """Nothing to divide by: no frame is blank, no correlation."""
    trace = trace_maker()
    none = np.zeros(trace.num_frames, bool)
    gate = dataclasses.replace(trace.gates[0], blank_prob=np.full(trace.num_frames, 0.01))
    trace = dataclasses.replace(trace, final_is_blank=none, gates=[gate])
    drawing = draw_precision_recall([trace], COMMAND)
    assert "precision not defined" in drawing.caption
    draw_reliability([trace], COMMAND)
    assert "correlation" not in draw_skip_ratio([trace], COMMAND).caption


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 60])
def test_training_figure(figures, epochs):
    names = ("loss", "loss_ctc", "loss_interctc_layer4", "loss_interctc_layer10", "cer_ctc")
    curve = {e: 1.0e4 / e for e in range(1, epochs + 1)}
    curves = {"train": dict.fromkeys(names, curve), "valid": {"cer_ctc_skip": {1: 0.5}}}
    drawing = draw_training(History(curves, "train.log", 100), COMMAND)
    check(drawing, figures)
    titles = [ax.get_title(loc="left") for ax in figures[0].axes]
    assert titles.index("CTC loss, layer 4") < titles.index("CTC loss, layer 10")
    assert f"stopped after epoch {epochs} of 100" in drawing.caption


def test_no_training_figure_without_numbers():
    assert draw_training(History({"train": {}, "valid": {}}, "train.log"), COMMAND) is None


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 2)), min_size=1, max_size=40).map(
        lambda labels: sorted(labels)
    )
)
def test_labels_of_one_level_do_not_overlap(labels):
    at, widths = zip(*labels, strict=True)
    placed = {}
    for centre, width, level in zip(at, widths, stagger(at, widths), strict=True):
        start = centre - width / 2
        assert all(end <= start for end in placed.get(level, []))
        placed.setdefault(level, []).append(centre + width / 2)
