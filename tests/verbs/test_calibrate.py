import json
import logging
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from espnet_layerskip.cli import main
from espnet_layerskip.evaluation import calibrate as engine
from espnet_layerskip.evaluation.decode import Decoded
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.shift_names import DEFAULT
from espnet_layerskip.inference.calibration import read_calibration
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.inference.speech2text import load_model
from espnet_layerskip.method.settings import SkipSettings

CHECKPOINT = "valid.cer_ctc.ave.pth"


@pytest.fixture(autouse=True)
def free(monkeypatch):
    """From where on skipping pays depends on the machine: tests/evaluation/test_break_even.py."""
    monkeypatch.setattr(engine, "with_break_even", lambda experiment, data, settings: settings)


@pytest.fixture
def exp(exps, tmp_path):
    """A copy of an experiment, in a recipe's directory."""
    return shutil.copytree(exps["ours"], tmp_path / "exp" / "asr_x")


@pytest.fixture
def sweep(monkeypatch):
    """Scores that are known; return them, to be changed.

    So many utterances of the eight that full depth recognises are lost below a threshold of 0.9.
    """
    known = SimpleNamespace(wrong=2, lost=2, flops=lambda threshold: int(90 * threshold))
    known.lost_on_copies, known.decoded = {}, []  # by name; what was decoded
    known.silent = None  # the copy in which nothing is recognised

    def decode(systems, data, progress):
        out, name = [], data.refused.get("copy")
        known.decoded.append(name)
        loss = known.lost_on_copies.get(name, known.lost)
        for one in (system.settings for system in systems):
            lost = known.wrong + (loss if one.blank_threshold < 0.9 else 0)
            hyps = {u: "XX" if i < lost else "AB" for i, u in enumerate(data.text)}
            if known.silent is not None and known.silent in (name, "all"):
                hyps = dict.fromkeys(hyps, "")
            flops = 100 if one.full_depth else known.flops(one.blank_threshold)
            flops += sum(one.spike_extension)
            out.append(Decoded(hyps, SkipCount(10, 5, 30, 40), flops))
        return out

    monkeypatch.setattr(engine, "decode", decode)
    sure = {"temperature": 1.7, "words": 80, "right": 70}
    monkeypatch.setattr(engine, "fit_confidence", lambda system, sets: sure)
    return known


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A development set of 600 utterances of one word by 60 speakers; no audio is read."""
    directory = tmp_path / "data"
    directory.mkdir()
    names = {f"s{i // 10:02}-{i:03}": f"s{i // 10:02}" for i in range(600)}
    for table, line in (("wav.scp", "{u} {u}.wav"), ("text", "{u} AB"), ("utt2spk", "{u} {s}")):
        text = "".join(line.format(u=u, s=s) + "\n" for u, s in names.items())
        (directory / table).write_text(text)
    speech = [Speech(u, np.zeros(1, np.float32), 16000) for u in names]
    data = engine.TestSet(speech, dict.fromkeys(names, "AB"), names)
    monkeypatch.setattr(engine, "load_test_set", lambda path, rate: data)
    return directory


@pytest.fixture
def copies(monkeypatch):
    """Shifted copies that only say which ones they are."""

    def shifted(data, shift):
        return replace(data, refused={"copy": shift.name})

    monkeypatch.setattr(engine, "shifted", shifted)


def calibrate(exp, data_dir, budget=5, *args, shifts="none"):
    options = ["--exp", exp, "--data", data_dir, "--max-wer-increase", budget, *args]
    options += ["--shifts", shifts] if shifts else []
    return main(["calibrate", *map(str, options)])


def test_the_right_answer_is_found_stored_and_read_back(sweep, exp, large, capsys):
    sweep.wrong, sweep.lost = 200, 60  # a budget of 10 errors
    assert calibrate(exp, large) == 0
    printed = capsys.readouterr()
    how = "threshold=0.9 extension=0,0 context=full gates=1"
    assert f"Calibrated: {how}: its upper bound" in printed.out
    assert "on 600 utterances of data by 60 speakers." in printed.out
    unknown = "whether the development set chose the checkpoint or trained the model is not known"
    assert f"WARNING: {unknown}: valid_data_path_and_name_and_type of config.yaml" in printed.err
    found = read_calibration(exp / "calibration.json")
    assert found.shown
    assert [warning.split(":")[0] for warning in found.warnings] == [unknown]
    assert found.settings.describe() == how
    stored = json.loads((exp / "calibration.json").read_text())
    assert stored["settings"]["gates_in_use"] == [1]
    assert found.full_depth["rate"] == found.chosen["rate"] == pytest.approx(100 / 3)
    assert found.data["utterances"] == 600
    assert found.data["speakers"] == 60
    assert found.data["seen"] == {}
    assert found.checkpoint == CHECKPOINT
    assert len(found.sweep) == 18
    assert "calibrate --exp" in found.command

    auto = load_model(exp, decoder_type="greedy")
    assert auto.calibration == found
    assert auto.asr_model.encoder.blank_threshold == 0.9
    assert auto.confidence_temperature == 1.7
    assert load_model(exp, confidence_temperature=1).confidence_temperature == 1
    assert "Confidence of words: temperature 1.7, of 80 words of which 70 are right." in printed.out
    configured = load_model(exp, decoder_type="greedy", blank_threshold=None)
    assert configured.calibration is None
    assert configured.asr_model.encoder.blank_threshold == 0.5
    assert configured.confidence_temperature == 1.0


def test_what_was_found_is_told_where_it_cannot_be_stored(sweep, exp, large, capsys, monkeypatch):
    def full(calibration, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(engine.Calibration, "save", full)
    sweep.wrong, sweep.lost = 200, 60
    assert calibrate(exp, large) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "nothing is stored, but found was: threshold=0.9 extension=0,0" in said


def test_the_same_on_few_utterances_is_not_shown(sweep, exp, data_dir, capsys, caplog):
    assert calibrate(exp, data_dir) == 3
    printed = capsys.readouterr()
    assert "off: no setting is shown to keep a WER increase of 5 % (relative) on 8" in printed.out
    assert "WARNING: no setting is shown to keep" in printed.err
    assert "of 8 utterances is too small for a budget of 5 %: at least about" in printed.err
    assert read_calibration(exp / "calibration.json").is_off
    model = load_model(exp, blank_threshold="auto")
    assert model.asr_model.encoder.blank_threshold == 1.0
    assert calibrate(exp, data_dir, 5, "--allow-point-estimate") == 0
    assert "1,1 context=full gates=1: not shown: only its point" in capsys.readouterr().out
    assert calibrate(exp, data_dir, 5, "--allow-point-estimate", "--extensions", "0,0", "1,1") == 0
    assert "0,0 context=full gates=1: not shown: only its point" in capsys.readouterr().out
    found = read_calibration(exp / "calibration.json")
    assert (found.kept_by, found.shown) == ("point estimate", False)
    with caplog.at_level(logging.WARNING):
        model = load_model(exp, blank_threshold="auto")
    assert model.asr_model.encoder.blank_threshold == 0.9, "it was asked for"
    assert "as calibrated, not shown to keep its budget" in caplog.text


def test_one_bad_entry_costs_that_entry_and_is_told(sweep, exp, data_dir, tmp_path, capsys, caplog):
    data = shutil.copytree(data_dir, tmp_path / "dev")
    table = (data / "wav.scp").read_text()
    (data / "wav.scp").write_text(table.replace(f"{data_dir}/s0-u3.wav", "gone.wav"))
    options = ("--allow-point-estimate", "--thresholds", 0.95, "--extensions", "0,0")
    assert calibrate(exp, data, 50, *options) == 1
    assert "8 read = 7 used + 1 refused" in caplog.text
    assert "on 7 utterances of dev" in capsys.readouterr().out
    [reason] = read_calibration(exp / "calibration.json").data["refused"].values()
    assert reason == "utterance s0-u3: gone.wav: no such audio file"
    assert calibrate(exp, data, 50, *options, "--if-needed") == 1


def test_a_dry_run_writes_nothing_and_what_was_there_is_kept(sweep, exp, data_dir, capsys):
    grid = ("--thresholds", 0.95, "--extensions", "0,0")
    before = sorted(exp.rglob("*"))
    assert calibrate(exp, data_dir, 5, *grid, "--dry-run") == 3
    assert "Calibrated: off" in (printed := capsys.readouterr().out)
    assert "written: nothing (--dry-run)" in printed
    assert sorted(exp.rglob("*")) == before
    written = []
    for budget in (5, 6, 7):
        calibrate(exp, data_dir, budget, *grid)
        written.append((exp / "calibration.json").read_text())
    assert f"the one before is kept: {exp}/calibration.json.2" in capsys.readouterr().out
    assert [(exp / f"calibration.json.{n}").read_text() for n in (1, 2)] == written[:2]


def test_the_grid_can_be_given(sweep, exp, data_dir):
    calibrate(exp, data_dir, 5, "--thresholds", 0.95, 0.6, "--extensions", "1,2")
    rows = read_calibration(exp / "calibration.json").sweep
    tried = [SkipSettings.from_json(row["settings"]) for row in rows]
    assert {(o.blank_threshold, o.spike_extension) for o in tried} == {
        (0.6, (1, 2)),
        (0.95, (1, 2)),
    }


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--thresholds", "0.9", "off"), "--thresholds off: numbers above 0 and below 1"),
        (("--thresholds", "high"), "must be a number in (0, 1]"),
        (("--extensions", "1"), "extension"),
    ],
)
def test_a_wrong_grid_is_refused(sweep, exp, data_dir, capsys, option, message):
    assert calibrate(exp, data_dir, 5, *option) == 2
    assert message in capsys.readouterr().err


def test_explicit_options_win_over_the_calibration(sweep, exp, data_dir, caplog):
    calibrate(exp, data_dir, 5, "--allow-point-estimate")
    with caplog.at_level(logging.WARNING):
        model = load_model(exp, blank_threshold="auto", spike_extension="2,3")
    assert model.asr_model.encoder.blank_threshold == 0.9
    assert model.asr_model.encoder.spike_extension == (2, 3)
    assert "win over what was calibrated" in caplog.text
    assert load_model(exp, blank_threshold=0.7).asr_model.encoder.blank_threshold == 0.7


@pytest.mark.parametrize("part", ["valid", "train"])
def test_data_that_the_model_has_seen_is_refused(sweep, exp, data_dir, capsys, part):
    """A copy of the validation set's table under another name is recognised, too."""
    config = yaml.safe_load((exp / "config.yaml").read_text())
    shapes = exp / "speech_shape"
    shapes.write_text("".join(f"s0-u{i} 8000\n" for i in range(3)) + "other 1\n")
    config[f"{part}_shape_file"] = [str(shapes)]
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    assert calibrate(exp, data_dir) == 2
    did = "chose the checkpoint" if part == "valid" else "trained the model"
    assert f"{did} (3 of its 8 utterances are in {shapes}): what it" in capsys.readouterr().err
    assert not (exp / "calibration.json").exists()
    assert calibrate(exp, data_dir, 5, "--allow-seen-data") == 3
    printed = capsys.readouterr()
    assert f"This set {did}: 3 of its 8 utterances" in printed.out
    assert f"utterances of {data_dir.name} (which {did})" in printed.out
    assert f"WARNING: the development set {did}" in printed.err
    found = read_calibration(exp / "calibration.json")
    assert list(found.data["seen"]) == [did]


