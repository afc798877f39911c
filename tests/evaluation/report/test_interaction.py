"""What the page's script gets; test_browser.py shows what it does with it."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from espnet_layerskip.evaluation.report.canvas import Drawing, Panel
from espnet_layerskip.evaluation.report.interaction import as_json, page_data
from espnet_layerskip.evaluation.report.sweep import measured_settings
from espnet_layerskip.evaluation.report.traces import Variant


@pytest.fixture
def data(points, trace_maker):
    points[3].record["status"] = "failed: WER +0.50"
    trace = dataclasses.replace(trace_maker(seconds=0.2), final_blank_prob=np.array([0.5, np.nan]))
    variant = Variant(np.array([2, 2, 8, 8, 2]), "A C", [(2, "\u2581A", 0.91239)])
    panels = {"depth": Panel(1, 2, 3, 4, (0, 0.2), (0, 8))}
    drawing = Drawing("utterance_u1", "", "", "", b"", 5.0, panels=panels)
    variants = {"u1": [variant] * len(measured_settings(points))}
    return page_data(
        SimpleNamespace(points=points, examples=[(trace, "")], variants=variants), [drawing]
    )


def test_settings_by_extension_and_threshold(data, points):
    lines = {
        line["name"]: [data["settings"][n]["threshold"] for n in line["settings"]]
        for line in data["lines"]
    }
    assert lines == {
        "0,0": ["0.5", "0.8", "0.9", "0.95", "0.99", "off"],
        "1,1": ["0.5", "0.8", "0.95", "0.99", "off"],
        "2,2": ["0.5", "0.8", "0.95", "0.99", "off"],
    }
    configured = data["settings"][data["configured"]]
    assert points[configured["row"]].name == "skipping on"
    assert configured["about"] == [
        "40 % of frames skip", "WER 10.10 % (+0.10 [-0.90, +1.10])", "FLOPs -9 %",
        "time of these utterances -9 %",
    ]  # fmt: skip
    [failed] = [s for s in data["settings"] if s["failed"]]
    assert failed["about"][-1] == "failed: WER +0.50"
    assert [s["about"] for s in data["settings"] if s["threshold"] == "off"] == 3 * [
        ["0 % of frames skip", "WER 10.00 %"]
    ]


def test_an_example(data):
    example = data["utterances"]["utterance_u1"]
    assert example["final"] == [50.0, None]
    assert example["panels"]["depth"]["right"] == 3
    variant = example["variants"][0]
    assert variant["depth"] == [[2, 2], [8, 2], [2, 1]]
    assert variant["tokens"] == [[2, "A", 0.912, 0]]
    assert variant["words"] == [("A", False), ("C", True)]


def test_json_that_ends_no_element():
    nasty = {"a": "</script><!-- & \u2028"}
    text = as_json(nasty)
    assert not set("<>&") & set(text)
    assert json.loads(text) == nasty
