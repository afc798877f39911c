import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from espnet_layerskip.evaluation.cache import DecodingCache
from espnet_layerskip.evaluation.compare import Comparison, too_short
from espnet_layerskip.evaluation.compare_report import (
    HEADER,
    compare_records,
    compare_table,
)
from espnet_layerskip.evaluation.decode import decode
from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.rows import custom_row, experiment_rows
from espnet_layerskip.evaluation.systems import System


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return DecodingCache(tmp_path_factory.mktemp("cache"))


def compare(data_dir, cache, rows, repeats=0):
    comparison = Comparison(data_dir, cache, log=lambda line: None)
    return comparison, comparison.measure(rows, repeats=repeats, threads=1)


@pytest.fixture(scope="module")
def rows(exps):
    return [
        *experiment_rows(f"stock={exps['stock']}"),
        *experiment_rows(f"ours={exps['ours']},{exps['ours2']}"),
        custom_row(["kept", f"{exps['ours']}", "extension=50,50"]),
        custom_row(["bad", str(exps["ours"] / "none")]),
    ]


@pytest.fixture(scope="module")
def measured(data_dir, cache, rows):
    return compare(data_dir, cache, rows)


def test_rows_are_measured(measured):
    comparison, results = measured
    by_name = {r.row.name: r for r in results}
    assert comparison.num_decoded == 1 + 3 * 2 + 1
    assert by_name["stock"].is_stock
    assert by_name["stock"].full_depth
    assert by_name["ours, skipping off"].full_depth
    assert not by_name["ours, skipping off"].is_stock
    on = by_name["ours, skipping on"]
    assert not on.full_depth
    assert 0.0 < on.skipped().ratio < 1.0
    assert len(on.rates("wer")) == 2
    assert on.num_words() == [2] * 8
    assert "neither an experiment directory" in by_name["bad"].failure
    assert by_name["bad"].seeds == ()


def test_averages_over_seeds_utterance_by_utterance(measured):
    result = next(r for r in measured[1] if r.row.name == "ours, skipping off")
    first, second = (s.scores["wer"] for s in result.seeds)
    expected = [(first[u].errors + second[u].errors) / 2 for u in first]
    assert result.utterance_errors() == expected
    mean_rate = 100 * sum(expected) / sum(result.num_words())
    assert sum(result.rates("wer")) / 2 == pytest.approx(mean_rate)


def test_second_run_decodes_only_what_is_new(data_dir, cache, rows, measured, exps):
    new = custom_row(["new", str(exps["ours"]), "threshold=0.7"])
    comparison, results = compare(data_dir, cache, [*rows, new])
    assert comparison.num_decoded == 1
    for fresh, before in zip(results, measured[1], strict=False):
        assert fresh.utterance_errors() == before.utterance_errors() if before.seeds else True


def test_a_packed_model_is_known_again(data_dir, cache, exps):
    """Wherever it was unpacked to: its configuration names files there."""
    comparison, keys = Comparison(data_dir, cache, log=lambda line: None), set()
    for _ in range(2):
        experiment = load_experiment(exps["ours"])
        unpacked = experiment.speech2text.model_files.tmpdir.name
        stats = {"stats_file": f"{unpacked}/model/feats_stats.npz"}
        experiment.speech2text.asr_train_args.normalize_conf = stats
        keys.add(comparison._key(System(experiment)))
    assert len(keys) == 1


def test_changed_weights_are_decoded_again(data_dir, cache, rows, measured, exps, tmp_path):
    copied = tmp_path / "ours"
    copied.mkdir()
    (copied / "config.yaml").write_text((exps["ours"] / "config.yaml").read_text())
    state = torch.load(exps["ours"] / "valid.cer_ctc.ave.pth", weights_only=True)
    torch.save(state, copied / "valid.cer_ctc.ave.pth")
    same, _ = compare(data_dir, cache, experiment_rows(str(copied)))
    state["ctc.ctc_lo.bias"][1] += 0.1
    torch.save(state, copied / "valid.cer_ctc.ave.pth")
    changed, _ = compare(data_dir, cache, experiment_rows(str(copied)))
    assert (same.num_decoded, changed.num_decoded) == (0, 3)


def test_a_copy_is_judged_by_full_depth_of_the_same_weights(data_dir, cache, exps, tmp_path):
    (tmp_path / "copy").symlink_to(exps["ours"])
    full = custom_row(["full", str(exps["ours"]), "threshold=off"])
    other = custom_row(["other", str(exps["ours2"]), "threshold=off"])
    copy = custom_row(["copy", str(tmp_path / "copy")])
    results = compare(data_dir, cache, [other, full, copy])[1]
    _, full, copy = compare_records(results, 4.0, max_wer_points=1000.0)
    assert full["wer_against_off"] is None
    difference = copy["wer"][0] - full["wer"][0]
    assert copy["wer_against_off"]["difference"] == pytest.approx(difference)


