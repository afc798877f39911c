import pytest
import torch

from espnet_layerskip.bench import encoder_bench
from espnet_layerskip.bench.encoder_bench import (
    FULL,
    ON,
    STOCK,
    build_rows,
    measure_accuracy,
    measure_encoders,
    realised_share,
)
from espnet_layerskip.bench.encoder_report import HEADER, encoder_table
from espnet_layerskip.bench.experiment import load_experiment
from espnet_layerskip.bench.inputs import load_test_set
from espnet_layerskip.bench.settings import SkipSettings
from espnet_layerskip.bench.timing import Timing

INT8 = "int8_skip_off"
OTHERS = ["bfloat16_skip_on", "bfloat16_skip_off", "int8_skip_on", INT8]


@pytest.fixture(scope="module")
def rows(experiment, exps):
    return build_rows(experiment, SkipSettings(), {"s": load_experiment(exps["stock"])})


@pytest.fixture(scope="module")
def data(data_dir):
    return load_test_set(data_dir, 16000)


@pytest.fixture(scope="module")
def accuracy(rows, data):
    return measure_accuracy(rows, data, max_wer_increase=1000.0)


def measure(rows, accuracy, data, **kwargs):
    options = {"seconds": [1.0], "batch_sizes": [1, 2], "threads": [1], "repeats": 5}
    options |= {"num_inputs": 2, "log": lambda line: None}
    return measure_encoders(rows, accuracy, data, **(options | kwargs))


def test_realised_share_by_hand():
    # half of the frames skip 6 of 8 layers; 20 % less time; blocks are 80 % of the time
    assert realised_share(0.2, 0.375) == pytest.approx(0.2 / 0.375)
    assert realised_share(0.2, 0.375, 0.8) == pytest.approx(0.2 / 0.3)
    assert realised_share(-0.1, 0.5) == pytest.approx(-0.2)
    assert realised_share(0.0, 0.0) is None


def test_rows_and_their_accuracy(rows, accuracy):
    assert list(rows) == [ON, FULL, STOCK, *OTHERS, "exit_at_1", "twin_s"]
    assert list(accuracy) == list(rows)
    assert all(a.status == "ok" for a in accuracy.values())
    assert accuracy[STOCK] == accuracy[FULL]  # the same weights give the same transcripts


def test_records(rows, accuracy, data, monkeypatch):
    """With known times every derived number follows."""
    seconds = {ON: 6.0, FULL: 8.0, "stem": 2.0}

    def fake(inputs, repeats):
        for case in inputs[0].values():  # what is to be timed does run
            if case.prepare:
                case.prepare()
            case.run()
        return {name: Timing((seconds.get(name, 9.0),) * repeats) for name in inputs[0]}

    monkeypatch.setattr(encoder_bench, "time_interleaved", fake)
    records = measure(rows, accuracy, data)
    assert len(records) == 2 * len(rows)
    on = records[0]
    assert (on["name"], on["seconds"], on["batch_size"], on["num_threads"]) == (ON, 1.0, 1, 1)
    assert on["median_ms"] == 3000.0  # of one batch: two batches of one input
    assert on["raw_ms"] == [3000.0] * 5
    assert records[len(rows)]["median_ms"] == 6000.0  # one batch of two
    assert on["saved"] == 0.25
    assert on["blocks_share"] == 0.75
    assert on["ceiling"] == pytest.approx(0.75 * on["skip_ratio"])
    assert on["realised_share"] == pytest.approx(0.25 / on["ceiling"])
    assert on["realised_share_of_blocks"] == pytest.approx(0.25 / on["ceiling"] / 0.75)
    by_name = {r["name"]: r for r in records[: len(rows)]}
    assert by_name[FULL]["realised_share"] is None
    assert by_name["twin_s"]["realised_share"] is None
    assert by_name["exit_at_1"]["flops"] < by_name[FULL]["flops"]
    # the same work in every precision; the stock class projects its positions every time
    assert by_name[INT8]["flops"] == by_name["bfloat16_skip_off"]["flops"] == by_name[FULL]["flops"]
    assert 1.0 < by_name[STOCK]["flops"] / by_name[FULL]["flops"] < 1.2
    table = encoder_table(records[: len(rows)]).splitlines()
    assert table[0].count("|") == len(HEADER) + 1
    assert "3000.00 (3000.00 to 3000.00) | 1.33 | 1.50 |" in table[2]


def test_really_timed(rows, accuracy, data):
    records = measure({ON: rows[ON], FULL: rows[FULL]}, accuracy, data, batch_sizes=[2])
    assert all(len(r["raw_ms"]) == 5 and min(r["raw_ms"]) > 0.0 for r in records)
    assert records[0]["measured_seconds"] == 1.0


def test_a_row_without_transcripts_is_failed_not_fast(data, exps):
    experiment = load_experiment(exps["ours"])
    rows = build_rows(experiment, SkipSettings(), {})
    with torch.no_grad():  # whatever it hears is blank
        rows[STOCK].encoder.after_norm.weight.zero_()
        rows[STOCK].encoder.after_norm.bias.copy_(1000.0 * rows[STOCK].model.ctc.ctc_lo.weight[0])
    rows[INT8] = "cannot be built: no engine"
    accuracy = measure_accuracy(rows, data, 1000.0)
    assert accuracy[STOCK].status == "failed: all 8 transcripts are empty"
    assert accuracy[INT8].status == "failed: cannot be built: no engine"
    assert accuracy[ON].status == "ok"
    records = measure(rows, accuracy, data, batch_sizes=[2])
    lines = {line.split(" | ")[0].strip("| "): line for line in encoder_table(records).splitlines()}
    assert lines[STOCK].count("failed") >= 4
    assert "median_ms" not in records[list(rows).index(INT8)]
    assert lines[INT8].count("failed") >= 10


def test_a_row_above_the_allowed_wer_is_failed(rows, data):
    accuracy = measure_accuracy(rows, data, max_wer_increase=-1000.0)
    assert "failed: WER +0.00 over full depth" in accuracy[STOCK].status
    assert accuracy["twin_s"].status == "ok"  # other weights are not judged


def test_bad_input(rows, accuracy, data, exps):
    with pytest.raises(ValueError, match="batch size 3 does not divide the 2 inputs"):
        measure(rows, accuracy, data, batch_sizes=[3])
    with pytest.raises(ValueError, match=r"about 30 s .*only has 0"):
        measure(rows, accuracy, data, seconds=[30.0])
    with pytest.raises(ValueError, match="ConformerEncoder without a gate"):
        build_rows(load_experiment(exps["stock"]), SkipSettings(), {})