def test_stale_weights_are_warned_of(sweep, exp, data_dir, caplog):
    calibrate(exp, data_dir)
    state = torch.load(exp / CHECKPOINT, weights_only=True)
    state["ctc.ctc_lo.bias"] += 1.0
    torch.save(state, exp / CHECKPOINT)
    with caplog.at_level(logging.WARNING):
        model = load_model(exp, blank_threshold="auto")
    assert model.calibration is None
    assert model.asr_model.encoder.blank_threshold == 0.5
    assert "is of other weights" in caplog.text


def test_only_if_needed(sweep, exp, data_dir, capsys, monkeypatch):
    """It is needed unless all that was asked is the same, and the files, too."""
    asked = ["--allow-point-estimate", "--thresholds", 0.9, 0.95, "--extensions", "0,0"]
    assert calibrate(exp, data_dir, 5, *asked, "--if-needed") == 0
    assert "Calibrated: threshold" in capsys.readouterr().out
    same = ["--allow-point-estimate", "--extensions", "0,0", "--thresholds", 0.95, 0.9]
    with monkeypatch.context() as patch:
        patch.setattr(engine, "calibrate", lambda *a, **k: pytest.fail("it was not needed"))
        assert calibrate(exp, data_dir, 5, *same, "--num-threads", 1, "--if-needed") == 0
    assert "calibrated already: threshold" in capsys.readouterr().out
    for budget, *options in (
        [6, *asked],
        [5, *asked, "--metric", "cer"],
        [5, *asked, "--allow-seen-data"],
        [5, *asked[1:]],
        [5, "--allow-point-estimate", "--thresholds", 0.9, "--extensions", "0,0"],
        [5, "--allow-point-estimate", "--thresholds", 0.9, 0.95, "--extensions", "1,1"],
        [5, "--allow-point-estimate"],
        [5, "--allow-point-estimate", "--shifts", "gain-20"],
    ):
        shifts = None if "--shifts" in options else "none"
        calibrate(exp, data_dir, budget, *options, "--if-needed", shifts=shifts)
        assert "\nCalibrated: " in capsys.readouterr().out, options
    (exp / "config.yaml").write_text((exp / "config.yaml").read_text() + "seed: 1\n")
    calibrate(exp, data_dir, 5, "--allow-point-estimate", "--if-needed")
    assert "\nCalibrated: " in capsys.readouterr().out
    (exp / "calibration.json").write_text("{}")
    assert calibrate(exp, data_dir, 5, "--if-needed") == 3
    assert read_calibration(exp / "calibration.json").max_increase == 5.0
    assert calibrate(exp, data_dir, 5, "--if-needed") == 3, "off is an answer that stays"
    assert "calibrated already: off" in capsys.readouterr().out


