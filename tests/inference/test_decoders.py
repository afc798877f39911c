"""Every decoder through Speech2Text and the command line."""

from types import SimpleNamespace

import pytest
import torch

from espnet_layerskip.cli import main
from espnet_layerskip.inference.espnet_arguments import take_search_arguments
from espnet_layerskip.inference.speech2text import load_model
from espnet_layerskip.inference.times import ctm_lines, frame_samples, word_times
from espnet_layerskip.recipe.train_ngram import count_ngrams, estimate, write_arpa


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """Options of an n-gram over characters, and of one over words with a lexicon."""
    root = tmp_path_factory.mktemp("lm")
    words = [["AB", "C"], ["C", "DE"], ["AB", "DE", "C"]]
    chars = [[t for c in " ".join(s) for t in ("<space>" if c == " " else c,)] for s in words]
    for name, sentences in (("word", words), ("char", chars)):
        write_arpa(root / f"{name}.arpa", *estimate(count_ngrams(sentences, 2)))
    (root / "words.txt").write_text("AB\nC\nDE\n")
    return {
        "char": {"ngram_file": root / "char.arpa"},
        "word": {"ngram_file": root / "word.arpa", "lexicon": root / "words.txt"},
        "lexicon": {"lexicon": root / "words.txt"},
    }


def decoders(lm):
    yield {"decoder_type": "prefix_beam"}
    for options in lm.values():
        yield {"decoder_type": "ngram", **options}
    yield {"decoder_type": "espnet", "beam_size": 3}
    yield {"decoder_type": "espnet", "beam_size": 3, "drop_threshold": 0.9}


@pytest.mark.parametrize("kind", ["skip", "hybrid"])
def test_all_decoders_give_the_same_things(models, waves, lm, kind):
    for options in decoders(lm):
        model = load_model(models[kind], nbest=2, **options)
        nbest = model(waves[0])
        assert len(nbest) == 2, options
        assert nbest[0][3].score >= nbest[1][3].score
        for text, token, token_int, hyp in nbest:
            assert (hyp.text, hyp.token, hyp.token_int) == (text, token, token_int)
            if options["decoder_type"] != "espnet" or hyp.token_frames:
                assert len(hyp.token_times) == len(token)
                assert [w.text for w in hyp.words] == text.split()
            times = [t for w in hyp.words for t in (w.start, w.end)]
            assert times == sorted(times)
            assert not times or 0 <= times[0] < times[-1] <= len(waves[0]) / 16000
        if "lexicon" in options:
            whole = nbest[0][0].split()[:-1]
            assert set(whole) <= {"AB", "C", "DE"}


@pytest.mark.parametrize("spikes", [(), (5,), (5, 9)])
def test_espnets_search_ends_where_few_frames_are_left(models, waves, monkeypatch, spikes):
    """Its scorer has no state for a hypothesis of more tokens than frames."""
    model = load_model(
        models["skip"],
        decoder_type="espnet",
        beam_size=3,
        drop_threshold=0.9,
        blank_threshold="off",
    )

    def log_softmax(hs_pad, layer_idx=None, trace=None):
        log_probs = torch.full((*hs_pad.shape[:2], len(model.asr_model.token_list)), -20.0)
        log_probs[..., 0] = -1e-6
        for frame in spikes:
            log_probs[:, frame, 0], log_probs[:, frame, 3] = -5.0, -0.01
        return log_probs

    monkeypatch.setattr(model.asr_model.ctc, "log_softmax", log_softmax)
    [(_, _, token_int, _)] = model(waves[0])
    assert token_int == [3] * len(spikes)


