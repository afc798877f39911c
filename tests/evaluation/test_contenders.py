import argparse
from functools import partial

import pytest
import torch
import yaml
from espnet2.tasks.lm import LMTask

from espnet_layerskip.evaluation import contenders
from espnet_layerskip.evaluation.contenders import (
    FULL,
    GREEDY_OFF,
    GREEDY_ON,
    ON,
    STOCK,
    STOCK_SDPA,
    make_forms,
    make_searches,
    make_stock_searches,
    rivals,
)
from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.rows import KEEP
from espnet_layerskip.evaluation.stock import StockSearch, stock_options
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.method.settings import SkipSettings
from tests.support.experiments import TOKENS, make_experiment, write_calibration

UNIGRAMS = "".join(
    f"-1\t{token}\t0\n" for token in ("<s>", "</s>", "<unk>", "<space>", *"ABCDEFGH")
)
ARPA = f"\\data\\\nngram 1=12\n\n\\1-grams:\n{UNIGRAMS}\n\\end\\\n"
BIGRAM = ARPA.replace("1=12\n", "1=12\nngram 2=1\n").replace(
    "\n\\end", "\n\\2-grams:\n-0.5\tA B\n\n\\end"
)


def e2e(model, *skip, ngram=None, lm=None, greedy=False, **twins):
    """Return the end-to-end rows of an experiment: ours (greedy ones if wanted) and ESPnet's."""
    experiment = load_experiment(model)
    twins = {label: load_experiment(exp) for label, exp in twins.items()}
    settings, load = SkipSettings.from_items(skip), partial(load_experiment, model, None)
    forms = make_forms(experiment, settings, twins) if greedy else {}
    return {
        **make_searches(forms, load, settings, ngram or {}, lm or {}),
        **make_stock_searches(experiment, twins, ngram or {}, lm or {}),
    }


def test_forms_and_what_they_are_measured_by(experiment, stock_twin, exps):
    twins = {"s": stock_twin, "gated": load_experiment(exps["ours2"])}
    forms = make_forms(experiment, KEEP, twins)
    related = {name: (c.full_depth, c.reference) for name, c in forms.items()}
    sdpa = related.pop(STOCK_SDPA, None)
    assert sdpa == (("", FULL) if "use_sdpa" in stock_options(experiment) else None)
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
        "twin_gated": ("", ""),
    }
    assert all(isinstance(c.system, System) for c in forms.values())
    assert type(forms["twin_s"].system.encoder) is type(stock_twin.encoder)
    assert forms["twin_s_fast"].system.encoder.fast_form() is not None
    few = [n for n in forms if not n.startswith("bfloat16") and n != "int8_skip_on"]
    assert list(rivals(forms)) == few


def test_espnets_sdpa_gives_the_same(experiment, data):
    if "use_sdpa" not in stock_options(experiment):
        pytest.skip("use_sdpa is an option of ESPnet 202611")
    forms, group = make_forms(experiment, KEEP, {}), data.speech[:1]
    usual, sdpa = forms[STOCK].system, forms[STOCK_SDPA].system
    assert sdpa.encoder.encoders[0].self_attn.use_sdpa
    assert not usual.encoder.encoders[0].self_attn.use_sdpa
    found = [system.encode(system.batch(group)).out for system in (usual, sdpa)]
    torch.testing.assert_close(*found, atol=1e-5, rtol=0.0)


def test_a_form_that_cannot_be_built_says_why(exps):
    forms = make_forms(load_experiment(exps["narrow"]), KEEP, {})
    assert "does not fit the model" in forms[STOCK].system
    assert isinstance(forms[ON].system, System)


def test_needs_a_gate(stock_twin):
    with pytest.raises(ValueError, match="ConformerEncoder without a gate"):
        make_forms(stock_twin, KEEP, {})


def test_rows_from_file_to_text(exps):
    found = e2e(exps["plain"], greedy=True, s=exps["stock"])
    assert list(found) == [
        *(GREEDY_ON, GREEDY_OFF, "int8_skip_off_greedy", "exit_at_1_greedy"),
        *("twin_s_greedy", "twin_s_fast_greedy"),
        *("ours_prefix_beam_skip_on", "ours_prefix_beam_skip_off"),
        *("stock_beam1", "stock_beam10"),
    ]
    assert (found[GREEDY_ON].full_depth, found[GREEDY_ON].reference) == (GREEDY_OFF, GREEDY_OFF)
    beam = found["ours_prefix_beam_skip_on"]
    assert (beam.full_depth, beam.reference) == ("ours_prefix_beam_skip_off",) * 2
    assert found["stock_beam1"].reference == ""


