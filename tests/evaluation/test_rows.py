import shutil
from pathlib import Path

import pytest

from espnet_layerskip.evaluation.rows import Row, check_names, custom_row, experiment_rows
from espnet_layerskip.method.settings import OFF, SkipSettings

PACKED = Path(__file__).parents[2] / "egs2/an4/asr1/pretrained/an4_layerskip.zip"


def test_standard_rows(exps):
    rows = experiment_rows(f"mine={exps['ours']},{exps['ours2']}")
    seeds = (str(exps["ours"]), str(exps["ours2"]))
    assert rows == [
        Row("mine, skipping off", seeds, OFF),
        Row("mine, skipping on", seeds),
        Row("mine, stopped at layer 1", seeds, SkipSettings(1.0, exit_layer=1)),
    ]
    stock = str(exps["stock"])
    assert experiment_rows(stock) == [Row("stock", (stock,))]


def test_a_name_with_the_sign_of_a_label(exps, tmp_path):
    shutil.copytree(exps["stock"], tmp_path / "asr_lr=0.1")
    found = str(tmp_path / "asr_lr=0.1")
    assert experiment_rows(found) == [Row("asr_lr=0.1", (found,))]
    assert experiment_rows(f"mine={found}") == [Row("mine", (found,))]


def test_a_packed_model_has_the_rows_of_its_gates():
    rows = experiment_rows(f"packed={PACKED}")
    assert [row.name for row in rows] == [
        *("packed, skipping off", "packed, skipping on", "packed, stopped at layer 3"),
    ]


def test_custom_row():
    row = custom_row(["ours, extension 0", "a,b", "threshold=0.8", "extension=0,0"])
    assert row == Row("ours, extension 0", ("a", "b"), SkipSettings(0.8, (0, 0)))
    row = custom_row(["x", "a", "precision=int8", "repeats=0.5"])
    assert row == Row("x", ("a",), SkipSettings(repeat_threshold=0.5), "int8")
    assert row.describe() == "repeats=0.5 precision=int8"
    assert custom_row(["x", "a", "precision=int8"]).describe() == "precision=int8"
    assert custom_row(["x", "a"]).describe() == ""


def test_bad_rows(exps, tmp_path):
    with pytest.raises(ValueError, match="is not an experiment: there is no .*config.yaml"):
        experiment_rows(str(tmp_path))
    with pytest.raises(ValueError, match="differing gates"):
        experiment_rows(f"{exps['ours']},{exps['stock']}")
    with pytest.raises(ValueError, match="row 'x': NAME EXPDIR"):
        custom_row(["x"])
    with pytest.raises(ValueError, match="row 'x': setting 'speed=2' is not known"):
        custom_row(["x", "a", "speed=2"])
    with pytest.raises(ValueError, match="row 'x': precision must be one of float32, .*'half'"):
        custom_row(["x", "a", "precision=half"])
    with pytest.raises(ValueError, match="row 'x': setting precision is given twice"):
        custom_row(["x", "a", "precision=int8", "precision=int8"])
    with pytest.raises(ValueError, match="nothing to compare"):
        check_names([])
    with pytest.raises(ValueError, match="two rows are named 'x'"):
        check_names([custom_row(["x", "a"]), custom_row(["x", "b"])])
