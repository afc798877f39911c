"""What a benchmark measures; tests/verbs/test_benchmark.py runs one."""

import shutil
from pathlib import Path

import pytest
import yaml

from espnet_layerskip.evaluation.benchmark import WHOLE, Options, load_twins, make_rows
from espnet_layerskip.evaluation.contenders import ONNX_ON, Contender, rivals
from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.rows import KEEP


def options(model, scopes=("encoder",), **twins):
    return Options(
        model=str(model),
        model_file=None,
        wav_scp=Path("wav.scp"),
        text=Path("text"),
        scopes=scopes,
        twins={label: str(exp) for label, exp in twins.items()},
        ngram={},
        lm={},
        skip=KEEP,
        threads=[1],
        batch_sizes=[1],
        seconds=[1.0],
        num_inputs=None,
        repeats=5,
        max_wer_increase=1.0,
    )


@pytest.fixture(scope="module")
def whole(exps):
    return load_experiment(exps["ours"], **WHOLE)


def no_onnx(experiment, settings):
    return {ONNX_ON: Contender("not exported")}


def test_rows_of_the_scopes_that_are_wanted(exps, whole):
    wanted = options(exps["ours"], ("model", "encoder"))
    found = make_rows(whole, {}, wanted, no_onnx)
    assert list(found) == ["model", "encoder"]
    assert list(found["model"]) == [*rivals(found["encoder"]), ONNX_ON]


def test_long_inputs_are_not_cut(exps, whole):
    wanted = options(exps["ours"], ("e2e",), stock=exps["stock"])
    rows = make_rows(whole, load_twins(whole, wanted), wanted, no_onnx)["e2e"]
    for name in ("ours_greedy_skip_on", "ours_prefix_beam_skip_on", "twin_stock_greedy"):
        assert rows[name].system.speech2text.longest_whole == float("inf")


def test_twins_of_another_sampling_rate_are_refused(exps, whole, tmp_path):
    other = shutil.copytree(exps["stock"], tmp_path / "other")
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["frontend_conf"]["fs"] = 8000
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match="twin low takes 8000 Hz, but the model takes 16000 Hz"):
        load_twins(whole, options(exps["ours"], low=other))