def test_where_our_weights_do_not_fit_a_stock_twin_can_be_the_rival(exps):
    found = e2e(exps["narrow"])
    assert "a twin named stock can take its place" in found["stock_beam10"].system
    found = e2e(exps["narrow"], stock=exps["stock"])
    assert isinstance(found["stock_beam10"].system, StockSearch)
    assert isinstance(found["stock_beam1"].system, StockSearch)
    assert "beam 10" in found["stock_beam10"].system.describe()


def test_ngram_rows(exps, tmp_path, monkeypatch):
    arpa, words = tmp_path / "a.arpa", tmp_path / "words"
    arpa.write_text(ARPA)
    words.write_text("A\nB\n")
    monkeypatch.setattr(contenders.importlib.util, "find_spec", lambda name: None)
    found = e2e(exps["plain"], ngram={"ngram_file": arpa})
    assert isinstance(found["ours_ngram_skip_on"].system, System)
    assert "pip install kenlm" in found["stock_beam10_ngram"].system
    found = e2e(exps["plain"], ngram={"ngram_file": arpa, "lexicon": words})
    assert isinstance(found["ours_ngram_skip_off"].system, System)
    assert "over tokens" in found["stock_beam10_ngram"].system


def test_ngram_in_espnets_search(exps, tmp_path):
    pytest.importorskip("kenlm")
    arpa = tmp_path / "a.arpa"
    arpa.write_text(BIGRAM)
    stock = e2e(exps["plain"], ngram={"ngram_file": arpa})["stock_beam10_ngram"].system
    assert set(stock.speech2text.beam_search.scorers) == {"ctc", "ngram"}
    arpa.write_text(ARPA)
    found = e2e(exps["plain"], ngram={"ngram_file": arpa})
    assert isinstance(found["ours_ngram_skip_on"].system, System)
    assert "at least a bigram" in found["stock_beam10_ngram"].system  # kenlm's own limit


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """Arguments for an untrained language model of ESPnet."""
    directory = tmp_path_factory.mktemp("lm")
    config = LMTask.get_default_config()
    config |= {"token_list": TOKENS, "token_type": "char", "init": None, "lm": "seq_rnn"}
    config |= {"lm_conf": {"unit": 4, "nlayers": 1}, "model": "lm", "model_conf": {}}
    model = LMTask.build_model(argparse.Namespace(**config))
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), directory / "valid.loss.ave.pth")
    files = directory / "config.yaml", directory / "valid.loss.ave.pth"
    return {"lm_train_config": str(files[0]), "lm_file": str(files[1]), "lm_weight": 0.4}


def test_a_neural_language_model_in_espnets_search(exps, lm, data):
    found = e2e(exps["plain"], lm=lm)
    search = found["stock_beam10_lm"].system.speech2text.beam_search
    assert search.weights["lm"] == 0.4
    assert set(search.scorers) == {"ctc", "lm"}
    on, off = (found[f"ours_espnet_beam10_lm_skip_{switch}"] for switch in ("on", "off"))
    assert (on.full_depth, off.full_depth) == ("ours_espnet_beam10_lm_skip_off", "")
    ours = on.system.speech2text
    assert (ours.decoder_type, ours.drop_threshold) == ("espnet", 0.99)
    assert set(ours.beam_search.scorers) == {"ctc", "lm"}
    speech = data.speech[0]
    for row in (found["stock_beam10_lm"], on, off):
        text, _, flops = row.system.transcribe(speech)
        assert isinstance(text, str)
        assert flops == 0
    assert on.system.transcribe(speech)[1].num_skipped > 0


def test_a_calibrated_choice_of_gates_is_kept(tmp_path):
    exp = make_experiment(tmp_path / "exp", gates=(1, 3))
    write_calibration(exp, 0.5, gates=(1,))
    for given, gates in (((), "gates=1"), (("gates=3",), "gates=3")):
        found = e2e(exp, *given, greedy=True)
        for name in ("ours_greedy_skip_on", "ours_prefix_beam_skip_on"):
            assert found[name].system.describe().endswith(gates)
