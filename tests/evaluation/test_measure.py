import pytest

from espnet_layerskip.evaluation import measure
from espnet_layerskip.evaluation.accuracy import Accuracy
from espnet_layerskip.evaluation.conditions import make_conditions
from espnet_layerskip.evaluation.entries import encoder_entries
from espnet_layerskip.evaluation.measure import MEASURED, measure_scope, realised_share
from espnet_layerskip.evaluation.settings import SkipSettings
from espnet_layerskip.evaluation.timing import Timing
from espnet_layerskip.evaluation.variants import FULL, ON, STOCK, make_variants


@pytest.fixture(scope="module")
def entries(experiment):
    return encoder_entries(make_variants(experiment, SkipSettings(), {}))


def measured(entries, conditions, **status):
    accuracy = dict.fromkeys(entries, Accuracy(10.0, 5.0))
    return measure_scope(
        "encoder",
        entries,
        accuracy,
        {name: status.get(name, "ok") for name in entries},
        conditions,
        threads=[1],
        repeats=5,
        log=lambda line: None,
    )


def test_realised_share_by_hand():
    # half of the frames skip 6 of 8 layers; 20 % less time; blocks are 80 % of the time
    assert realised_share(0.2, 0.375) == pytest.approx(0.2 / 0.375)
    assert realised_share(0.2, 0.375, 0.8) == pytest.approx(0.2 / 0.3)
    assert realised_share(-0.1, 0.5) == pytest.approx(-0.2)
    assert realised_share(0.0, 0.0) is None


def test_records(entries, data, monkeypatch):
    """With known times every derived number follows."""
    seconds = {ON: 6.0, FULL: 8.0, f"subsampling of {FULL}": 2.0, "int8_skip_off": 12.0}

    def fake(inputs, repeats):
        for case in inputs[0].values():  # what is to be timed does run
            case.prepare()
            case.run()
        return {name: Timing((seconds.get(name, 9.0),) * repeats) for name in inputs[0]}

    monkeypatch.setattr(measure, "time_interleaved", fake)
    records = measured(entries, make_conditions(data, [1.0], [1, 2], 2))
    assert len(records) == 2 * len(entries)
    assert len({tuple(r) for r in records}) == 1  # the same keys in all rows
    on = records[0]
    assert (on["name"], on["scope"], on["threads"]) == (ON, "encoder", 1)
    assert (on["audio_seconds"], on["batch_size"], on["num_inputs"]) == (1.0, 1, 2)
    assert on["median_s"] == on["min_s"] == on["max_s"] == 3.0  # of one batch: two of one input
    assert on["raw_s"] == [3.0] * 5
    assert records[len(entries)]["median_s"] == 6.0  # one batch of two
    assert (on["wer"], on["cer"], on["status"]) == (10.0, 5.0, "ok")
    assert on["saved"] == 0.25
    assert on["ceiling"] == pytest.approx(0.75 * on["skip_ratio"])
    assert on["ceiling_share"] == pytest.approx(0.25 / on["ceiling"])
    assert on["ceiling_share_of_blocks"] == pytest.approx(0.25 / on["ceiling"] / 0.75)
    rows = {r["name"]: r for r in records[: len(entries)]}
    assert rows[FULL]["ceiling_share"] is None
    # against the same precision at full depth
    assert rows["int8_skip_on"]["saved"] == pytest.approx(0.25)
    assert rows["exit_at_1"]["flops"] < rows[FULL]["flops"]
    # the same work in every precision; the stock class projects its positions every time
    assert rows["int8_skip_off"]["flops"] == rows["bfloat16_skip_off"]["flops"]
    assert rows["int8_skip_off"]["flops"] == rows[FULL]["flops"]
    assert 1.0 < rows[STOCK]["flops"] / rows[FULL]["flops"] < 1.2


def test_really_timed(entries, data):
    few = {name: entries[name] for name in (ON, FULL)}
    records = measured(few, make_conditions(data, [1.0], [2], None))
    assert all(len(r["raw_s"]) == 5 and min(r["raw_s"]) > 0.0 for r in records)
    assert records[0]["measured_seconds"] == 1.0
    assert records[0]["median_s"] == sorted(records[0]["raw_s"])[2]


def test_rows_that_fail_have_no_time(entries, data):
    few = {name: entries[name] for name in (ON, FULL)} | {STOCK: "cannot be built"}

    def bind(group):
        raise ValueError("one at a time")

    few["x"] = measure.Entry(**{**vars(entries[FULL]), "bind": bind})
    wrong = "failed: all 8 transcripts are empty"
    records = measured(
        few, make_conditions(data, [1.0], [2], None), **{STOCK: "failed: y", ON: wrong}
    )
    rows = {r["name"]: r for r in records}
    assert rows["x"]["status"] == "failed: one at a time"
    assert rows[STOCK]["status"] == "failed: y"
    for name in ("x", STOCK):
        assert all(rows[name][key] is None for key in MEASURED)
    assert rows[ON]["status"] == wrong
    assert rows[ON]["median_s"] is not None  # raw timings stay; the table does not show them
