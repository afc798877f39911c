"""ESPnet's search over several utterances, and what of its results depends on the encoder."""

import logging

import numpy as np
import pytest
import torch
import yaml
from espnet2.bin.asr_inference import Speech2Text as ESPnetSpeech2Text

from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.inference.espnet_search import can_batch
from espnet_layerskip.inference.posteriors import encode, extract_features
from espnet_layerskip.inference.speech2text import Speech2Text, load_model

BATCHES = hasattr(ESPnetSpeech2Text, "batch_decode")  # ESPnet 202611
LEGACY = {"rel_pos_type": "legacy", "skip_context": "packed"}
needs_batches = pytest.mark.skipif(not BATCHES, reason="ESPnet 202511 searches one at a time")


def with_encoder_conf(exp, directory, **conf):
    """Write a view of an experiment with other options of its encoder."""
    config = yaml.safe_load((exp / "config.yaml").read_text())
    config["encoder_conf"].update(conf)
    directory.mkdir()
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    (directory / "valid.loss.ave.pth").symlink_to(exp / "valid.loss.ave.pth")
    return directory


def plain(results):
    return [[(text, ids) for text, _, ids, _ in nbest] for nbest in results]


@needs_batches
@pytest.mark.numerics
def test_batches_are_searched_together_with_the_results_of_one_at_a_time(models, waves, caplog):
    speech2text = load_model(models["hybrid"], beam_size=3, nbest=2, batch_size=4)
    assert can_batch(speech2text)
    sizes = []
    search = type(speech2text.beam_search).forward

    def noted(self, x, *args, **kwargs):
        sizes.append(len(x) if x.dim() == 3 else 1)
        return search(self, x, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(speech2text.beam_search), "forward", noted)
        with caplog.at_level(logging.INFO):
            found = speech2text.recognize(waves)
        alone = [speech2text.recognize([wave])[0] for wave in waves]
    assert sizes == [len(waves)] + [1] * len(waves)
    assert [f"speech length: {len(w)}" for w in waves] == [
        r.getMessage() for r in caplog.records if "speech length" in r.getMessage()
    ]
    assert plain(r.nbest for r in found) == plain(r.nbest for r in alone)
    assert [r.skips for r in found] == [r.skips for r in alone]
    assert sum(r.skips.num_skipped for r in found) > 0
    for one, other in zip(found, alone, strict=True):
        assert one.nbest[0][3].score == pytest.approx(other.nbest[0][3].score, rel=1e-4)
        assert one.nbest[0][3].token_frames == other.nbest[0][3].token_frames


@needs_batches
def test_a_stock_model_is_encoded_alone_and_searched_together(models, waves):
    ours = load_model(models["stock"], beam_size=2)
    assert plain(ours.decode_batch(waves)) == plain([ours(wave) for wave in waves])
    with pytest.raises(NotImplementedError):  # as ESPnet's class
        load_model(models["stock"], beam_size=2, batch_size=2, time_sync=True)


@needs_batches
def test_a_batch_that_does_not_fit_is_halved(models, waves, monkeypatch, caplog):
    speech2text = load_model(models["skip"], beam_size=1)
    expected = plain([speech2text(wave) for wave in waves])
    encoder, sizes = speech2text.asr_model.encoder, []
    run = encoder.run

    def small(x, *args, **kwargs):
        sizes.append(len(x))
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        return run(x, *args, **kwargs)

    monkeypatch.setattr(encoder, "run", small)
    assert plain(speech2text.decode_batch(waves)) == expected
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    assert "Out of memory with a batch of 4 utterances" in caplog.text


