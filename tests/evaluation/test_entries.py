import pytest

from espnet_layerskip._compat import inference_module
from espnet_layerskip.evaluation.entries import (
    GREEDY_OFF,
    GREEDY_ON,
    Entry,
    WaveFiles,
    e2e_entries,
    encoder_entries,
    model_entries,
)
from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.settings import OFF, SkipSettings
from espnet_layerskip.evaluation.stock import stock_speech2text
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.evaluation.variants import FULL, ON, STOCK, make_variants


@pytest.fixture(scope="module")
def variants(plain, stock_twin):
    return make_variants(plain, SkipSettings(), {"s": stock_twin})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return WaveFiles(tmp_path_factory.mktemp("waves"))


@pytest.fixture(scope="module")
def e2e(variants, plain, exps, files):
    decoders = {"prefix_beam": load_experiment(exps["plain"], None, "prefix_beam", beam_size=3)}
    stock = {"stock_beam1": stock_speech2text(plain, beam_size=1), "stock_lm": "no LM"}
    return e2e_entries(variants, decoders | {"ngram": "no file"}, SkipSettings(), stock, files)


def test_rows_of_the_scopes(variants, e2e):
    assert list(encoder_entries(variants)) == list(variants)
    few = [n for n in variants if not n.startswith("bfloat16") and n != "int8_skip_on"]
    assert list(model_entries(variants)) == few
    assert list(e2e) == [
        *(GREEDY_ON, GREEDY_OFF, "int8_skip_off_greedy", "exit_at_1_greedy"),
        *("twin_s_greedy", "twin_s_fast_greedy"),
        *("ours_prefix_beam_skip_on", "ours_prefix_beam_skip_off"),
        *("ours_ngram_skip_on", "ours_ngram_skip_off", "stock_beam1", "stock_lm"),
    ]
    assert (e2e["ours_ngram_skip_on"], e2e["stock_lm"]) == ("no file", "no LM")
    assert (e2e[GREEDY_ON].full_depth, e2e[GREEDY_ON].reference) == (GREEDY_OFF, GREEDY_OFF)
    beam = e2e["ours_prefix_beam_skip_on"]
    assert (beam.full_depth, beam.reference) == ("ours_prefix_beam_skip_off",) * 2
    assert e2e["stock_beam1"].reference == ""


def test_full_depth_rows_have_their_subsampling_apart(variants):
    entries = encoder_entries(variants)
    assert [name for name, entry in entries.items() if entry.stem] == [
        FULL,
        "bfloat16_skip_off",
        "int8_skip_off",
    ]
    assert not any(entry.stem for entry in model_entries(variants).values())


@pytest.mark.parametrize("batch_size", [1, 3])
def test_skipped_frames_are_counted_alike_in_all_scopes(variants, e2e, data, batch_size):
    group = data.speech[:batch_size]
    found = set()
    for entry in (encoder_entries(variants)[ON], model_entries(variants)[ON], e2e[GREEDY_ON]):
        entry.prepare()
        found.add(entry.skipped(entry.bind(group)))
    [skipped] = found
    assert 0 < skipped.num_skipped < skipped.num_frames
    off = e2e[GREEDY_OFF]
    off.prepare()
    assert off.skipped(off.bind(group)).num_skipped == 0


def test_end_to_end_is_what_is_scored(e2e, data):
    """From files in a batch, or from samples: the same texts."""
    for name in (GREEDY_ON, "ours_prefix_beam_skip_on"):
        entry = e2e[name]
        entry.prepare()
        texts = entry.bind(data.speech[:3])()
        assert texts == [entry.transcribe(speech) for speech in data.speech[:3]]
    assert any(texts)


def test_stock_rows_run_espnets_classes(e2e, data):
    stock = e2e["stock_beam1"]
    assert type(stock.source) is inference_module().Speech2Text
    classes = "ESPnetASRModel, ConformerEncoder, CTC, BatchBeamSearch"
    assert stock.settings.startswith(f"ESPnet's Speech2Text: {classes}, beam 1")
    assert isinstance(stock.source.asr_model.encoder, type(e2e["twin_s_greedy"].source.encoder))
    found = stock.bind(data.speech[:1])()
    assert found[0][0] == stock.transcribe(data.speech[0])
    assert found[0][3].yseq is not None  # ESPnet's own hypothesis
    if hasattr(stock.source, "batch_decode"):  # ESPnet 202611
        assert len(stock.bind(data.speech[:2])()) == 2
    else:
        with pytest.raises(ValueError, match="one utterance at a time"):
            stock.bind(data.speech[:2])


def test_files_are_written_once_and_hold_what_was_said(files, plain, data):
    speech = data.speech[4]
    path = files(speech).path
    assert files(speech).path == path
    ours = System(plain, OFF)
    entry = model_entries({STOCK: make_variants(plain, OFF, {})[STOCK]})[STOCK]
    assert isinstance(entry, Entry)
    assert ours.transcribe(speech)[0] == entry.transcribe(speech)


def test_too_short_to_be_scored(e2e, data):
    from espnet_layerskip.evaluation.inputs import Speech

    short = Speech("tiny", data.speech[0].samples[:400], 16000)
    for name in (GREEDY_ON, "stock_beam1"):
        with pytest.raises(ValueError, match="tiny is too short"):
            e2e[name].transcribe(short)


def test_a_file_that_fails_stops_the_row(e2e, data, tmp_path):
    e2e[GREEDY_ON].prepare()
    files = WaveFiles(tmp_path)
    entry = e2e_entries({ON: _variant(e2e)}, {}, SkipSettings(), {}, files)[GREEDY_ON]
    run = entry.bind(data.speech[:1])
    (tmp_path / "0.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="s0-u0 failed: "):
        run()


def _variant(e2e):
    from espnet_layerskip.evaluation.variants import Variant

    return Variant(e2e[GREEDY_ON].source)
