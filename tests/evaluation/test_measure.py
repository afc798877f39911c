import pytest

from espnet_layerskip.evaluation import measure
from espnet_layerskip.evaluation.accuracy import Accuracy
from espnet_layerskip.evaluation.conditions import make_conditions
from espnet_layerskip.evaluation.contenders import FULL, ON, STOCK, Contender, make_forms
from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.measure import (
    MEASURED,
    binders,
    measure_scope,
    realised_share,
    wave_files,
)
from espnet_layerskip.evaluation.rows import KEEP
from espnet_layerskip.evaluation.stock import StockSearch, stock_speech2text
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.inference.audio import read_audio
from espnet_layerskip.method.settings import OFF


@pytest.fixture(scope="module")
def forms(experiment):
    return make_forms(experiment, KEEP, {})


@pytest.fixture
def bind(tmp_path):
    return binders(tmp_path)


def measured(forms, bind, conditions, scope="encoder", **status):
    accuracy = {name: Accuracy(10.0, 5.0, status.get(name, "ok")) for name in forms}
    return measure_scope(
        scope,
        bind[scope],
        forms,
        accuracy,
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


def test_records(forms, bind, data, monkeypatch):
    """With known times every derived number follows."""
    seconds = {ON: 6.0, FULL: 8.0, f"subsampling of {FULL}": 2.0, "int8_skip_off": 12.0}

    def fake(inputs, repeats):
        for run in inputs[0].values():  # what is to be timed does run
            run()
        return {name: [seconds.get(name, 9.0)] * repeats for name in inputs[0]}

    monkeypatch.setattr(measure, "time_interleaved", fake)
    records = measured(forms, bind, make_conditions(data, [1.0], [1, 2], 2))
    assert len(records) == 2 * len(forms)
    assert len({tuple(r) for r in records}) == 1  # the same keys in all rows
    on = records[0]
    assert (on["name"], on["scope"], on["threads"]) == (ON, "encoder", 1)
    assert (on["audio_seconds"], on["batch_size"], on["num_inputs"]) == (1.0, 1, 2)
    assert on["median_s"] == on["min_s"] == on["max_s"] == 3.0  # of one batch: two of one input
    assert on["raw_s"] == [3.0] * 5
    assert records[len(forms)]["median_s"] == 6.0  # one batch of two
    assert (on["wer"], on["cer"], on["status"]) == (10.0, 5.0, "ok")
    assert on["saved"] == 0.25
    assert on["ceiling"] == pytest.approx(0.75 * on["skip_ratio"])
    assert on["ceiling_share"] == pytest.approx(0.25 / on["ceiling"])
    assert on["ceiling_share_of_blocks"] == pytest.approx(0.25 / on["ceiling"] / 0.75)
    rows = {r["name"]: r for r in records[: len(forms)]}
    assert rows[FULL]["ceiling_share"] is None
    # against the same precision at full depth
    assert rows["int8_skip_on"]["saved"] == pytest.approx(0.25)
    assert rows["exit_at_1"]["flops"] < rows[FULL]["flops"]
    # the same work in every precision; the stock class projects its positions every time
    assert rows["int8_skip_off"]["flops"] == rows["bfloat16_skip_off"]["flops"]
    assert rows["int8_skip_off"]["flops"] == rows[FULL]["flops"]
    assert 1.0 < rows[STOCK]["flops"] / rows[FULL]["flops"] < 1.2


def test_really_timed(forms, bind, data):
    few = {name: forms[name] for name in (ON, FULL)}
    records = measured(few, bind, make_conditions(data, [1.0], [2], None))
    assert all(len(r["raw_s"]) == 5 and min(r["raw_s"]) > 0.0 for r in records)
    assert records[0]["measured_seconds"] == 1.0
    assert records[0]["median_s"] == sorted(records[0]["raw_s"])[2]


def test_rows_that_fail_have_no_time(forms, bind, data, monkeypatch):
    few = {name: forms[name] for name in (ON, FULL)} | {STOCK: Contender("cannot be built")}
    few["x"] = Contender(object())
    real = bind["encoder"]

    def one_at_a_time(system, group):
        if not isinstance(system, System):
            raise ValueError("one at a time")
        return real(system, group)

    wrong = "failed: the model wrote nothing for any of 8 utterances: is it trained?"
    records = measured(
        few,
        {"encoder": one_at_a_time},
        make_conditions(data, [1.0], [2], None),
        **{STOCK: "failed: y", ON: wrong},
    )
    rows = {r["name"]: r for r in records}
    assert rows["x"]["status"] == "failed: one at a time"
    assert rows[STOCK]["status"] == "failed: y"
    for name in ("x", STOCK):
        assert all(rows[name][key] is None for key in MEASURED)
    assert rows[ON]["status"] == wrong
    assert rows[ON]["median_s"] is not None  # raw timings stay; the table does not show them


def test_full_depth_rows_have_their_subsampling_apart(forms, bind, data, monkeypatch):
    timed = []

    def fake(inputs, repeats):
        timed.append(list(inputs[0]))
        return {name: [1.0] * repeats for name in inputs[0]}

    monkeypatch.setattr(measure, "time_interleaved", fake)
    few = {n: c for n, c in forms.items() if n in (ON, FULL, STOCK)}
    for scope in ("encoder", "model"):
        measured(few, bind, make_conditions(data, [1.0], [1], 1), scope)
    assert timed == [[ON, FULL, STOCK, f"subsampling of {FULL}"], [ON, FULL, STOCK]]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_skipped_frames_are_the_same_in_all_scopes(forms, bind, data, batch_size):
    """A row's share of skipped frames is counted by its encoder; the scopes skip as much."""
    group, on, off = data.speech[:batch_size], forms[ON].system, forms[FULL].system
    encoded = bind["encoder"](on, group)()
    skipped = on.skips(encoded)
    assert 0 < skipped.num_skipped < skipped.num_frames
    assert on.skips(bind["model"](on, group)()[1]) == skipped
    bind["e2e"](on, group)()
    assert sum(count.num_skipped for count in on.speech2text.last_skips) == skipped.num_skipped
    assert off.skips(bind["encoder"](off, group)()).num_skipped == 0


@pytest.mark.parametrize("search", ["greedy", "prefix_beam"])
def test_end_to_end_is_what_is_scored(search, exps, bind, data):
    """From files in a batch, or from samples: the same texts."""
    system = System(load_experiment(exps["plain"], None, search, beam_size=3))
    texts = bind["e2e"](system, data.speech[:3])()
    assert texts == [system.transcribe(speech)[0] for speech in data.speech[:3]]
    assert any(texts)


def test_espnets_search_takes_a_batch_where_it_can(plain, bind, data):
    stock = StockSearch(stock_speech2text(plain, beam_size=1))
    found = bind["e2e"](stock, data.speech[:1])()
    assert found[0][0] == stock.transcribe(data.speech[0])[0]
    assert found[0][3].yseq is not None  # ESPnet's own hypothesis
    run = bind["e2e"](stock, data.speech[:2])
    if hasattr(stock.speech2text, "batch_decode"):  # ESPnet 202611
        assert len(run()) == 2
    else:
        with pytest.raises(ValueError, match="one utterance at a time"):
            run()


def test_files_are_written_once_and_hold_what_was_said(tmp_path, plain, data):
    speech, files = data.speech[4], wave_files(tmp_path)
    path = files(speech).path
    assert files(speech).path == path
    said = Speech(speech.utt_id, read_audio(files(speech), 16000), 16000)
    system = System(plain, OFF)
    assert system.transcribe(said)[0] == system.transcribe(speech)[0]


def test_a_file_that_fails_stops_the_row(forms, bind, data, tmp_path):
    run = bind["e2e"](forms[ON].system, data.speech[:1])
    (tmp_path / "0.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="s0-u0 failed: "):
        run()
