import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from espnet_layerskip.inference.posteriors import encode, extract_features
from espnet_layerskip.inference.speech2text import ESPnetSpeech2Text, Speech2Text, load_model
from espnet_layerskip.method.settings import OFF, SkipSettings
from tests.support.numerics import assert_same, relative_error


@pytest.fixture(scope="module")
def greedy(models):
    return load_model(models["skip"], decoder_type="greedy")


def log_posteriors(model, feats):
    encoded = encode(model, feats)
    return encoded.log_softmax(model.ctc), encoded.lens


def strings(results):
    return [(nbest[0][0], nbest[0][2]) for nbest in results]


@pytest.mark.numerics
@pytest.mark.parametrize("kind", ["skip", "stock", "hybrid"])
@pytest.mark.parametrize("decoder_type", ["greedy", "espnet"])
def test_alone_equals_batched(models, waves, kind, decoder_type):
    model = load_model(models[kind], decoder_type=decoder_type, beam_size=2, maxlenratio=0.3)
    alone, skips = [], []
    for wave in waves:
        alone.append(model(wave))
        skips += model.last_skips
    assert strings(model.decode_batch(waves)) == strings(alone)
    assert model.last_skips == skips
    assert any(text for text, _ in strings(alone))
    skipped = sum(s.num_skipped for s in skips)
    assert (skipped > 0) == (kind != "stock")
    assert skipped < sum(s.num_frames for s in skips)
    assert model.encoder_seconds > 0
    assert strings(model(waves)) == strings(alone)
    lengths = [len(w) for w in waves]
    padded = np.zeros((len(waves), max(lengths)), np.float32)
    for row, wave in zip(padded, waves, strict=True):
        row[: len(wave)] = wave
    assert strings(model.batch_decode(padded, lengths)) == strings(alone)


@pytest.mark.numerics
@torch.no_grad()
def test_posteriors_alone_equal_batched(greedy, waves):
    model = greedy.asr_model
    feats = [extract_features(model, torch.from_numpy(wave)) for wave in waves]
    batch, lens = log_posteriors(model, feats)
    padded = pad_sequence([torch.from_numpy(w) for w in waves], True)
    raw_feats, raw_lens = model._extract_feats(padded, torch.tensor([len(w) for w in waves]))
    raw_feats, raw_lens = model.normalize(raw_feats, raw_lens)
    raw_batch = model.encoder.run(raw_feats, raw_lens, model.ctc).log_softmax(model.ctc)
    worst = 0.0
    for row, raw_row, n, feat in zip(batch, raw_batch, lens, feats, strict=True):
        alone, _ = log_posteriors(model, [feat])
        assert row[:n].shape == alone[0].shape
        assert_same(row[:n], alone[0], rtol=1e-5)
        shared = min(n, raw_row.size(0))
        worst = max(worst, relative_error(raw_row[:shared], alone[0][:shared]))
    assert worst > 1e-3  # negative control: samples padded before the STFT do not give the same


class NormalisedWithPadding(torch.nn.Module):
    """As ESPnet 202511's utterance_mvn with norm_vars: padding counts in the variance."""

    def forward(self, x, lens):
        x -= x.sum(1, keepdim=True) / lens[:, None, None]
        return x / (x.pow(2).sum(1, keepdim=True) / lens[:, None, None]).sqrt(), lens


@pytest.mark.numerics
@torch.no_grad()
def test_normalisation_does_not_see_the_padding(models, waves):
    model = load_model(models["skip"], decoder_type="greedy").asr_model
    model.normalize = NormalisedWithPadding()
    feats = [extract_features(model, torch.from_numpy(wave)) for wave in waves]
    assert len({len(feat) for feat in feats}) > 1
    before = [feat.clone() for feat in feats]
    batch, lens = log_posteriors(model, feats)
    for row, n, feat in zip(batch, lens, feats, strict=True):
        assert_same(row[:n], log_posteriors(model, [feat])[0][0], rtol=1e-5)
    assert all(map(torch.equal, feats, before))
    assert type(model.normalize) is NormalisedWithPadding


def test_hypothesis_of_the_greedy_decoder(greedy, waves):
    [(text, token, token_int, hyp)] = greedy(waves[0])
    assert (hyp.text, hyp.token, hyp.token_int) == (text, token, token_int)
    assert len(hyp.token_frames) == len(token_int) > 0
    assert hyp.token_frames == sorted(hyp.token_frames)
    assert hyp.token_frames[-1] < greedy.last_skips[0].num_frames
    assert hyp.score < 0


