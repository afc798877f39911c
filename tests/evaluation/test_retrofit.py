import logging
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from espnet_layerskip.evaluation.retrofit_data import Corpus, check_labels, examples, hold_out
from espnet_layerskip.evaluation.retrofit_model import default_gates, with_own_files


def corpus(speakers, utterances, copies=False):
    utt2spk = {f"s{s}-u{u}": f"s{s}" for s in range(speakers) for u in range(utterances)}
    if copies:
        utt2spk |= {f"sp0.9-{utt}": f"sp0.9-{spk}" for utt, spk in utt2spk.items()}
    names = sorted(utt2spk)
    return Corpus("train", dict.fromkeys(names, "a.wav"), dict.fromkeys(names, "A"), utt2spk)


def test_whole_speakers_are_held_out_with_their_copies():
    train, dev = hold_out(corpus(20, 5, copies=True), 0.1, seed=0)
    held = {dev.utt2spk[utt] for utt in dev.wav}
    assert len(held) == 2
    assert len(dev.wav) == len(dev.text) == 10  # without the copies
    assert not any(utt.startswith("sp") for utt in dev.wav)
    assert len(train.wav) == 180
    assert not held & {spk.removeprefix("sp0.9-") for spk in train.utt2spk.values()}
    assert dev.name == "10 % of train"
    partly = corpus(20, 5)
    del partly.text[min(dev.wav)]
    assert hold_out(partly, 0.1, seed=0)[1].wav.keys() == dev.wav.keys() - {min(dev.wav)}
    assert hold_out(corpus(20, 5), 0.1, seed=1)[1].wav != hold_out(corpus(20, 5), 0.1, 0)[1].wav


def test_of_few_speakers_utterances_are_held_out():
    train, dev = hold_out(corpus(2, 20, copies=True), 0.1, seed=0)
    assert len(dev.wav) == 4
    assert len(train.wav) == 72
    with pytest.raises(ValueError, match="train: 1 utterances are too few to hold out 10 %"):
        hold_out(corpus(1, 1), 0.1, seed=0)


def test_what_is_learnt_from(tmp_path, caplog):
    for name, seconds in (("a", 1.0), ("b", 0.1), ("c", 31.0), ("d", 2.0)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(int(8000 * seconds)), 8000)
    wav = {name: str(tmp_path / f"{name}.wav") for name in "abcd"}
    data = Corpus("x", wav, {}, {})
    with caplog.at_level(logging.WARNING):
        found = examples(data, 16000, {"a": ["B", "A"], "b": ["A"]}, ["<blank>", "A", "B"])
    assert [e.utt_id for e in found] == ["a", "d"]
    assert found[0].label is not None
    assert found[0].label.tolist() == [2, 1]
    assert found[1].label is None
    assert "2 utterances are left out, shorter than 0.3 s or longer than 30 s: b, c" in caplog.text


def test_few_unknown_tokens_are_passed_over_with_a_warning(caplog):
    split = {"u1": ["A"] * 100, "u2": ["Q"]}
    with caplog.at_level(logging.WARNING):
        check_labels("x", split, {"u2": {"Q"}})
    assert "1 of 101 tokens in 1 transcripts" in caplog.text
    assert "'Q' (utterances u2); these transcripts are not used" in caplog.text
    with pytest.raises(ValueError, match="write the transcripts as those"):
        check_labels("x", {"u1": ["A"] * 98, "u2": ["Q"]}, {"u2": {"Q"}})


@pytest.mark.parametrize(
    ("layers", "trained", "gates"),
    [(8, (2, 4, 6), (4,)), (6, (2, 4), (4,)), (12, (), (6,)), (12, (2,), (6,)), (5, (3,), (3,))],
)
def test_the_usual_gate_is_near_the_middle(layers, trained, gates):
    assert default_gates(SimpleNamespace(num_layers=layers, trained=trained)) == gates


def test_files_that_a_configuration_names_come_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one/stats.npz", "two/stats.npz", "m.model"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    config = {
        "normalize_conf": {"stats_file": str(tmp_path / "one/stats.npz")},
        "frontend_conf": {"x": [str(tmp_path / "two/stats.npz")], "fs": "16k"},
        "bpemodel": str(tmp_path / "m.model"),
        "token_list": ["a/b"],
        "train_data_path_and_name_and_type": [[str(tmp_path / "m.model"), "x", "y"]],
    }
    found, copies = with_own_files(config, tmp_path / "out")
    assert found["normalize_conf"]["stats_file"] == "out/stats.npz"
    assert found["frontend_conf"] == {"x": ["out/1_stats.npz"], "fs": "16k"}
    assert found["bpemodel"] == "out/m.model"
    assert [path.read_text() for path in copies] == ["one/stats.npz", "two/stats.npz", "m.model"]
    assert found["token_list"] == ["a/b"]
    assert found["train_data_path_and_name_and_type"] == config["train_data_path_and_name_and_type"]