def test_records_and_table(measured):
    _, results = measured
    records = {r["name"]: r for r in compare_records(results, 4.0, max_wer_points=1000.0)}
    on, off = records["ours, skipping on"], records["ours, skipping off"]
    difference = sum(on["wer"]) / 2 - sum(off["wer"]) / 2
    assert on["wer_against_off"]["difference"] == pytest.approx(difference)
    assert on["wer_against_off"]["low"] <= difference <= on["wer_against_off"]["high"]
    assert off["wer_against_off"] is None
    assert records["stock"]["wer_against_stock"] is None
    assert on["wer_against_stock"] is not None
    assert (on["off"], off["off"]) == ("ours, skipping off", None)
    assert [r["name"] for r in records.values() if r.get("stops")] == ["ours, stopped at layer 1"]
    # "kept" has one of the two seeds: it has no twin at full depth among the rows
    assert records["kept"]["wer_against_off"] is None
    assert on["ceiling"] == pytest.approx(0.75 * on["skip_ratio"])
    assert on["encoder_flops_per_second"] < off["encoder_flops_per_second"]
    assert on["settings"] == "threshold=0.5 extension=0,0 context=full"
    assert json.loads(json.dumps(records)) == records
    lines = compare_table(list(records.values())).splitlines()
    assert all(line.count("|") == len(HEADER) + 2 for line in lines)
    assert lines[-1].startswith("| bad | failed | failed")
    assert "not timed" in lines[2]


def test_times_and_the_allowed_wer(measured):
    _, results = measured
    times = {0.0: ([2.0, 4.0, 3.0], 4.0)}
    timed = [dataclasses.replace(r, times=times) for r in results[:3]]
    record = compare_records(timed, 4.0, 1000.0)[2]
    assert record["encoder_time_per_second"]["raw_ms"] == [500.0, 1000.0, 750.0]
    assert "750.00 (500.00 to 1000.00)" in compare_table([record])
    failed = compare_records(timed, 4.0, -1000.0)
    assert failed[1]["status"] == "ok"  # full depth is nobody's loss
    assert failed[2]["status"].startswith("failed: WER")
    assert "750.00" not in compare_table([failed[2]])


def test_empty_transcripts_fail(data_dir, cache, exps, tmp_path):
    silent = tmp_path / "silent"
    silent.mkdir()
    (silent / "config.yaml").write_text((exps["stock"] / "config.yaml").read_text())
    state = torch.load(exps["stock"] / "valid.cer_ctc.ave.pth", weights_only=True)
    state["ctc.ctc_lo.bias"][0] += 1000.0
    torch.save(state, silent / "valid.cer_ctc.ave.pth")
    _, [result] = compare(data_dir, cache, experiment_rows(str(silent)))
    assert result.failure == "the model wrote nothing for any of 8 utterances: is it trained?"


def test_timing_is_taken_of_every_row_that_ran(data_dir, cache, rows):
    _, results = compare(data_dir, cache, [rows[0], rows[2], rows[-1]], repeats=5)
    assert [bool(r.times) for r in results] == [bool(r.seeds) for r in results]
    assert all(len(r.times[0][0]) == 5 for r in results if r.seeds)


def test_lengths_are_timed_apart(data_dir, cache, rows):
    comparison = Comparison(data_dir, cache, log=lambda _: None)
    seconds = comparison.data.speech[0].seconds
    results = comparison.measure([rows[0], rows[2]], 5, 1, lengths=[seconds, 2 * seconds])
    records = compare_records(results, 4.0, 1000.0)
    for result, record in zip(results, records, strict=True):
        assert list(result.times) == [seconds, 2 * seconds]
        (short, of_short), (long, of_long) = result.times.values()
        assert len(short) == len(long) == 5
        whole = record["encoder_time_per_second"]["raw_ms"]
        assert whole[0] == pytest.approx(1e3 * (short[0] + long[0]) / (of_short + of_long))
        by_length = record["encoder_time_by_length"].values()
        assert [one["raw_ms"][0] for one in by_length] == pytest.approx(
            [1e3 * short[0] / of_short, 1e3 * long[0] / of_long]
        )
    table = compare_table(records).splitlines()
    assert table[0].count("| ms at ") == 2
    assert len({line.count("|") for line in table}) == 1
    with pytest.raises(ValueError, match=r"1 different inputs of about 1000 s are needed"):
        comparison.measure([rows[0]], 5, 1, lengths=[1000.0])