def test_the_search_sees_the_skipped_posteriors(models, waves, monkeypatch):
    model = load_model(models["skip"], beam_size=2)
    ctc, seen = model.asr_model.ctc, []
    plain = ctc.log_softmax

    def spy(hs_pad, layer_idx=None, trace=None):
        seen.append(trace)
        return plain(hs_pad, layer_idx, trace)

    monkeypatch.setattr(ctc, "log_softmax", spy)
    model(waves[0])
    assert seen[-1].num_skipped() == model.last_skips[0].num_skipped > 0
    assert model.beam_search.scorers["ctc"].ctc is ctc  # and not beyond the search


def in_threads(function, jobs):
    """Do the jobs in six threads, which change places far more often than they usually do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with ThreadPoolExecutor(6) as pool:
            return list(pool.map(function, jobs))
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("skip", {"decoder_type": "greedy"}),
        ("skip", {"decoder_type": "greedy", "optimize": False}),
        ("skip", {"decoder_type": "prefix_beam"}),
        ("skip", {"drop_threshold": 0.9, "beam_size": 2}),
        ("hybrid", {"beam_size": 2, "maxlenratio": 0.3}),
        ("stock", {"decoder_type": "greedy"}),
    ],
    ids=str,
)
def test_threads_on_one_object(models, waves, kind, options):
    """Calls at once give what one after the other gives, also with settings of their own."""
    model = load_model(models[kind], **options)
    ways = [None] if kind == "stock" else [None, OFF, SkipSettings(0.4, (0, 0))]
    waves = waves[:2]
    jobs = [(wave, settings) for wave in waves for settings in ways] * 3

    def transcribe(job):
        [one] = model.recognize([job[0]], settings=job[1])
        return [entry[:3] for entry in one.nbest], one.skips

    expected = [transcribe(job) for job in jobs[: len(waves) * len(ways)]]
    assert len({str(text) for text, _ in expected}) > 1
    before = set(vars(model)), set(vars(model.asr_model.encoder)), set(vars(model.asr_model.ctc))
    found = in_threads(transcribe, jobs)
    assert all(one == expected[i % len(expected)] for i, one in enumerate(found))
    assert strings([model(waves[0])]) == [tuple(expected[0][0][0][i] for i in (0, 2))]
    after = set(vars(model)), set(vars(model.asr_model.encoder)), set(vars(model.asr_model.ctc))
    assert after == before


def test_validation_in_a_thread_beside_decoding(models, waves):
    """One model: a training's validation and a recognizer, each as without the other."""
    model = load_model(models["skip"], decoder_type="greedy", optimize=False)
    text = torch.tensor([[3, 4, 5]])

    def validate(wave):
        with torch.no_grad():
            samples = torch.from_numpy(wave)[None]
            lens, text_lens = torch.tensor([len(wave)]), torch.tensor([3])
            stats = model.asr_model(samples, lens, text.clone(), text_lens)[1]
        return float(stats["loss"]), float(stats["skip_ratio"])

    def transcribe(wave):
        return strings([model(wave)])

    jobs = [(f, wave) for wave in waves[:2] for f in (validate, transcribe)] * 3
    expected = [f(wave) for f, wave in jobs[:4]]
    assert any(ratio > 0 for _, ratio in expected[::2])
    found = in_threads(lambda job: job[0](job[1]), jobs)
    for i, one in enumerate(found):
        wanted = expected[i % len(expected)]
        assert one == (pytest.approx(wanted, rel=1e-5) if i % 2 == 0 else wanted)


def test_no_batches_where_padding_is_seen(models, waves, monkeypatch):
    """As with rel_pos_type: legacy, at full depth too."""
    model = load_model(models["skip"], decoder_type="greedy", optimize=False)
    encoder, sizes = model.asr_model.encoder, []
    run = encoder.run
    monkeypatch.setattr(
        encoder, "run", lambda x, *args, **kwargs: sizes.append(len(x)) or run(x, *args, **kwargs)
    )
    model.decode_batch(waves)
    assert sizes == [len(waves)]
    monkeypatch.setattr(type(encoder), "padding_invariant", False)
    model.decode_batch(waves)
    assert sizes == [len(waves)] + [1] * len(waves)


