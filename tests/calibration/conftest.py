"""The experiments of the benchmark's tests, and one with two gates."""

import pytest

from ..bench.conftest import data_dir, experiment, exps, make_experiment  # noqa: F401


@pytest.fixture(scope="session")
def cascade(tmp_path_factory):
    from espnet_layerskip.bench.experiment import load_experiment

    return load_experiment(make_experiment(tmp_path_factory.mktemp("two") / "exp", gates=(1, 3)))


@pytest.fixture(scope="session")
def data(data_dir):  # noqa: F811
    from espnet_layerskip.bench.inputs import TestSet, load_test_set

    whole = load_test_set(data_dir, 16000)
    return TestSet(whole.speech[:3], {s.utt_id: "AB CD" for s in whole.speech[:3]}, whole.utt2spk)
