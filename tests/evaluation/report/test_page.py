"""The page of made-up results: what it says, and that nothing in them becomes HTML."""

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import jinja2
import numpy as np
import pytest

from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.report import page, sweep, templates
from espnet_layerskip.evaluation.report.canvas import WIDTH, Drawing
from espnet_layerskip.evaluation.report.collect import Material
from espnet_layerskip.evaluation.report.training_history import History
from espnet_layerskip.evaluation.scoring import Interval

HOSTILE = "<script>alert('&\"')</script>"
NAMES = (
    *("wer_flops", "wer_time", "wer_change", "skip_ratio"),
    *("gate_precision_recall", "gate_reliability", "training"),
)


def drawing(name, title="A title", caption="Look here.", width=WIDTH):
    return Drawing(name, title, caption, "<?xml?><svg width='1' height='1'></svg>", b"", width)


@pytest.fixture
def material(traces, points):
    traces[0] = dataclasses.replace(traces[0], text_on="A")
    speech = {t.utt_id: Speech(t.utt_id, np.zeros(800, np.float32), 16000) for t in traces}
    usual = {"date": "today", "espnet_layerskip": "1", "commit": "abc", "espnet": "2", "torch": "3"}
    machine = {"python": "4", "cpu": "a CPU", "cores": 4, "usable_cores": 2}
    return Material(
        exp="exp/a_name",
        experiment=SimpleNamespace(checkpoint="a.pth", sha256="f" * 64, chosen="as configured"),
        data_dir="dump/test",
        speech=speech,
        num_words=16,
        traces=traces,
        examples=[(traces[0], "Asked for.")],
        points=points,
        failures=[],
        history=History({"train": {}, "valid": {}}, "train.log"),
        environment={**usual, **machine, "load_before": [0.1] * 3, "load_after": None},
        num_timed=12,
        num_threads=1,
    )


def build(material, names=NAMES, **more):
    drawings = [drawing("utterance_u0", **more), *(drawing(name) for name in names)]
    return page.build_page(material, drawings, "the command")


def shown(text):
    """The text of a page without tags and runs of white space."""
    body = text[text.index("<body>") :]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_off_and_on_side_by_side(material):
    top = shown(build(material)).split("Utterances")[0]
    for fact in (
        "Test set dump/test: 8 utterances, 16 words; greedy decoding",
        "Skipping 40 % of the frames makes the encoder 1.10 times as fast, at 10.1 % word errors",
        "skipping off skipping on on against off stock twin",
        "WER % 10.00 [7.50 to 12.50] 10.10 [7.60 to 12.60] +0.10 points [-0.90 to +1.10] 9.60",
        "frames skipped % 0.0 40.0",
        "encoder GFLOPs per s of audio 1.000 0.910 -9.0 % 1.020",
        "encoder ms per s of audio 4.00 3.64 -9.0 % 4.08",
        "Skipping on: threshold 0.9, extension 0,0, context full",
    ):
        assert fact in top
    assert "Could not be measured" not in top
    assert "machine was busy" not in top


def test_why_it_saves_what_it_saves(material):
    text = shown(build(dataclasses.replace(material, stem_share=0.5)))
    for step in (
        "Frames that skip: 40 % They skip every layer above the gate after layer 2.",
        "Work of the layers left out: 20 % A skipped frame leaves out 6 of 8 layers",
        "Encoder arithmetic (FLOPs) saved: 9 % The subsampling, 50 % of the arithmetic",
        "Encoder time saved: 9 % At least as much as the arithmetic.",
    ):
        assert step in text


def test_a_loss_of_accuracy_is_no_saving(material):
    material.points[1].record["status"] = "failed: WER +0.50 over full depth"
    page_text = build(material)
    text = shown(page_text)
    assert "encoder ms per s of audio 4.00 failed failed 4.08" in text
    assert "Skipping on: threshold 0.9, extension 0,0, context full. Failed: WER +0.50" in text
    assert "Encoder time saved: failed Does not count: WER +0.50" in text
    [row] = re.findall(r'<tr><th scope="row">skipping on</th>.*', page_text)
    assert "more than 0.3 points above" in text
    allowed = dataclasses.replace(material, max_wer_points=1.5)
    assert "more than 1.5 points above" in shown(build(allowed))
    assert '<td class="number">failed</td><td class=failed>failed: WER +0.50' in row


def test_rows_that_were_not_measured(material):
    points = [p for p in material.points if p.name != sweep.ON_NAME and p.kind != sweep.STOCK_KIND]
    changed = dataclasses.replace(material, points=points, failures=["skipping on: too slow"])
    text = shown(build(changed))
    assert "Could not be measured: skipping on: too slow" in text
    assert "WER % 10.00 [7.50 to 12.50] frames skipped" in text
    assert "on against off" not in text
    assert "skipping on" + 7 * " not measured" + " not measured: too slow" in text


def test_notices(material):
    history = History({"train": {"loss": {3: 1.0}}, "valid": {}}, "train.log", 9)
    busy = [dataclasses.replace(p, time_ms=Interval(4.0, 3.6, 4.8)) for p in material.points]
    text = shown(build(dataclasses.replace(material, history=history, points=busy)))
    assert "The training stopped after epoch 3 of 9" in text
    assert "machine was busy when this was timed: passes of the same row differ by 30 %" in text


