"""The temperature of confidences."""

import numpy as np
import pytest

from espnet_layerskip.decoding.confidence import tempered
from espnet_layerskip.evaluation.confidence import calibration_error, fit, fit_confidence
from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.inputs import load_test_set
from espnet_layerskip.evaluation.systems import System


def test_the_temperature_that_made_them_too_sure_is_found():
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 1.0, 4000)
    right = rng.random(4000) < true
    sure = tempered(true, 0.5)  # logits are twice what they should be
    found = fit(sure[:3000], right[:3000])
    assert found == pytest.approx(2.0, rel=0.1)
    after = calibration_error(tempered(sure[3000:], found), right[3000:])
    assert calibration_error(sure[3000:], right[3000:]) > 0.08 > 0.05 > after


def test_few_words_change_little():
    sure = np.full(200, 0.9)
    right = np.arange(200) < 200
    assert fit(sure[:3], right[:3]) == pytest.approx(0.9, abs=0.1)
    assert fit(sure, right) < 0.5


def test_a_model_is_judged_by_its_own_words_as_they_are(exps, data_dir):
    experiment = load_experiment(exps["ours"])
    data = load_test_set(data_dir, 16000)
    first = fit_confidence(System(experiment), [data])
    assert 0 < first["words"] >= first["right"]
    experiment.speech2text.confidence_temperature = 5.0  # of an older calibration
    assert fit_confidence(System(experiment), [data, data])["words"] == 2 * first["words"]
    assert fit_confidence(System(experiment), [data]) == first
    assert fit_confidence(System(experiment), []) == {}