@pytest.mark.parametrize(
    ("decoder", "option", "users"),
    [
        ("greedy", {"lm_file": "x.pth"}, "espnet"),
        ("ngram", {"lm_file": "x.pth"}, "espnet"),
        ("prefix_beam", {"penalty": 0.5}, "ngram and espnet"),
        ("greedy", {"ngram_file": "x.arpa"}, "ngram and espnet"),
        ("espnet", {"lexicon": "words.txt"}, "ngram"),
    ],
)
def test_an_option_that_a_decoder_cannot_use_is_an_error(models, decoder, option, users):
    said = f"{next(iter(option))} is of no use to decoder_type {decoder}, .* decoder_type {users}:"
    with pytest.raises(ValueError, match=said):
        load_model(models["skip"], decoder_type=decoder, **option)


def test_what_a_decoder_needs_is_named(models):
    with pytest.raises(ValueError, match="needs ngram_file, lexicon or both"):
        load_model(models["skip"], decoder_type="ngram")
    with pytest.raises(ValueError, match="drop_threshold needs ESPnet's label-synchronous"):
        load_model(models["skip"], decoder_type="espnet", time_sync=True, drop_threshold=0.9)


def test_transcribe_writes_ctm(models, corpus, lm, capsys, tmp_path):
    ctm = tmp_path / "out.ctm"
    command = ["transcribe", "--model", str(models["skip"]), "--decoder", "ngram"]
    command += ["--ngram-file", str(lm["char"]["ngram_file"]), "--times", str(ctm)]
    assert main([*command, *map(str, corpus.files[:2])]) == 0
    lines = [line.split() for line in ctm.read_text().splitlines()]
    said = capsys.readouterr().out.splitlines()
    assert [[utt, word] for utt, _, _, _, word in lines] == [
        [utt, word] for utt, *words in map(str.split, said) for word in words
    ]
    assert lines
    assert all(channel == "1" and float(a) >= 0 < float(b) for _, channel, a, b, _ in lines)
    assert main([*command[:-1], str(tmp_path / "none/out.ctm"), "a.wav"]) == 2


def test_words_of_pieces_and_of_word_tokens():
    starts, ends = [0.0, 1.0, 2.0], [1.0, 2.0, 3.5]
    words = word_times(["\u2581A", "B", "\u2581C"], starts, ends, "bpe")
    assert ctm_lines("u", words) == ["u 1 0.00 2.00 AB", "u 1 2.00 1.50 C"]
    words = word_times(["\u2581", "B", "C"], starts, ends, "bpe")
    assert [(w.text, w.start, w.end) for w in words] == [("BC", 0.0, 3.5)]
    assert [w.text for w in word_times(["A", "B", "C"], starts, ends, "word")] == ["A", "B", "C"]
    assert word_times(["A"], [], [], "char") == []


def test_seconds_of_a_frame(models):
    model = load_model(models["skip"], decoder_type="greedy")
    assert model.frame_seconds == pytest.approx(128 * 4 / 16000)
    args = SimpleNamespace(encoder_conf={"input_layer": "unheard"})
    assert frame_samples(model.asr_model, args) is None


@pytest.mark.parametrize(
    ("decoder", "options", "said"),
    [
        (
            "greedy",
            {"nbest": 3, "ctc_weight": 0.3},
            "greedy does not heed ctc_weight 0.3, nbest 3 ",
        ),
        ("prefix_beam", {"nbest": 3, "lm_weight": 0.3}, "prefix_beam does not heed lm_weight 0.3 "),
        ("greedy", {"nbest": 1, "ctc_weight": 1.0, "lm_weight": 1.0, "maxlenratio": 0.0}, ""),
        ("espnet", {"nbest": 3, "ctc_weight": 0.3, "maxlenratio": 0.5}, ""),
    ],
)
def test_options_that_a_decoder_does_not_heed_are_said(
    caplog: pytest.LogCaptureFixture, decoder: str, options: dict[str, float], said: str
) -> None:
    """They are no errors: a configuration for ESPnet's search holds them."""
    take_search_arguments(decoder, dict(options))
    assert said in caplog.text
    assert bool(said) == ("does not heed" in caplog.text)
