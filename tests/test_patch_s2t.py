"""Skipping in OWSM-CTC models: ESPnet's inference classes, its model, and the launcher's option."""

import logging

import numpy as np
import pytest
import torch

from espnet_layerskip import add_skipping, remove_skipping
from espnet_layerskip._compat import EBranchformerCTCEncoder, inference_module
from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.inference.when_built import SkipWhenBuilt
from espnet_layerskip.method.settings import SkipSettings
from espnet_layerskip.patch import choose_skipping
from tests.routes.conftest import Forked
from tests.support.experiments import noise
from tests.support.numerics import assert_same
from tests.support.s2t import encoder_inputs, make_s2t, s2t_batch, s2t_task

GATES = {"gate_layer_idx": [2], "blank_threshold": 0.2, "spike_extension": (0, 0)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = make_s2t(tmp_path_factory.mktemp("s2t") / "exp")
    return {
        "s2t_train_config": str(directory / "config.yaml"),
        "s2t_model_file": str(directory / "model.pth"),
    }


@pytest.fixture(scope="module")
def speech():
    rng = np.random.default_rng(5)
    return np.concatenate([noise(rng) for _ in range(7)])  # 3.5 s


@pytest.fixture
def model(files):
    return s2t_task().build_model_from_file(*files.values())[0].eval()


def inference_class(name):
    from espnet2.bin import s2t_inference_ctc

    return getattr(s2t_inference_ctc, name)


def greedy(files):
    return inference_class("Speech2TextGreedySearch")(**files, lang_sym="<eng>")


def texts(model, speech):
    """All decodings of the object that answers without a search."""
    symbols = {"lang_sym": "<eng>", "task_sym": "<asr>"}
    long = np.tile(speech, 3)
    return [
        model(speech)[0][0],
        model.batch_decode([speech, long], batch_size=2, context_len_in_secs=0.48, **symbols),
        model.decode_long_batched_buffered(long, batch_size=2, context_len_in_secs=0.48, **symbols),
    ]


def test_all_greedy_decodings_skip_and_go_back(files, speech):
    model = greedy(files)
    expected = texts(model, speech)
    encoder, parameters = model.s2t_model.encoder, list(model.s2t_model.state_dict().values())
    assert add_skipping(model, **GATES) is model
    assert type(encoder) is ENCODERS["layerskip_e_branchformer_ctc"]
    assert encoder.fast_form() is not None
    after = model.s2t_model.state_dict().values()
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(after, parameters, strict=True))
    skipping = texts(model, speech)
    assert all(one != other for one, other in zip(skipping, expected, strict=True))
    encoder.blank_threshold = 1.0
    assert texts(model, speech) == expected
    remove_skipping(model)
    assert type(encoder) is EBranchformerCTCEncoder
    assert texts(model, speech) == expected


def test_the_search_and_its_intermediate_answers(files, speech):
    options = {"beam_size": 2, "lang_sym": "<eng>", "generate_interctc_outputs": True}
    model = inference_class("Speech2Text")(**files, maxlenratio=0.2, **options)
    expected, inter = model(speech)
    add_skipping(model, **GATES)
    skipping, inter_skipping = model(speech)
    assert skipping[0][0] != expected[0][0]
    assert inter_skipping == inter  # layer 2 runs for all frames
    model.s2t_model.encoder.blank_threshold = 1.0
    assert model(speech)[0][0][:3] == expected[0][:3]


def test_alignment_follows_the_prefix(files, speech):
    try:
        from espnet2.bin.align import ForcedAligner
    except ImportError:
        pytest.skip("ESPnet 202511 has no espnet2.bin.align")
    from espnet2.bin.s2t_inference import Speech2Text

    aligner = ForcedAligner(Speech2Text(**files, lang_sym="<eng>"))
    expected = aligner(speech, ["AB", "CD"])
    add_skipping(aligner, **{**GATES, "blank_threshold": 1.0})
    times = [(s.start, s.end) for s in expected]
    assert [(s.start, s.end) for s in aligner(speech, ["AB", "CD"])] == times
    aligner.network.encoder.blank_threshold = 0.2
    found = aligner.log_probs(speech)
    aligner.network.encoder.blank_threshold = 1.0
    assert np.abs(found - aligner.log_probs(speech)).max() > 1e-3


@pytest.mark.parametrize("gates", [[2], [1, 3]])
def test_the_model_trains_with_gates(model, gates):
    """Gates elsewhere than the heads do not change their number; rows without text are left out."""
    batch = s2t_batch(model)
    add_skipping(model, gates, blank_threshold=0.5, spike_extension=(0, 0), train_skip_prob=1.0)
    model.train()
    torch.manual_seed(0)
    loss, stats, _ = model(**{k: v.clone() for k, v in batch.items()})
    loss.backward()
    assert loss.isfinite()
    assert [k for k in stats if "loss_interctc" in k] == ["loss_interctc_layer2"]
    missing = [n for n, p in model.encoder.named_parameters() if p.grad is None]
    assert not missing
    model.eval()
    with torch.no_grad():
        loss, _, _ = model(**{k: v.clone() for k, v in batch.items()})
    assert loss.isfinite()


