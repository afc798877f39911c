"""Long audio through a model: what the segments give is what the whole gives."""

import logging
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from espnet_layerskip.cli import main
from espnet_layerskip.inference import espnet_search
from espnet_layerskip.inference.speech2text import load_model
from espnet_layerskip.recipe.train_ngram import count_ngrams, estimate, write_arpa
from tests.support.numerics import assert_same, relative_error

FS = 16000
SIZES = {"segment_size": 4.0, "hop_size": 2.0}


@pytest.fixture(scope="module")
def wave(waves):
    return np.concatenate([*waves, *waves[::-1], *waves])


@pytest.fixture(scope="module")
def exp(models, exp_maker, wave, tmp_path_factory):
    """A model whose normalisation does not depend on the utterance."""
    root = tmp_path_factory.mktemp("long")
    frontend = load_model(models["skip"]).asr_model.frontend
    feats, _ = frontend(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))
    stats = {"count": feats.size(1), "sum": feats[0].sum(0), "sum_square": feats[0].square().sum(0)}
    np.savez(root / "stats.npz", **{name: np.asarray(value) for name, value in stats.items()})
    exp = exp_maker(root / "skip", "skip", str(root / "stats.npz"))
    state = torch.load(exp / "valid.loss.ave.pth")
    state["ctc.ctc_lo.bias"][0] = -2.0  # so that there are tokens at all
    torch.save(state, exp / "valid.loss.ave.pth")
    return exp


def limit_context(speech2text):
    """Turn attention off: what is left sees three convolutions of 7 frames, and the STFT."""
    encoder = speech2text.asr_model.encoder
    with torch.no_grad():
        for layer in encoder.encoders:
            for parameter in layer.self_attn.linear_out.parameters():
                parameter.zero_()
        speech2text.asr_model.ctc.ctc_lo.bias[0] = 4.0  # so that a part is blank
    encoder.optimize_for_inference()
    encoder.min_spike_ratio = 0.0  # a share of the utterance, or of the segment
    return speech2text


def load(exp, limited=True, **options):
    speech2text = load_model(exp, **{"decoder_type": "greedy", **options})
    return limit_context(speech2text) if limited else speech2text


def record(speech2text, wave):
    """Return the posteriors (T, V) and the kept frames that reach the decoder."""
    seen = []
    stream = speech2text.ctc_decoder.stream()
    accept = stream.accept
    stream.accept = lambda *part: seen.append(part) or accept(*part)
    speech2text.ctc_decoder.stream = lambda: stream
    speech2text(wave)
    del speech2text.ctc_decoder.stream
    return tuple(torch.cat(parts) for parts in zip(*seen, strict=True))


def whole_posteriors(speech2text, wave):
    from espnet_layerskip.inference.posteriors import encode, extract_features

    with torch.inference_mode():
        feats = extract_features(speech2text.asr_model, torch.from_numpy(wave))
        encoded = encode(speech2text.asr_model, [feats])
        return encoded.log_softmax(speech2text.asr_model.ctc)[0], encoded.keep_mask[0]


@pytest.mark.numerics
@pytest.mark.parametrize("context", ["packed_original", "full"])
def test_stitched_posteriors_equal_the_whole(exp, wave, context):
    model = load(exp, skip_context=context, **SIZES)
    expected, kept = whole_posteriors(model, wave)
    assert 0.1 < kept.float().mean() < 0.9
    log_probs, keep_mask = record(model, wave)
    assert log_probs.shape == expected.shape
    assert_same(log_probs, expected, rtol=1e-5)
    assert torch.equal(keep_mask, kept)


@pytest.mark.numerics
def test_with_hardly_any_overlap_they_differ(exp, wave):
    """Negative control."""
    model = load(exp, segment_size=4.0, hop_size=3.7)
    expected, _ = whole_posteriors(model, wave)
    log_probs, _ = record(model, wave)
    assert log_probs.shape == expected.shape
    assert relative_error(log_probs, expected) > 1e-3


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    root = tmp_path_factory.mktemp("lm")
    sentences = [["AB", "C"], ["C", "DE"], ["AB", "DE", "C"]]
    write_arpa(root / "word.arpa", *estimate(count_ngrams(sentences, 2)))
    (root / "words.txt").write_text("A\nAB\nB\nC\nD\nDE\nE\n")
    return {"ngram_file": root / "word.arpa", "lexicon": root / "words.txt"}


@pytest.mark.numerics
@pytest.mark.parametrize("decoder_type", ["greedy", "prefix_beam", "ngram"])
def test_transcript_times_and_counts_are_those_of_the_whole(exp, wave, lm, decoder_type):
    options = {"decoder_type": decoder_type, **(lm if decoder_type == "ngram" else {})}
    whole = load(exp, segment_size="off", **options)
    [(text, _, _, expected), *_] = whole(wave)
    assert len(text) > (5 if decoder_type == "ngram" else 50)
    cut = load(exp, **SIZES, **options)
    assert cut.longest_whole == 8.0 < len(wave) / FS
    for speech in (wave, torch.from_numpy(wave)):
        [(_, _, _, hyp), *_] = cut(speech)
        assert hyp.score == pytest.approx(expected.score, rel=1e-5)
        assert hyp.scores == pytest.approx(expected.scores, rel=1e-5)
        assert hyp._replace(score=0.0, scores={}) == expected._replace(score=0.0, scores={})
        assert cut.last_skips == whole.last_skips
    assert expected.words[-1].end > 8.0
    for batch_size in (1, 3):
        blocks = np.split(wave, range(0, len(wave), 7001))
        [(_, _, token_int, _)] = cut.recognize_blocks(blocks, batch_size=batch_size).nbest
        assert token_int == expected.token_int
        assert cut.last_skips == whole.last_skips


