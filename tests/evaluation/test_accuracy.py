import dataclasses

import pytest
import torch

from espnet_layerskip.evaluation import progress
from espnet_layerskip.evaluation.accuracy import judged, measure_accuracy
from espnet_layerskip.evaluation.contenders import FULL, ON, STOCK, Contender, make_forms
from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.rows import KEEP


@pytest.fixture(scope="module")
def forms(experiment, stock_twin):
    return make_forms(experiment, KEEP, {"s": stock_twin})


def silent(line):
    pass


@pytest.fixture(scope="module")
def measured(forms, data):
    """The accuracy of all rows, one of them under two names, and what was printed."""
    lines, again = [], {"again": forms[FULL]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "EVERY", 1e6)  # no such line on a slow machine
        return measure_accuracy(forms | again, data, lines.append), lines


def test_every_row_is_decoded_once(forms, data, measured):
    accuracy, lines = measured
    assert list(accuracy) == [*forms, "again"]
    assert len(lines) == len(forms), "a system is decoded once"
    assert accuracy["again"] is accuracy[FULL]
    assert lines[0] == f"decoding 8 utterances: {ON}"
    assert accuracy[STOCK] == accuracy[FULL]  # the same weights give the same transcripts
    assert accuracy[FULL].wer > 0.0
    assert accuracy[FULL].cer != accuracy[FULL].wer


def test_an_utterance_that_is_too_short_counts_as_an_empty_transcript(forms, data):
    short = Speech("s0-u0", data.speech[0].samples[:300], 16000)
    few = dataclasses.replace(
        data, speech=[short, data.speech[1]], text={u: data.text[u] for u in ("s0-u0", "s0-u1")}
    )
    rows = {name: forms[name] for name in (ON, STOCK)}
    for one in measure_accuracy(rows, few, silent).values():
        assert (one.status, one.too_short) == ("ok", ["s0-u0"])
        assert one.wer >= 50.0  # two of four words are lost


def test_a_row_without_transcripts_is_failed(exps, data):
    forms = make_forms(load_experiment(exps["ours"]), KEEP, {})
    stock = forms[STOCK].system
    with torch.no_grad():  # whatever it hears is blank
        stock.encoder.after_norm.weight.zero_()
        stock.encoder.after_norm.bias.copy_(1000.0 * stock.model.ctc.ctc_lo.weight[0])
    rows = {name: forms[name] for name in (ON, FULL, STOCK)}
    rows["other"] = Contender("cannot be built: no engine")
    accuracy = measure_accuracy(rows, data, silent)
    status = {name: one.status for name, one in judged(rows, accuracy, 1e6).items()}
    assert status[ON] == status[FULL] == "ok"
    assert (
        status[STOCK] == "failed: the model wrote nothing for any of 8 utterances: is it trained?"
    )
    assert status["other"] == "failed: cannot be built: no engine"
    assert accuracy[STOCK].wer is None


def test_the_allowance_is_in_percent_of_the_reference(forms, measured):
    accuracy = measured[0]
    changed = accuracy | {FULL: replace_wer(accuracy[FULL], 50.0)}
    changed |= {ON: replace_wer(accuracy[ON], 50.5), STOCK: replace_wer(accuracy[STOCK], 50.6)}
    changed |= {"twin_s": replace_wer(accuracy["twin_s"], 99.0)}
    status = {name: one.status for name, one in judged(forms, changed, 1.0).items()}
    assert status[ON] == "ok"
    assert status[STOCK] == "failed: WER +0.60 over full depth (allowed +0.50)"
    assert status["twin_s"] == "ok"  # other weights are not judged


def test_without_its_reference_a_row_cannot_be_judged(forms, measured):
    accuracy = measured[0]
    found = judged(forms, accuracy | {FULL: replace_wer(accuracy[FULL], None)}, 1.0)
    assert found[ON].status == f"failed: {FULL}, which its WER is judged by, has none"


def replace_wer(accuracy, wer):
    return dataclasses.replace(accuracy, wer=wer)