def test_off_is_the_stock_model(model):
    inputs = s2t_batch(model)
    with torch.no_grad():
        (expected, [(_, state)]), lens = model.encode(**encoder_inputs(inputs))
        add_skipping(model, **{**GATES, "blank_threshold": 1.0})
        (out, [(layer_idx, found)]), olens = model.encode(**encoder_inputs(inputs))
    assert layer_idx == 2
    assert torch.equal(olens, lens)
    assert_same(out, expected)
    assert_same(found, state)


def test_a_configuration_can_name_our_encoder(tmp_path):
    directory = make_s2t(tmp_path / "exp")
    text = (directory / "config.yaml").read_text()
    ours = text.replace("encoder: e_branchformer_ctc", "encoder: layerskip_e_branchformer_ctc")
    ours = ours.replace("\nencoder_conf:\n", "\nencoder_conf:\n  gate_layer_idx: [2]\n")
    (directory / "config.yaml").write_text(ours)
    found, _ = s2t_task().build_model_from_file(directory / "config.yaml", directory / "model.pth")
    assert type(found.encoder) is ENCODERS["layerskip_e_branchformer_ctc"]
    assert found.encoder.gate_layer_idx == [2]


def test_gates_are_chosen_from_what_the_model_has(model, caplog):
    choose_skipping(model, SkipSettings(blank_threshold=0.5))
    assert model.encoder.gate_layer_idx == [2]  # the trained head
    assert model.encoder.blank_threshold == 0.5
    choose_skipping(model, SkipSettings(spike_extension=(2, 1)))
    assert model.encoder.blank_threshold == 0.5
    assert model.encoder.spike_extension == (2, 1)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        choose_skipping(model, SkipSettings(gates_in_use=(1, 2), skip_context="packed"))
    assert "not known to be trained for layers [1]" in caplog.text
    assert model.encoder.gate_layer_idx == [1, 2]
    assert model.encoder.settings.describe() == (
        "threshold=0.5 extension=2,1 context=packed gates=1,2"  # the rest is the model's
    )
    remove_skipping(model)
    model.encoder.interctc_layer_idx = []
    with pytest.raises(ValueError, match=r"no gates and no interctc_layer_idx.*gates=K,K"):
        choose_skipping(model, SkipSettings(blank_threshold=0.5))


def test_models_that_espnet_builds_skip_when_told_so(files, speech, exps, capsys):
    expected = greedy(files)(speech)[0][0]
    told = SkipWhenBuilt(SkipSettings.from_items(["threshold=0.2", "extension=0,0"]))
    try:
        model = greedy(files)
        assert model.s2t_model.encoder.fast_form() is not None
        assert model(speech)[0][0] != expected
        frames = told.count.num_frames
        assert 0 < told.count.num_skipped < frames < 50  # without the prefix: 80 ms each
        told.settings = SkipSettings.from_items(["gates=2", "threshold=0.5"])
        config, checkpoint = (exps["stock"] / n for n in ("config.yaml", "valid.cer_ctc.ave.pth"))
        asr = inference_module().Speech2Text(config, checkpoint, ctc_weight=1.0, beam_size=1)
        assert type(asr.asr_model.encoder) is ENCODERS["layerskip_conformer"]
        told.settings = SkipSettings.from_items(["gates=99"])
        with pytest.raises(SystemExit, match=r"--skip: gate_layer_idx must hold layers between"):
            inference_module().Speech2Text(config, checkpoint, ctc_weight=1.0, beam_size=1)
        told.change(torch.nn.Linear(1, 1))  # such as a language model: left alone
        told.tell()
    finally:
        told.undo()
    error = capsys.readouterr().err
    assert "EBranchformerCTCEncoder skips after layers 2 of 4 (threshold=0.2" in error
    assert f"of {frames} frames skipped" in error
    assert type(greedy(files).s2t_model.encoder) is EBranchformerCTCEncoder


@pytest.mark.slow
def test_the_launcher_tells_espnets_own_programs(files, speech, tmp_path):
    """In a fork; that the launcher works from nothing: tests/routes/test_launcher.py."""
    import soundfile

    soundfile.write(tmp_path / "a.wav", speech, 16000)
    program = tmp_path / "use.py"
    program.write_text(
        "import sys, soundfile\n"
        "from espnet2.bin.s2t_inference_ctc import Speech2TextGreedySearch\n"
        "model = Speech2TextGreedySearch(sys.argv[1], sys.argv[2], lang_sym='<eng>')\n"
        "model(soundfile.read(sys.argv[3], dtype='float32')[0])\n"
    )
    call = ["--skip", "threshold=0.5 gates=2", str(program), *map(str, files.values())]
    said = Forked([*call, str(tmp_path / "a.wav")], tmp_path).wait()
    assert "skips after layers 2 of 4 (threshold=0.5" in said
    assert "frames skipped" in said