def test_times_of_a_comparison_head_the_page(material):
    """Its verdict, its times by length, and the saving that follows from them."""
    for name, times in ((sweep.OFF_NAME, (2.0, 1.0)), (sweep.ON_NAME, (2.2, 0.8))):
        point = next(p for p in material.points if p.name == name)
        by_length = {n: {"median_ms": ms} for n, ms in zip(("3", "10"), times, strict=True)}
        point.record["encoder_time_by_length"] = by_length
    text = shown(build(material))
    assert "makes the encoder 1.25 times as fast on 10 s of audio, but on 3 s of audio it" in text
    assert "encoder ms per s of audio, on 3 s 2.00 2.20 +10.0 % not timed" in text
    assert "encoder ms per s of audio, on 10 s 1.00 0.80 -20.0 % not timed" in text
    assert "Encoder time saved on 10 s of audio: 20 %" in text
    assert "On 3 s: none, 10 % more." in text
    assert "taken over from the comparison" in text


def test_what_skipping_changed(material):
    text = shown(build(material))
    assert "changed the text of 1 of 8 utterances: 0 for the better, 0 with as many" in text
    assert "1 for the worse" in text
    assert "off: right 7 1 off: wrong 0 0" in text
    assert "u0: worse reference A B skipping off, word errors: 0 A B" in text
    assert '<dd class="text-on">A <span class="wrong">*</span></dd>' in build(material)
    material.traces[0] = dataclasses.replace(material.traces[0], ref="", text_on="")
    assert 'word errors: 0</dt><dd class="text-on">(nothing)</dd>' in build(material)


def test_without_a_training_figure(material):
    with_figure, without = build(material), build(material, names=NAMES[:-1])
    assert "There are no training curves" not in with_figure
    assert "There are no training curves" in without
    assert 'id="figure-training"' in with_figure


def test_a_wide_figure_can_be_scrolled(material):
    assert build(material).count('class="drawing wide"') == 0
    wide = build(material, width=3 * WIDTH)
    assert wide.count('class="drawing wide" tabindex="0"') == 1
    assert "min-width: 75rem" in wide


def test_only_the_own_script_may_run(material):
    text = build(material)
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in text


def test_transcripts_without_a_change_are_limited(material, monkeypatch):
    assert build(material).count('data-effect="unchanged"') == 7
    monkeypatch.setattr(page, "MAX_UNCHANGED", 2)
    text = build(material)
    assert text.count('data-effect="unchanged"') == 2
    assert "5 more that skipping did not change are left out" in text
    assert '<button type="button" data-effects="worse" >worse (1)' in text
    assert '<button type="button" data-effects="better" disabled>better (0)' in text


def test_audio_is_left_out_where_it_is_too_much(material, monkeypatch):
    assert build(material).count("<audio ") == 2
    monkeypatch.setattr(page, "AUDIO_BYTES", 10)
    text = build(material)
    assert "<audio " not in text
    assert text.count("Its audio is left out") == 2


def test_nothing_that_comes_in_becomes_html(material):
    """Names, transcripts, captions, settings: everything is escaped."""
    trace = dataclasses.replace(material.traces[0], utt_id=HOSTILE, text_on=HOSTILE, ref=HOSTILE)
    speech = Speech(HOSTILE, np.zeros(800, np.float32), 16000)
    experiment = SimpleNamespace(checkpoint=HOSTILE, sha256=HOSTILE, chosen=HOSTILE)
    points = [dataclasses.replace(p, record={**p.record, "status": HOSTILE})
              for p in material.points]  # fmt: skip
    points += [dataclasses.replace(points[-1], name=HOSTILE)]
    hostile = dataclasses.replace(
        material, exp=f"exp/{HOSTILE}", experiment=experiment, data_dir=HOSTILE,
        failures=[HOSTILE], points=points, traces=[trace], speech={HOSTILE: speech},
        examples=[(trace, f"A{HOSTILE}")],
        environment={**material.environment, "cpu": HOSTILE},
    )  # fmt: skip
    drawings = [drawing("utterance_u0", HOSTILE, HOSTILE, 3 * WIDTH), *map(drawing, NAMES)]
    text = page.build_page(hostile, drawings, HOSTILE)
    [settings, program] = re.findall(r"<script[^>]*>(.*?)</script>", text, re.S)
    assert program == Path(page.__file__).with_name("page.js").read_text()
    assert json.loads(settings)["settings"]
    assert "alert('" not in text.replace(settings, "")
    assert text.count("&lt;script&gt;") > 20


def test_a_value_that_the_template_does_not_get_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="script_hash"):
        templates.render_page(name="x")
    with pytest.raises(jinja2.UndefinedError, match="threads"):
        templates.caption("wer_time", utterances=3, not_shown=[])


def test_a_caption_is_one_line_of_plain_text():
    about = templates.caption("benchmark", where="3 s & <more>")
    assert about.startswith("Time for one batch of 3 s & <more>: median")
    assert "\n" not in about
