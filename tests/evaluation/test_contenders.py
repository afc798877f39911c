import argparse

import pytest
import torch
import yaml
from espnet2.tasks.lm import LMTask

from espnet_layerskip.evaluation import contenders
from espnet_layerskip.evaluation.contenders import Contenders, LanguageModel, NeuralLM
from espnet_layerskip.evaluation.entries import Entry, WaveFiles
from espnet_layerskip.evaluation.inputs import load_test_set
from espnet_layerskip.evaluation.settings import parse_settings
from tests.support.experiments import TOKENS, make_experiment, write_calibration

UNIGRAMS = "".join(
    f"-1\t{token}\t0\n" for token in ("<s>", "</s>", "<unk>", "<space>", *"ABCDEFGH")
)
ARPA = f"\\data\\\nngram 1=12\n\n\\1-grams:\n{UNIGRAMS}\n\\end\\\n"
BIGRAM = ARPA.replace("1=12\n", "1=12\nngram 2=1\n").replace(
    "\n\\end", "\n\\2-grams:\n-0.5\tA B\n\n\\end"
)


def rows(contenders, tmp_path):
    return contenders.entries(["e2e"], WaveFiles(tmp_path))["e2e"]


def load(model, *skip, lm=None, neural_lm=None, **twins):
    twins = {label: str(exp) for label, exp in twins.items()}
    return Contenders.load(str(model), None, parse_settings(skip), twins, lm, neural_lm)


def test_where_our_weights_do_not_fit_a_stock_twin_can_be_the_rival(exps, tmp_path):
    found = rows(load(exps["narrow"]), tmp_path)
    assert "a twin named stock can take its place" in found["stock_beam10"]
    found = rows(load(exps["narrow"], stock=exps["stock"]), tmp_path)
    assert isinstance(found["stock_beam10"], Entry)
    assert isinstance(found["stock_beam1"], Entry)
    assert "beam 10" in found["stock_beam10"].settings


def test_long_inputs_are_not_cut(exps, tmp_path):
    loaded = load(exps["ours"], stock=exps["stock"])
    found = rows(loaded, tmp_path)
    names = ("ours_greedy_skip_on", "ours_prefix_beam_skip_on", "twin_stock_greedy")
    for name in names:
        assert found[name].source.experiment.speech2text.longest_whole == float("inf")


def test_ngram_rows(exps, tmp_path, monkeypatch):
    arpa, words = tmp_path / "a.arpa", tmp_path / "words"
    arpa.write_text(ARPA)
    words.write_text("A\nB\n")
    monkeypatch.setattr(contenders.importlib.util, "find_spec", lambda name: None)
    found = rows(load(exps["plain"], lm=LanguageModel(arpa)), tmp_path)
    assert isinstance(found["ours_ngram_skip_on"], Entry)
    assert "pip install kenlm" in found["stock_beam10_ngram"]
    found = rows(load(exps["plain"], lm=LanguageModel(arpa, words)), tmp_path)
    assert isinstance(found["ours_ngram_skip_off"], Entry)
    assert "over tokens" in found["stock_beam10_ngram"]


def test_ngram_in_espnets_search(exps, tmp_path):
    pytest.importorskip("kenlm")
    arpa = tmp_path / "a.arpa"
    arpa.write_text(BIGRAM)
    lm = LanguageModel(arpa)
    stock = rows(load(exps["plain"], lm=lm), tmp_path)["stock_beam10_ngram"]
    assert set(stock.source.beam_search.scorers) == {"ctc", "ngram"}
    arpa.write_text(ARPA)
    found = rows(load(exps["plain"], lm=lm), tmp_path)
    assert isinstance(found["ours_ngram_skip_on"], Entry)
    assert "at least a bigram" in found["stock_beam10_ngram"]  # kenlm's own limit


@pytest.fixture(scope="module")
def lm_exp(tmp_path_factory):
    """Write an untrained language model of ESPnet."""
    directory = tmp_path_factory.mktemp("lm")
    config = LMTask.get_default_config()
    config |= {"token_list": TOKENS, "token_type": "char", "init": None, "lm": "seq_rnn"}
    config |= {"lm_conf": {"unit": 4, "nlayers": 1}, "model": "lm", "model_conf": {}}
    model = LMTask.build_model(argparse.Namespace(**config))
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), directory / "valid.loss.ave.pth")
    return directory


def test_a_neural_language_model_in_espnets_search(exps, tmp_path, lm_exp, data_dir):
    found = rows(load(exps["plain"], neural_lm=NeuralLM(lm_exp, 0.4)), tmp_path)
    search = found["stock_beam10_lm"].source.beam_search
    assert search.weights["lm"] == 0.4
    assert set(search.scorers) == {"ctc", "lm"}
    on, off = (found[f"ours_espnet_beam10_lm_skip_{switch}"] for switch in ("on", "off"))
    assert (on.full_depth, off.full_depth) == ("ours_espnet_beam10_lm_skip_off", "")
    ours = on.source.experiment.speech2text
    assert (ours.decoder_type, ours.drop_threshold) == ("espnet", 0.99)
    assert set(ours.beam_search.scorers) == {"ctc", "lm"}
    speech = load_test_set(data_dir, 16000).speech[0]
    for entry in (found["stock_beam10_lm"], on, off):
        entry.prepare()
        assert isinstance(entry.transcribe(speech), str)
        run = entry.bind([speech])
        run()


def test_a_calibrated_choice_of_gates_is_kept(tmp_path):
    exp = make_experiment(tmp_path / "exp", gates=(1, 3))
    write_calibration(exp, 0.5, gates=(1,))
    for given, gates in (((), "gates=1"), (("gates=3",), "gates=3")):
        found = rows(load(exp, *given), tmp_path)
        for name in ("ours_greedy_skip_on", "ours_prefix_beam_skip_on"):
            assert found[name].settings.endswith(gates)