@pytest.mark.parametrize("options", [{"beam_size": 1}, {"decoder_type": "greedy"}])
def test_an_utterance_that_does_not_fit_alone_is_named(models, waves, monkeypatch, options):
    speech2text = load_model(models["skip"], **options)

    def never(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    def wrong(*args, **kwargs):
        raise RuntimeError("not that")

    monkeypatch.setattr(speech2text.asr_model.encoder, "run", never)
    with pytest.raises(RuntimeError, match=f"single utterance of {len(waves[1])} samples"):
        speech2text([waves[1], waves[1]])
    monkeypatch.setattr(speech2text.asr_model.encoder, "run", wrong)
    with pytest.raises(RuntimeError, match="not that"):
        speech2text([waves[1], waves[1]])


def test_a_search_that_takes_no_batches_says_so_once(models, waves, caplog):
    speech2text = load_model(models["skip"], beam_size=1, drop_threshold=0.9)
    for _ in range(2):
        assert len(speech2text.decode_batch(waves[:2])) == 2
    speech2text.decode_batch(waves[:2], batch_size=1)
    notes = [r for r in caplog.records if "one at a time" in r.getMessage()]
    assert len(notes) == 1


@pytest.mark.parametrize("kind", ["skip", "stock"])
def test_tokens_of_intermediate_layers_as_from_espnets_class(models, waves, tmp_path, kind):
    exp = with_encoder_conf(models[kind], tmp_path / "exp", interctc_layer_idx=[1])
    nbest, tokens = load_model(exp, beam_size=1)(waves[0])
    assert list(tokens) == [1]  # without the gates' layers
    assert set(tokens[1]) <= set("ABCDE") | {"<unk>", "<space>"}
    theirs = ESPnetSpeech2Text(
        exp / "config.yaml", exp / "valid.loss.ave.pth", beam_size=1, ctc_weight=1.0
    )
    if kind == "stock":
        expected, expected_tokens = theirs(waves[0])
        assert (nbest[0][0], tokens) == (expected[0][0], expected_tokens)
    else:  # in ESPnet's class an encoder of ours gives a plain list, as asr_align and k2 need it
        assert isinstance(theirs(waves[0]), list)
        assert isinstance(theirs.asr_model.encode(*_batch(waves[0]))[0], torch.Tensor)
    greedy = load_model(exp, decoder_type="greedy")(waves[0])
    assert isinstance(greedy, list)


def _batch(wave):
    return torch.from_numpy(wave)[None], torch.tensor([len(wave)])


@pytest.mark.numerics
@pytest.mark.parametrize("options", [{"decoder_type": "greedy"}, {"beam_size": 1}])
def test_with_legacy_positions_a_batch_changes_nothing(models, waves, tmp_path, options):
    exp = with_encoder_conf(models["skip"], tmp_path / "exp", **LEGACY)
    speech2text = load_model(exp, **options)
    found, alone = speech2text.recognize(waves), [speech2text.recognize([w])[0] for w in waves]
    assert plain(r.nbest for r in found) == plain(r.nbest for r in alone)
    assert [r.skips for r in found] == [r.skips for r in alone]
    assert sum(r.skips.num_skipped for r in found) > 0


@pytest.mark.numerics
def test_with_legacy_positions_padding_would_change_the_output(models, waves, tmp_path):
    """The negative control, and ESPnet's own way into the encoder."""
    exp = with_encoder_conf(models["skip"], tmp_path / "exp", **LEGACY)
    model = load_model(exp, decoder_type="greedy").asr_model
    with torch.inference_mode():
        feats = [extract_features(model, torch.from_numpy(wave)) for wave in waves]
        alone = [encode(model, [f]).out[0] for f in feats]

        def difference():
            encoded = encode(model, feats)
            rows = zip(encoded.out, alone, strict=True)
            return max(float((out[: len(one)] - one).abs().max()) for out, one in rows)

        assert difference() < 1e-5
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LayerSkipEncoder, "padding_invariant", True)
            assert difference() > 1e-3


@pytest.mark.parametrize(
    "options",
    [{"multi_asr": True}, {"enh_s2t_task": True}, {"hugging_face_decoder": True}],
)
def test_what_is_left_to_espnets_class_is_named(models, options):
    [name] = options
    with pytest.raises(ValueError, match=f"{name} is not supported here: use espnet2"):
        Speech2Text(models["skip"] / "config.yaml", **options)


def test_a_model_with_an_encode_of_its_own_is_asked(models, waves, monkeypatch):
    speech2text = load_model(models["stock"], beam_size=1)
    model, asked = speech2text.asr_model, []
    encode_ = model.encode

    def own(speech, speech_lengths):
        asked.append(speech_lengths.tolist())
        return encode_(speech, speech_lengths)

    expected = plain([speech2text(waves[0])])
    monkeypatch.setattr(model, "encode", own)
    assert plain([speech2text(waves[0])]) == expected
    assert asked == [[len(waves[0])]]


def test_quantized_factorized_head_in_espnets_own_class(models, waves):
    config, checkpoint = models["skip"] / "config.yaml", models["skip"] / "valid.loss.ave.pth"
    theirs = ESPnetSpeech2Text(
        config, checkpoint, beam_size=1, ctc_weight=1.0, quantize_asr_model=True
    )
    assert "quantized" in type(theirs.asr_model.ctc.ctc_lo).__module__
    assert isinstance(theirs(waves[0].astype(np.float32))[0][0], str)