def test_the_budget_is_kept_in_each_condition(sweep, copies, exp, large, capsys):
    """Below 0.9 the set itself keeps the budget of 10 errors, and so does a copy with 30 of 40."""
    sweep.wrong, sweep.lost = 200, 0
    options = ("--thresholds", 0.8, 0.9, "--extensions", "0,0")
    assert calibrate(exp, large, 5, *options, shifts=None) == 0
    assert sweep.decoded == [None, *DEFAULT], "one pass over each"
    printed = capsys.readouterr()
    assert "Calibrated: threshold=0.8 extension=0,0" in printed.out
    assert "utterances of data, also as noise10, babble10, reverb0.3, telephone" in printed.out
    assert "decoding 600 utterances of data, telephone with 3 settings" in printed.err
    found = read_calibration(exp / "calibration.json")
    assert found.data["shifts"] == list(DEFAULT)
    names = [one["condition"]["name"] for one in found.chosen["conditions"]]
    assert names == ["data", *(f"data, {shift}" for shift in DEFAULT)]
    budgets = [one["condition"]["max_increase"] for one in found.chosen["conditions"]]
    assert budgets == [5.0, 10.0, 10.0, 10.0, 10.0]

    sweep.lost_on_copies = {"telephone": 30}
    assert calibrate(exp, large, 5, *options, shifts="noise10 telephone") == 0
    printed = capsys.readouterr()
    assert "Calibrated: threshold=0.9" in printed.out
    [failed] = [line for line in printed.out.splitlines() if line.startswith("| 0.8 |")]
    assert "| data, telephone |" in failed
    assert failed.endswith("| not shown, not measured either |")
    assert "| data, telephone | 600 | 33.33 | 33.33 |" in printed.out, "the setting, by condition"
    assert calibrate(exp, large, 5, *options, shifts="noise10") == 0
    assert "Calibrated: threshold=0.8" in capsys.readouterr().out


