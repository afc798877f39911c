import pytest

from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.settings import SkipSettings
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.evaluation.variants import FULL, ON, STOCK, make_variants


def test_forms_and_what_they_are_measured_by(experiment, stock_twin):
    variants = make_variants(experiment, SkipSettings(), {"s": stock_twin})
    related = {name: (v.full_depth, v.reference) for name, v in variants.items()}
    assert related == {
        ON: (FULL, FULL),
        FULL: ("", ""),
        STOCK: ("", FULL),
        "bfloat16_skip_on": ("bfloat16_skip_off", FULL),
        "bfloat16_skip_off": ("", FULL),
        "int8_skip_on": ("int8_skip_off", FULL),
        "int8_skip_off": ("", FULL),
        "exit_at_1": (FULL, FULL),
        "twin_s": ("", ""),
        "twin_s_fast": ("", ""),
    }
    assert all(isinstance(v.system, System) for v in variants.values())
    assert variants["twin_s"].system.encoder is stock_twin.encoder
    assert variants["twin_s_fast"].system.encoder.fast_layers() is not None


def test_a_form_that_cannot_be_built_says_why(exps):
    variants = make_variants(load_experiment(exps["narrow"]), SkipSettings(), {})
    assert "does not fit the model" in variants[STOCK].system
    assert isinstance(variants[ON].system, System)


def test_a_gated_twin_has_one_form(experiment, exps):
    twins = {"other": load_experiment(exps["ours2"])}
    names = list(make_variants(experiment, SkipSettings(), twins))
    assert [n for n in names if n.startswith("twin")] == ["twin_other"]


def test_needs_a_gate(stock_twin):
    with pytest.raises(ValueError, match="ConformerEncoder without a gate"):
        make_variants(stock_twin, SkipSettings(), {})