def test_bad_data_is_an_error(cache, rows, tmp_path):
    with pytest.raises(ValueError, match="missing"):
        compare(tmp_path, cache, rows)


def test_an_experiment_of_another_sampling_rate_fails_alone(data_dir, cache, exps, tmp_path):
    other = shutil.copytree(exps["stock"], tmp_path / "other")
    config = (other / "config.yaml").read_text().replace("fs: 16000", "fs: 8000")
    (other / "config.yaml").write_text(config)
    rows = [custom_row(["low", str(other)]), custom_row(["x", str(exps["stock"])])]
    low, usual = compare(data_dir, cache, rows)[1]
    assert "takes 8000 Hz, but the test set has 16000 Hz" in low.failure
    assert usual.seeds


def test_settings_of_one_gate_are_decoded_in_one_pass(data_dir, exps, tmp_path, monkeypatch):
    passes = []
    monkeypatch.setattr(
        "espnet_layerskip.evaluation.compare.decode",
        lambda systems, data, **how: (passes.append(len(systems)), decode(systems, data, **how))[1],
    )
    rows = [
        *experiment_rows(f"ours={exps['ours']}"),
        custom_row(["more", str(exps["ours"]), "threshold=0.7", "extension=1,1"]),
        custom_row(["the same", str(exps["ours"]), "threshold=0.7", "extension=1,1"]),
        custom_row(["other context", str(exps["ours"]), "context=packed"]),
        custom_row(["int8", str(exps["ours"]), "precision=int8"]),
    ]
    comparison, results = compare(data_dir, DecodingCache(tmp_path), rows)
    assert passes == [4, 1, 1], "what shares no layers is decoded apart, the same once"
    assert comparison.num_decoded == len(rows) - 1 == 6
    assert all(result.seeds for result in results)


@pytest.fixture
def with_short(data_dir, tmp_path):
    """The test set and an utterance, zz, that is too short for the subsampling."""
    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder)
    soundfile.write(tmp_path / "short.wav", np.zeros(300, dtype=np.float32), 16000)
    for name, line in {"wav.scp": tmp_path / "short.wav", "text": "AB", "utt2spk": "zz"}.items():
        with open(folder / name, "a") as table:
            table.write(f"zz {line}\n")
    return folder


def test_an_utterance_that_is_too_short_counts_as_an_empty_transcript(
    with_short, exps, tmp_path, measured
):
    rows = experiment_rows(f"ours={exps['ours']}")
    _, results = compare(with_short, DecodingCache(tmp_path / "cache"), rows, repeats=5)
    assert too_short(results) == ["zz"]
    by_name = {r.row.name: r.seeds[0] for r in measured[1] if r.seeds}
    for result in results:
        [seed] = result.seeds
        assert seed.decoded.hyps["zz"] == ""
        errors, before = (
            sum(c.errors for c in one.scores["wer"].values())
            for one in (seed, by_name[result.row.name])
        )
        assert errors == before + 1
        [(passes, audio)] = result.times.values()
        assert (len(passes), audio) == (5, 4.0)  # of the eight others


def test_what_one_pass_cannot_decode_fails_row_by_row(data_dir, exps, tmp_path, monkeypatch):
    def fail(*args, **how):
        raise RuntimeError("of some layer")

    monkeypatch.setattr("espnet_layerskip.evaluation.compare.decode", fail)
    rows = experiment_rows(str(exps["ours"]))
    _, results = compare(data_dir, DecodingCache(tmp_path), rows)
    assert [r.failure for r in results] == ["of some layer"] * len(rows)


@pytest.mark.parametrize(
    ("second", "taken"),
    [([1.0, 1.0, 1.0], "second"), ([1.0, 2.0, 3.0], "first")],
)
def test_a_busy_machine_is_timed_once_more(second, taken, monkeypatch):
    """The steadier of the two counts; on a quiet machine there is one."""
    first, logged = [1.0, 1.0, 1.5], []
    runs = [{"a": first}, {"a": second}]
    timed = "espnet_layerskip.evaluation.compare.time_interleaved"
    monkeypatch.setattr(timed, lambda cases, repeats: runs.pop(0))
    one = SimpleNamespace(log=logged.append)
    assert Comparison._time(one, [], 5) == {"a": second if taken == "second" else first}
    assert logged == ["  the machine was busy (passes differ by 50 %): timing again"]
    runs[:] = [{"a": [1.0, 1.0, 1.1]}]
    assert Comparison._time(one, [], 5) == {"a": [1.0, 1.0, 1.1]}
    assert len(logged) == 1