def test_a_copy_in_which_nothing_is_recognised_is_a_condition_too(
    sweep, copies, exp, large, capsys
):
    sweep.wrong, sweep.lost, sweep.silent = 200, 0, "telephone"
    options = ("--thresholds", 0.9, "--extensions", "0,0")
    assert calibrate(exp, large, 5, *options, shifts="telephone") == 0
    assert "| data, telephone | 600 | 100.00 | 100.00 |" in capsys.readouterr().out
    sweep.silent = "all"
    assert calibrate(exp, large, 5, *options) == 2
    assert "wrote nothing" in capsys.readouterr().err


def test_several_sets(sweep, copies, exp, large, tmp_path, capsys):
    other = shutil.copytree(large, tmp_path / "other")
    sweep.wrong, sweep.lost = 200, 0
    options = ["--exp", exp, "--data", large, other, "--max-wer-increase", 5, "--shifts", "gain"]
    assert main(["calibrate", *map(str, options)]) == 0
    assert sweep.decoded == [None, None, "gain", "gain"]
    found = read_calibration(exp / "calibration.json")
    assert (found.data["name"], found.data["utterances"]) == ("data + other", 1200)
    assert found.chosen["encoder_flops"] == 2 * 45, "of the sets, not of their copies"
    assert "on 1200 utterances of data + other by 60 speakers." in capsys.readouterr().out
    options[4] = shutil.copytree(large, tmp_path / "x" / "data")
    assert main(["calibrate", *map(str, options)]) == 2
    assert "two directories have one name" in capsys.readouterr().err


