"""The runtime gives what our Speech2Text gives, with the same options."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from espnet_layerskip.export import Speech2Text, load_model
from espnet_layerskip.inference.speech2text import load_model as load_eager
from tests.support.recognizers import FS

pytestmark = pytest.mark.numerics


def summary(found):
    text, token, token_int, hyp = found.nbest[0]
    return text, token, token_int, hyp.token_frames, hyp.token_ends, found.skips


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory):
    path = tmp_path_factory.mktemp("lexicon") / "words.txt"
    path.write_text("AB\nCAD\nE\nBE B E\nDD\n")
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"blank_threshold": "off"},
        {"blank_threshold": 0.4, "spike_extension": "2,0"},
        {"exit_layer": 1},
        {"decoder_type": "prefix_beam", "beam_size": 5, "nbest": 3},
        {"decoder_type": "ngram", "lexicon": True, "drop_threshold": "off"},
    ],
    ids=str,
)
def test_as_our_speech2text(models, exported, waves, lexicon, options):
    if "lexicon" in options:
        options = {**options, "lexicon": lexicon}
    theirs = Speech2Text(exported, **options)
    eager = load_eager(models["skip"], **{"decoder_type": "greedy", **options})
    for batch_size in (1, None):
        found = theirs.recognize(waves, batch_size=batch_size)
        expected = eager.recognize(waves, batch_size=batch_size)
        assert [summary(f) for f in found] == [summary(e) for e in expected]
        for a, b in zip(found, expected, strict=True):
            assert [e[2] for e in a.nbest] == [e[2] for e in b.nbest]
            assert a.nbest[0][3].score == pytest.approx(b.nbest[0][3].score, abs=1e-3)
            assert a.nbest[0][3].words == b.nbest[0][3].words
    assert len({text for text, *_ in (f.nbest[0] for f in found)}) > 1


def test_calling_it(exported, eager, waves):
    text, token, token_int, hyp = Speech2Text(exported)(waves[0])[0]
    expected = eager(waves[0])[0]
    assert (text, token, token_int) == expected[:3]
    assert hyp.token_times == expected[3].token_times


def test_confidences_are_those_of_the_model_that_was_exported(exported, eager, waves):
    models = Speech2Text(exported), eager, Speech2Text(exported, confidence_temperature=1.0)
    same, expected, plain = (
        [word.confidence for word in model(waves[0])[0][3].words] for model in models
    )
    assert same
    assert same == pytest.approx(expected, abs=1e-4) != pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"decoder_type": "prefix_beam"}], ids=str)
def test_a_copy_gives_the_same(exported, waves, options, monkeypatch):
    monkeypatch.chdir(exported.parent)
    speech2text = Speech2Text(exported.name, num_threads=np.int64(1), **options)
    expected, whole = summary(speech2text.recognize(waves)[0]), pickle.dumps(speech2text)
    monkeypatch.chdir("/")
    for one in (pickle.loads(whole), copy.deepcopy(speech2text), copy.copy(speech2text)):
        assert summary(one.recognize(waves)[0]) == expected


def test_tensors(exported, waves):
    speech2text, wave = Speech2Text(exported), torch.from_numpy(waves[0])
    expected = summary(speech2text.recognize([waves[0]])[0])
    for tensor in (wave, wave.clone().requires_grad_()):
        assert summary(speech2text.recognize([tensor])[0]) == expected
        assert summary(speech2text.recognize_blocks(tensor.split(5000))) == expected
    assert speech2text(wave.bfloat16())


@pytest.mark.parametrize("batch_size", [1, 3])
def test_long_audio_in_segments(models, exported, waves, batch_size):
    options = {"segment_size": 1.0, "hop_size": 0.6, "decoder_type": "greedy"}
    theirs, eager = Speech2Text(exported, **options), load_eager(models["skip"], **options)
    long = np.concatenate([*waves, *waves])
    assert len(long) / FS > theirs.longest_whole == eager.longest_whole == 2.0
    expected = eager.recognize_blocks([long], "long", batch_size)
    found = theirs.recognize_blocks(np.array_split(long, 7), "long", batch_size)
    assert summary(found) == summary(expected)
    assert summary(theirs.recognize([long])[0]) == summary(expected)


def test_short_audio_runs_at_full_depth(exported, waves):
    speech2text, whole = Speech2Text(exported), Speech2Text(exported, blank_threshold="off")
    assert speech2text.recognize(waves)[0].skips.num_skipped > 0
    frames = max(map(len, waves)) // speech2text.description.frame + 1
    speech2text._inputs["min_skipped_frames"] = np.array(4 * frames // 5 + 1)
    speech2text._session = None  # the graph with gates is not run at all
    for found, expected in zip(speech2text.recognize(waves), whole.recognize(waves), strict=True):
        assert summary(found) == summary(expected)
        assert found.skips.num_skipped == 0


def test_many_threads_share_one(exported, waves):
    speech2text = Speech2Text(exported, num_threads=1)
    expected = [speech2text(wave)[0][0] for wave in waves]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda wave: speech2text(wave)[0][0], waves * 5))
    assert found == expected * 5


def test_the_shortest_and_the_longest_input(exported, eager, caplog):
    speech2text = Speech2Text(exported, segment_size="off")
    shortest, longest = speech2text.description.shortest, speech2text.description.longest
    noise = np.random.default_rng(0).normal(size=longest + 1).astype(np.float32)
    [found] = speech2text.recognize([noise[: shortest - 1]], ["u1"])
    assert found.nbest[0][:3] == ("", [], [])
    assert f"u1 has {shortest - 1} samples and is too short, {shortest} are" in caplog.text
    assert speech2text.recognize([noise[:shortest]])[0].skips.num_frames == 1
    assert eager.recognize([noise[:shortest]])[0].skips.num_frames == 1
    assert eager.recognize([noise[: shortest - 1]])[0].skips.num_frames == 0
    frames = speech2text.recognize([noise[:longest]])[0].skips.num_frames
    assert frames == eager.recognize([noise[:longest]])[0].skips.num_frames
    with pytest.raises(ValueError, match=r"u2 has 4\.0 s, and the exported graph takes up to 4 s"):
        speech2text.recognize([noise], ["u2"])
    assert speech2text.recognize([]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_type": "espnet"}, "decoder_type of an exported model must be one of greedy"),
        ({"precision": "int8"}, "was exported with precision float32"),
        ({"skip_context": "packed"}, "was exported with skip_context full"),
        ({"exit_layer": 2}, "exit_layer can only be 1, but got 2"),
        ({"blank_threshold": (0.5, 0.6, 0.7)}, r"one for each of the gate layers \[1, 2\]"),
        ({"segment_size": 15}, r"segment_size must be at most 2 s.*takes up to 4 s"),
        ({"device": "tpu"}, "device must be cpu"),
        ({"num_threads": 0}, "num_threads must be at least 1, but got 0"),
        ({"num_threads": 1.5}, "num_threads must be at least 1, but got 1.5: a whole number"),
    ],
)
def test_options_that_do_not_fit(exported, options, message):
    with pytest.raises(ValueError, match=message):
        Speech2Text(exported, **{"segment_size": "off", **options})


def test_what_is_for_trained_models_only(exported):
    with pytest.raises(ValueError, match="--model-file is for trained models"):
        load_model(exported, "valid.loss.ave.pth")
    with pytest.raises(ValueError, match="ctc_weight is for ESPnet's search"):
        load_model(exported, ctc_weight=1.0)
    with pytest.raises(ValueError, match=r"u: samples \(N,\) are needed.* got float64 \(2, 9\)"):
        Speech2Text(exported, segment_size="off").recognize([np.zeros((2, 9))], ["u"])
