from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.text import Text

from espnet_layerskip.evaluation.report import canvas
from espnet_layerskip.evaluation.report.labels import Label, place_labels


def place(points):
    """Return the boxes of the written labels, the axes' box, and the labels left out."""
    with canvas.style():
        figure = canvas.new_figure(3.0)
        ax = figure.subplots()
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        labels = [Label(x, y, f"label {i}", canvas.INK) for i, (x, y) in enumerate(points)]
        left_out = place_labels(ax, labels)
        figure.draw_without_rendering()
        boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the line to the point
        return boxes, ax.get_window_extent(), left_out


inside = st.floats(0.02, 0.98)


@given(st.lists(st.tuples(inside, inside), min_size=1, max_size=12))
@example([(0.75, 0.0625), (0.875, 0.125), (0.9375, 0.0625)])
@settings(max_examples=4)
def test_no_label_covers_another_or_is_cut(points):
    boxes, edges, left_out = place(points)
    assert len(boxes) + len(left_out) == len(points)
    for i, box in enumerate(boxes):
        assert edges.x0 - 1 <= box.x0
        assert box.x1 <= edges.x1 + 1
        for other in boxes[i + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            assert across <= 1 or min(box.y1, other.y1) - max(box.y0, other.y0) <= 1


def test_what_has_no_room_is_left_out_and_said():
    boxes, _, left_out = place([(0.5, 0.5)] * 60)
    assert 1 <= len(left_out) < 60
    assert [label.text for label in left_out][-1] == "label 59"
    assert len(boxes) == 60 - len(left_out)