def test_a_packed_model_carries_it(sweep, exp, data_dir, monkeypatch):
    from espnet2.main_funcs.pack_funcs import pack

    calibrate(exp, data_dir, 5, "--allow-point-estimate")
    monkeypatch.chdir(exp.parents[1])
    pack(
        files={"asr_model_file": f"exp/asr_x/{CHECKPOINT}"},
        yaml_files={"asr_train_config": "exp/asr_x/config.yaml"},
        option=["exp/asr_x/calibration.json"],
        outpath="model.zip",
    )
    (exp / "calibration.json").unlink()
    model = load_model("model.zip", decoder_type="greedy", blank_threshold="auto")
    assert model.calibration.kept_by == "point estimate"
    assert model.asr_model.encoder.blank_threshold == 0.9


def test_a_real_sweep_of_a_real_model(exp, data_dir, capsys, monkeypatch):
    """Random weights: nothing is known but that the parts fit together."""
    monkeypatch.setattr("espnet_layerskip.evaluation.grid.THRESHOLDS", (0.3,))
    monkeypatch.setattr("espnet_layerskip.evaluation.grid.EXTENSIONS", ((0, 0),))
    options = ("--allow-point-estimate", "--metric", "cer", "--num-threads", 1)
    assert calibrate(exp, data_dir, 1000, *options, "--extensions", "0,0") == 0
    assert "decoding 8 utterances of" in capsys.readouterr().err
    found = json.loads((exp / "calibration.json").read_text())
    flops = [row["encoder_flops"] for row in found["sweep"]]
    assert found["chosen"]["encoder_flops"] == min(flops) < found["full_depth"]["encoder_flops"]
    assert 0 < found["chosen"]["skip_ratio"] < 1


def test_bad_input(exps, exp, data_dir, tmp_path, capsys):
    (tmp_path / "model.zip").touch()
    for args, message in (
        ((exp, data_dir, 0), "--max-wer-increase must be above 0"),
        ((exp, data_dir, 1, "--shifts", "echo"), "shift 'echo' is not known"),
        ((exp, data_dir, 1, "--num-threads", 0), "--num-threads must be at least 1"),
        ((tmp_path / "model.zip", data_dir), "calibrate the experiment directory, then pack"),
        ((tmp_path / "none", data_dir), "neither an experiment directory"),
        ((exp, tmp_path), "wav.scp missing; found"),
        ((exps["stock"], data_dir), "its encoder, ConformerEncoder, has no gate"),
    ):
        assert calibrate(*args, shifts=None) == 2
        assert message in capsys.readouterr().err
    assert not (exp / "calibration.json").exists()
    with pytest.raises(SystemExit):
        calibrate(exp, data_dir, "nan")
    assert "--max-wer-increase: a finite number is needed" in capsys.readouterr().err
