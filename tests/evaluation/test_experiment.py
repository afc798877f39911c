"""What measuring takes from an experiment: weights and skipping settings."""

import shutil

import pytest

from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.rows import experiment_rows
from espnet_layerskip.evaluation.systems import System
from tests.support.experiments import make_experiment, write_calibration


@pytest.fixture
def exp(exps, tmp_path):
    return shutil.copytree(exps["ours"], tmp_path / "exp")


def test_as_configured(exp, exps):
    experiment = load_experiment(exp)
    assert experiment.chosen == "as configured"
    assert experiment.settings.describe() == "threshold=0.5 extension=0,0 context=full gates=1"
    assert load_experiment(exps["stock"]).chosen == "none"


def test_as_calibrated(exp):
    write_calibration(exp, 0.7)
    experiment = load_experiment(exp)
    assert experiment.settings.describe() == "threshold=0.7 extension=1,2 context=packed gates=1"
    assert experiment.chosen.startswith("calibrated: threshold=0.7 extension=1,2")


def test_calibrated_to_off_is_measured_as_configured(exp):
    write_calibration(exp, 1.0)
    experiment = load_experiment(exp)
    assert experiment.settings.describe() == "threshold=0.5 extension=0,0 context=full gates=1"
    assert experiment.chosen.startswith("as configured, to show what skipping gives; calibration")
    assert "calibration says off: no setting is shown to keep" in experiment.chosen


def test_fewer_gates_are_kept_in_a_row(tmp_path):
    exp = make_experiment(tmp_path / "exp", gates=(1, 3))
    write_calibration(exp, 0.5, gates=(1,))
    _, on, *_ = experiment_rows(f"x={exp}")
    system = System(load_experiment(exp), on.settings)
    assert system.how.endswith("gates=1")
    assert tuple(system.encoder.gates_in_use) == (1,)