def test_long_and_short_in_one_call(exp, wave, waves):
    model = load(exp, limited=False, **SIZES)
    speech = [waves[0], wave, waves[1], np.zeros(100, np.float32), waves[2]]
    alone, skips = [], []
    for one in speech:
        alone.append(model(one)[0][2])
        skips += model.last_skips
    assert skips[1].num_frames > 4 * skips[4].num_frames
    for batch_size in (None, 1, 2, 8):
        together = model.decode_batch(speech, batch_size=batch_size)
        assert [nbest[0][2] for nbest in together] == alone
        assert model.last_skips == skips
    with pytest.raises(ValueError, match="batch_size must be at least 1, but got 0"):
        model.decode_batch(speech[:1], batch_size=0)


def test_ordinary_utterances_are_untouched(exp, wave):
    default, off = load(exp, limited=False), load(exp, limited=False, segment_size="off")
    assert default.longest_whole == 30.0
    assert off.longest_whole == float("inf")
    default._frame_sync.blocks = None  # would raise
    assert default(wave)[0][3] == off(wave)[0][3]


def test_stock_encoders_early_exit_and_int8(models, exp, wave):
    for kind, options in (
        ("stock", {}),
        ("skip", {"exit_layer": 1}),
        ("skip", {"precision": "int8"}),
    ):
        cut = load_model(models[kind], decoder_type="greedy", **SIZES, **options)
        whole = load_model(models[kind], decoder_type="greedy", segment_size="off", **options)
        assert cut.decode_batch([wave], batch_size=2)[0][0][0]
        whole(wave)
        assert cut.last_skips[0].num_frames == whole.last_skips[0].num_frames
        if kind == "stock":
            assert cut.last_skips[0].num_skipped == 0
        if "exit_layer" in options:
            assert cut.last_skips == whole.last_skips


def test_memory_does_not_grow_with_the_audio(exp, wave):
    model = load(exp, limited=False, **SIZES)
    with torch.no_grad():  # a transcript does grow
        model.asr_model.ctc.ctc_lo.bias[0] += 1000
    peaks = []
    for repeats in (4, 8):
        tracemalloc.start()
        model.recognize_blocks(wave for _ in range(repeats))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 0.1 * wave.nbytes, peaks


def test_no_audio_at_all(exp, caplog):
    model = load(exp, limited=False, **SIZES)
    with caplog.at_level(logging.WARNING):
        assert model.recognize_blocks([], "void").nbest[0][:3] == ("", [], [])
        assert load(exp, False, segment_size="off").recognize_blocks([]).nbest[0][:3] == (
            "",
            [],
            [],
        )
    assert "void has 0 samples and is too short" in caplog.text


def test_espnets_search_refuses_long_audio(models, waves, monkeypatch):
    model = load_model(models["hybrid"], beam_size=2)
    assert model.longest_whole == 120.0
    monkeypatch.setattr(espnet_search, "LONGEST", 1.0)
    assert model(waves[0])[0][2]
    with pytest.raises(ValueError, match="^x is too long for ESPnet's search.*segment_size to off"):
        model.decode_batch([waves[2]], ["x"])
    with pytest.raises(ValueError, match="^utterance is too long for ESPnet's search"):
        model.recognize_blocks([waves[2]])
    off = load_model(models["hybrid"], beam_size=2, segment_size="off")
    assert off(waves[2])[0][2]


def test_each_segment_is_preprocessed(exp, wave):
    model = load(exp, limited=False, **SIZES)
    seen = []
    model.recognize_blocks([wave], prepare=lambda samples: seen.append(len(samples)) or samples)
    assert seen[:-1] == [4 * FS] * (len(seen) - 1)
    assert len(seen) == 4


def test_transcribe_reads_long_files_in_blocks(
    exp, wave, waves, capsys, caplog, monkeypatch, tmp_path
):
    long, short, other = tmp_path / "long.flac", tmp_path / "short.wav", tmp_path / "other.wav"
    soundfile.write(long, wave, FS)
    soundfile.write(short, waves[0], FS, subtype="FLOAT")
    soundfile.write(other, np.stack([wave[::2]] * 2, 1), FS // 2)  # resampled and mixed
    samples, _ = soundfile.read(long, dtype="float32")
    model = load(exp, limited=False, **SIZES)
    sizes = ["--segment-size", "4", "--hop-size", "2", "--times", str(tmp_path / "t.ctm")]
    command = ["transcribe", "--model", str(exp), *sizes, "--batch-size", "2"]
    assert main([*command, str(long), str(short), str(tmp_path / "none.wav"), str(other)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"long {model(samples)[0][0]}".rstrip(),
        f"short {model(waves[0])[0][0]}".rstrip(),
    ]
    assert lines[2].startswith("other ")
    last = [x.split() for x in (tmp_path / "t.ctm").read_text().splitlines() if x[0] == "l"][-1]
    assert 6.0 < float(last[2]) + float(last[3]) <= len(wave) / FS
    monkeypatch.setattr(espnet_search, "LONGEST", 1.0)
    assert main([*command, "--decoder", "espnet", "--beam-size", "2", str(long), str(short)]) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["short"]
    assert "long failed: long is too long for ESPnet's search" in caplog.text
