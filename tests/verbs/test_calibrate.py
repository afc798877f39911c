import json
import logging
import shutil

import pytest
import torch

from espnet_layerskip.cli import main
from espnet_layerskip.evaluation import calibrate as engine
from espnet_layerskip.evaluation.decode import Decoded
from espnet_layerskip.inference.calibration import read_calibration
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.inference.speech2text import load_model
from espnet_layerskip.method.settings import SkipSettings

CHECKPOINT = "valid.cer_ctc.ave.pth"


@pytest.fixture
def exp(exps, tmp_path):
    """A copy of an experiment, in a recipe's directory."""
    return shutil.copytree(exps["ours"], tmp_path / "exp" / "asr_x")


@pytest.fixture
def fake_sweep(monkeypatch):
    """Scores that are known: thresholds from 0.9 on lose nothing, those below lose a word."""

    def sweep(systems, data, progress, allow_too_short):
        out = []
        for one in (system.settings for system in systems):
            threshold = one.blank_threshold
            hyps = dict.fromkeys(data.text, "AB XX" if threshold >= 0.9 else "XX XX")
            flops = 100 if one.full_depth else int(90 * threshold) + sum(one.spike_extension)
            out.append(Decoded(hyps, SkipCount(10, 5, 30, 40), flops, 1.0))
        return out

    monkeypatch.setattr(engine, "decode", sweep)


def calibrate(exp, data_dir, budget=5, *args):
    options = ["--exp", exp, "--data", data_dir, "--max-wer-increase", budget, *args]
    return main(["calibrate", *map(str, options)])


def test_the_right_answer_is_found_stored_and_read_back(fake_sweep, exp, data_dir, capsys):
    assert calibrate(exp, data_dir) == 0
    printed = capsys.readouterr()
    how = "threshold=0.9 extension=0,0 context=full gates=1"
    assert f"Calibrated: {how}: its upper bound" in printed.out
    assert "too small for a budget of 5 %" in printed.err
    found = read_calibration(exp / "calibration.json")
    assert found.settings.describe() == how
    stored = json.loads((exp / "calibration.json").read_text())
    assert stored["settings"]["gates_in_use"] == [1]
    assert (found.full_depth["rate"], found.chosen["rate"]) == (50.0, 50.0)
    assert found.data["utterances"] == 8
    assert found.checkpoint == CHECKPOINT
    assert len(found.sweep) == 18
    assert "calibrate --exp" in found.command

    auto = load_model(exp, decoder_type="greedy", blank_threshold="auto")
    assert auto.calibration == found
    assert auto.asr_model.encoder.blank_threshold == 0.9
    configured = load_model(exp, decoder_type="greedy")
    assert configured.calibration is None
    assert configured.asr_model.encoder.blank_threshold == 0.5


def test_the_grid_can_be_given(fake_sweep, exp, data_dir, capsys):
    assert calibrate(exp, data_dir, 5, "--thresholds", 0.95, 0.6, "--extensions", "1,2") == 0
    sweep = read_calibration(exp / "calibration.json").sweep
    tried = [SkipSettings.from_json(row["settings"]) for row in sweep]
    # the configured 0.5 and 0,0 too
    wanted = {(t, e) for t in (0.5, 0.6, 0.95) for e in ((0, 0), (1, 2))}
    assert {(one.blank_threshold, one.spike_extension) for one in tried} == wanted


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--thresholds", "0.9", "off"), "--thresholds off: numbers above 0 and below 1"),
        (("--thresholds", "high"), "must be a number in (0, 1]"),
        (("--extensions", "1"), "extension"),
    ],
)
def test_a_wrong_grid_is_refused(fake_sweep, exp, data_dir, capsys, option, message):
    assert calibrate(exp, data_dir, 5, *option) == 2
    assert message in capsys.readouterr().err


def test_explicit_options_win_over_the_calibration(fake_sweep, exp, data_dir, caplog):
    calibrate(exp, data_dir)
    with caplog.at_level(logging.WARNING):
        model = load_model(exp, blank_threshold="auto", spike_extension="2,3")
    assert model.asr_model.encoder.blank_threshold == 0.9
    assert model.asr_model.encoder.spike_extension == (2, 3)
    assert "win over what was calibrated" in caplog.text
    assert load_model(exp, blank_threshold=0.7).asr_model.encoder.blank_threshold == 0.7


