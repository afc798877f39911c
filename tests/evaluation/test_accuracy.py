import pytest
import torch

from espnet_layerskip.evaluation.accuracy import judge_rows, measure_accuracy
from espnet_layerskip.evaluation.entries import encoder_entries
from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.settings import SkipSettings
from espnet_layerskip.evaluation.variants import FULL, ON, STOCK, make_variants


@pytest.fixture(scope="module")
def variants(experiment, stock_twin):
    return make_variants(experiment, SkipSettings(), {"s": stock_twin})


@pytest.fixture(scope="module")
def entries(variants):
    return encoder_entries(variants)


def silent(line):
    pass


def test_every_row_is_decoded_once(entries, data):
    lines, known = [], {}
    accuracy = measure_accuracy(entries, data, known, lines.append)
    assert list(accuracy) == list(entries)
    assert len(lines) == len(entries)
    assert lines[0] == f"decoding 8 utterances: {ON}"
    assert accuracy[STOCK] == accuracy[FULL]  # the same weights give the same transcripts
    assert accuracy[FULL].wer > 0.0
    assert accuracy[FULL].cer != accuracy[FULL].wer
    assert measure_accuracy(entries, data, known, lines.append) == accuracy
    assert len(lines) == len(entries)  # another scope does not decode them again


def test_a_row_without_transcripts_is_failed(exps, data):
    variants = make_variants(load_experiment(exps["ours"]), SkipSettings(), {})
    stock = variants[STOCK].system
    with torch.no_grad():  # whatever it hears is blank
        stock.encoder.after_norm.weight.zero_()
        stock.encoder.after_norm.bias.copy_(1000.0 * stock.model.ctc.ctc_lo.weight[0])
    entries = encoder_entries({name: variants[name] for name in (ON, FULL, STOCK)})
    entries["other"] = "cannot be built: no engine"
    accuracy = measure_accuracy(entries, data, {}, silent)
    status = judge_rows(entries, accuracy, 1e6)
    assert status[ON] == status[FULL] == "ok"
    assert status[STOCK] == "failed: all 8 transcripts are empty"
    assert status["other"] == "failed: cannot be built: no engine"
    assert accuracy[STOCK].wer is None


def test_the_allowance_is_in_percent_of_the_reference(entries, data):
    accuracy = measure_accuracy(entries, data, {}, silent)
    changed = accuracy | {FULL: replace_wer(accuracy[FULL], 50.0)}
    changed |= {ON: replace_wer(accuracy[ON], 50.5), STOCK: replace_wer(accuracy[STOCK], 50.6)}
    changed |= {"twin_s": replace_wer(accuracy["twin_s"], 99.0)}
    status = judge_rows(entries, changed, 1.0)
    assert status[ON] == "ok"
    assert status[STOCK] == "failed: WER +0.60 over full depth (allowed +0.50)"
    assert status["twin_s"] == "ok"  # other weights are not judged


def test_without_its_reference_a_row_cannot_be_judged(entries, data):
    accuracy = measure_accuracy(entries, data, {}, silent)
    status = judge_rows(entries, accuracy | {FULL: replace_wer(accuracy[FULL], None)}, 1.0)
    assert status[ON] == f"failed: {FULL}, which its WER is judged by, has none"


def replace_wer(accuracy, wer):
    return type(accuracy)(wer, accuracy.cer, accuracy.failure)