def test_settings_of_a_call(models, waves):
    model = load_model(models["skip"], decoder_type="greedy")
    configured, off, early = (
        model.recognize(waves, settings=settings)
        for settings in (None, OFF, SkipSettings(exit_layer=1))
    )
    assert sum(one.skips.num_skipped for one in configured) > 0
    assert sum(one.skips.num_skipped for one in off) == 0
    assert all(one.skips.layers_run == one.skips.num_frames for one in early)
    assert strings([one.nbest for one in off]) == strings(
        load_model(models["skip"], decoder_type="greedy", blank_threshold="off").decode_batch(waves)
    )
    assert strings([one.nbest for one in configured]) == strings(model.decode_batch(waves))
    with pytest.raises(ValueError, match="one of the gate layers"):
        model.recognize(waves, settings=SkipSettings(exit_layer=3))


@pytest.mark.numerics
def test_stock_model_and_espnets_own_class_agree(models, waves):
    config, checkpoint = (
        models["stock"] / "config.yaml",
        models["stock"] / "valid.loss.ave.pth",
    )
    ours = Speech2Text(config, checkpoint, beam_size=3)  # CTC only: ctc_weight becomes 1.0
    theirs = ESPnetSpeech2Text(config, checkpoint, beam_size=3, ctc_weight=1.0)
    for wave in waves:
        (text, token, token_int, hyp), *_ = ours(wave)
        expected = theirs(wave)[0]
        assert (text, token, token_int) == expected[:3]
        assert float(hyp.score) == pytest.approx(float(expected[3].score))


def test_options_reach_the_encoder(models):
    encoder = load_model(models["skip"]).asr_model.encoder
    assert (encoder.blank_threshold, encoder.spike_extension) == (0.6, (0, 1))
    encoder = load_model(
        models["skip"], blank_threshold="0.8", spike_extension="2,1", skip_context="packed"
    ).asr_model.encoder
    assert (encoder.blank_threshold, encoder.spike_extension) == (0.8, (2, 1))
    assert encoder.skip_context == "packed"


def test_off_and_exit(models, waves):
    off = load_model(models["skip"], decoder_type="greedy", blank_threshold="off")
    off(waves[0])
    assert off.last_skips[0].num_skipped == 0
    early = load_model(models["skip"], decoder_type="greedy", exit_layer=1)
    result = early(waves[0])
    assert early.last_skips[0].num_skipped == early.last_skips[0].num_frames > 0
    assert result[0][2] != off(waves[0])[0][2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blank_threshold": 0.0}, r"number in \(0, 1\]"),
        ({"skip_context": "dense"}, "must be one of packed, packed_original, full"),
        ({"exit_layer": 3}, r"exit_layer must be None or one of the gate layers \[1, 2\]"),
        (
            {"decoder_type": "beam"},
            "must be one of espnet, greedy, prefix_beam, ngram, but got 'beam'",
        ),
        ({"multi_asr": True}, "multi_asr is not supported here: use espnet2"),
    ],
)
def test_wrong_options(models, options, message):
    with pytest.raises(ValueError, match=message):
        load_model(models["skip"], **options)


def test_unknown_argument(models):
    with pytest.raises(TypeError, match="unknown argument 'beam'; known are .*beam_size"):
        load_model(models["skip"], beam=3)


def test_skipping_needs_gates(models):
    with pytest.raises(ValueError, match="encoder is a ConformerEncoder without a gate"):
        load_model(models["stock"], blank_threshold=0.9)
    load_model(models["stock"], blank_threshold="off")


def test_missing_configuration(tmp_path):
    with pytest.raises(ValueError, match="asr_train_config or asr_model_file is needed"):
        Speech2Text()
    with pytest.raises(ValueError, match="no training configuration .*config.yaml"):
        Speech2Text(asr_model_file=tmp_path / "a.pth")