def test_a_budget_that_nothing_keeps_stores_off(monkeypatch, exp, data_dir, capsys):
    def sweep(systems, data, progress, allow_too_short):
        hyps = [dict.fromkeys(data.text, "AB XX"), dict.fromkeys(data.text, "AB")]
        hyps[1][min(data.text)] = "XX XX"  # one error more
        return [
            Decoded(hyps[not full], SkipCount(), 100 if full else 50, 1.0)
            for full in (system.settings.full_depth for system in systems)
        ]

    monkeypatch.setattr(engine, "decode", sweep)
    assert calibrate(exp, data_dir, 1) == 3
    printed = capsys.readouterr()
    assert "off: no setting keeps a WER increase of 1 % (relative) on 8 utterances" in printed.out
    assert "WARNING: no setting is shown to keep" in printed.err
    assert "of 8 utterances is too small for a budget of 1 %: at least about" in printed.err
    assert read_calibration(exp / "calibration.json").is_off
    model = load_model(exp, blank_threshold="auto")
    assert model.asr_model.encoder.blank_threshold == 1.0
    assert calibrate(exp, data_dir, 20, "--allow-point-estimate") == 0
    assert read_calibration(exp / "calibration.json").kept_by == "point estimate"


def test_stale_weights_are_warned_of(fake_sweep, exp, data_dir, caplog):
    calibrate(exp, data_dir)
    state = torch.load(exp / CHECKPOINT, weights_only=True)
    state["ctc.ctc_lo.bias"] += 1.0
    torch.save(state, exp / CHECKPOINT)
    with caplog.at_level(logging.WARNING):
        model = load_model(exp, blank_threshold="auto")
    assert model.calibration is None
    assert model.asr_model.encoder.blank_threshold == 0.5
    assert "is of other weights" in caplog.text


def test_only_if_needed(fake_sweep, exp, data_dir, capsys, monkeypatch):
    assert calibrate(exp, data_dir, 5, "--if-needed") == 0
    assert "Calibrated: threshold" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(engine, "calibrate", lambda *a, **k: pytest.fail("it was not needed"))
        assert calibrate(exp, data_dir, 5, "--if-needed") == 0
    assert "calibrated already" in capsys.readouterr().out
    for changed in ([6], [5, "--metric", "cer"]):
        assert calibrate(exp, data_dir, *changed, "--if-needed") == 0
        assert "Calibrated: threshold" in capsys.readouterr().out
    (exp / "calibration.json").write_text("{}")
    assert calibrate(exp, data_dir, 5, "--if-needed") == 0
    assert read_calibration(exp / "calibration.json").max_increase == 5.0


def test_a_packed_model_carries_it(fake_sweep, exp, data_dir, monkeypatch):
    from espnet2.main_funcs.pack_funcs import pack

    calibrate(exp, data_dir)
    monkeypatch.chdir(exp.parents[1])
    pack(
        files={"asr_model_file": f"exp/asr_x/{CHECKPOINT}"},
        yaml_files={"asr_train_config": "exp/asr_x/config.yaml"},
        option=["exp/asr_x/calibration.json"],
        outpath="model.zip",
    )
    (exp / "calibration.json").unlink()
    model = load_model("model.zip", decoder_type="greedy", blank_threshold="auto")
    assert model.calibration.kept_by == "upper bound"
    assert model.asr_model.encoder.blank_threshold == 0.9


def test_a_real_sweep_of_a_real_model(exp, data_dir, capsys, monkeypatch):
    """Random weights: nothing is known but that the parts fit together."""
    monkeypatch.setattr("espnet_layerskip.evaluation.grid.THRESHOLDS", (0.3,))
    monkeypatch.setattr("espnet_layerskip.evaluation.grid.EXTENSIONS", ((0, 0),))
    assert calibrate(exp, data_dir, 1000, "--metric", "cer", "--num-threads", 1) == 0
    assert "8 of 8 utterances" in capsys.readouterr().err
    found = json.loads((exp / "calibration.json").read_text())
    flops = [row["encoder_flops"] for row in found["sweep"] if row["fits"]]
    assert found["chosen"]["encoder_flops"] == min(flops) < found["full_depth"]["encoder_flops"]
    assert 0 < found["chosen"]["skip_ratio"] < 1


def test_bad_input(exps, exp, data_dir, tmp_path, capsys):
    (tmp_path / "model.zip").touch()
    for args, message in (
        ((exp, data_dir, 0), "--max-wer-increase must be above 0"),
        ((exp, data_dir, "nan"), "--max-wer-increase must be above 0"),
        ((exp, data_dir, 1, "--num-threads", 0), "--num-threads must be at least 1"),
        ((tmp_path / "model.zip", data_dir), "calibrate the experiment directory, then pack"),
        ((tmp_path / "none", data_dir), "neither an experiment directory"),
        ((exp, tmp_path), "no such data directory, or no wav.scp in it"),
        ((exps["stock"], data_dir), "its encoder, ConformerEncoder, has no gate"),
    ):
        assert calibrate(*args) == 2
        assert message in capsys.readouterr().err
    assert not (exp / "calibration.json").exists()