@pytest.mark.parametrize("decoder_type", ["greedy", "espnet"])
def test_too_short_utterances_are_empty_and_cost_nobody(models, waves, decoder_type, caplog):
    model = load_model(models["skip"], decoder_type=decoder_type, beam_size=2)
    expected = strings([model(waves[0])])
    short = [np.zeros(n, np.float32) for n in (0, 100, 700)]
    with caplog.at_level(logging.WARNING):
        results = strings(
            model.decode_batch([short[0], short[1], waves[0], short[2]], list("abcd"))
        )
    assert results == [("", []), ("", []), *expected, ("", [])]
    warned = [m for m in caplog.messages if "transcript is empty" in m]
    assert [m[0] for m in warned] == ["a", "b", "d"]


@pytest.mark.parametrize("decoder", ["greedy", "espnet"])
@pytest.mark.parametrize("factor", [np.nan, 1e30])  # the second overflows in the power spectrum
def test_features_that_are_not_finite_are_refused_by_name(models, waves, decoder, factor):
    model = load_model(models["skip"], decoder_type=decoder)
    bad = waves[0].copy()
    bad[9000] *= factor
    bad[9000] += factor
    with pytest.raises(ValueError, match="^b: its features are not finite"):
        model.recognize([waves[1], bad], ["a", "b"])


def test_states_that_are_not_finite_are_refused(models, waves):
    model = load_model(models["skip"], decoder_type="espnet", optimize=False)
    with torch.no_grad():  # as where a lower precision overflows
        model.asr_model.encoder.encoders[1].feed_forward.w_1.bias[0] = torch.inf
    with pytest.raises(ValueError, match="the output of the encoder is not finite"):
        model(waves[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "float16 on device cpu: .*Use float32, with precision bfloat16"),
        ({"device": "cuda:99"}, r"device cuda:99: PyTorch finds \d+ GPUs here"),
        ({"device": "tpu"}, "device must be cpu, cuda or cuda:N, but got 'tpu'"),
    ],
)
def test_devices_and_numbers_that_cannot_be_had(models, options, message):
    with pytest.raises(ValueError, match=message):
        load_model(models["skip"], decoder_type="greedy", **options)


def test_samples_have_one_dimension(greedy):
    with pytest.raises(ValueError, match=r"samples \(N,\) are needed.* got \S+ \(2, 100\)"):
        greedy(np.zeros((2, 100), np.float32))


def test_other_types_and_quantization(models, waves):
    double = load_model(models["skip"], decoder_type="greedy", dtype="float64")
    single = load_model(models["skip"], decoder_type="greedy")
    assert double(waves[0].astype(np.float64))[0][2] == single(torch.from_numpy(waves[0]))[0][2]
    int8 = load_model(models["skip"], decoder_type="greedy", quantize_asr_model=True)
    layer = int8.asr_model.encoder.encoders[0].feed_forward.w_1
    assert "quantized" in type(layer).__module__
    assert int8(waves[0])[0][0] is not None


def test_rate(greedy):
    assert greedy.sample_rate == 16000
    greedy.asr_train_args.frontend_conf["fs"] = "8k"
    try:
        assert greedy.sample_rate == 8000
    finally:
        greedy.asr_train_args.frontend_conf["fs"] = 16000


@pytest.mark.numerics
def test_the_encoder_runs_in_its_fast_form(models, waves):
    """By default, with the plain form's posteriors; not where it was turned off."""
    fast, plain = load_model(models["skip"]), load_model(models["skip"], optimize=False)
    assert fast.asr_model.encoder.fast_form() is not None
    assert plain.asr_model.encoder.fast_form() is None
    with torch.no_grad():
        feats = [extract_features(plain.asr_model, torch.from_numpy(wave)) for wave in waves]
        (a, lens), (b, _) = (log_posteriors(m.asr_model, feats) for m in (fast, plain))
    for row, expected, n in zip(a, b, lens, strict=True):
        assert_same(row[:n], expected[:n], rtol=1e-5)


@pytest.mark.numerics
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_precision(models, waves, precision):
    rough, exact = (
        load_model(models["skip"], precision=precision),
        load_model(models["skip"]),
    )
    with torch.no_grad():
        feats = [extract_features(exact.asr_model, torch.from_numpy(waves[0]))]
        a, b = (log_posteriors(m.asr_model, feats)[0] for m in (rough, exact))
    assert a.dtype == torch.float32
    assert 0.0 < (a.exp() - b.exp()).abs().mean() < 0.1
    with pytest.raises(ValueError, match=f"precision {precision} needs .*a ConformerEncoder"):
        load_model(models["stock"], precision=precision)
