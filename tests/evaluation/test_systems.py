import pytest
import torch

from espnet_layerskip.encoders.convert import to_stock
from espnet_layerskip.evaluation.inputs import load_test_set
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.settings import OFF, SkipSettings
from tests.support.numerics import assert_same


@pytest.fixture
def speech(data_dir):
    return load_test_set(data_dir, 16000).speech


def test_systems_share_a_model_without_mixing_their_settings(experiment, speech):
    before = experiment.settings
    on, off = System(experiment), System(experiment, OFF)
    assert on.settings.blank_threshold == 0.5
    batch = on.batch(speech[:1])
    for _ in range(2):
        assert on.skips(on.encode(batch)).num_skipped > 0
        assert off.skips(off.encode(batch)).num_skipped == 0
    assert experiment.settings == before
    assert experiment.model.encoder is experiment.encoder is not on.encoder
    ours = dict(on.model.named_parameters())
    assert all(ours[name] is p for name, p in experiment.model.named_parameters())


@pytest.mark.numerics
def test_batch_is_what_the_model_encodes(experiment, speech):
    off = System(experiment, OFF)
    encoded = off.encode(off.batch(speech[:1]))
    samples = torch.from_numpy(speech[0].samples)[None]
    with torch.no_grad():
        expected, lens = off.model.encode(samples, torch.tensor([samples.size(1)]))
    assert_same(encoded.out, expected)
    assert encoded.lens.tolist() == lens.tolist()


@pytest.mark.numerics
def test_posteriors_are_those_of_the_whole_model(experiment, speech):
    on = System(experiment)
    waves = [torch.from_numpy(s.samples) for s in speech[:2]]
    log_probs, encoded = on.posteriors(waves)
    assert_same(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))
    alone = [on.posteriors([wave])[1].lens.item() for wave in waves]
    assert encoded.lens.tolist() == alone


def test_a_stock_encoder_has_espnets_frontend(experiment, speech, monkeypatch):
    """Or a benchmark would count what we save there as ESPnet's."""
    wave = torch.from_numpy(speech[0].samples)
    stock = System(experiment, encoder=to_stock(experiment.encoder))
    calls = []
    stft = experiment.model.frontend.stft
    run = stft.forward
    monkeypatch.setattr(stft, "forward", lambda *args: calls.append(args) or run(*args))
    stock.posteriors([wave])
    System(experiment, OFF).posteriors([wave])
    assert [len(args) for args in calls] == [2, 1], "without lengths: no mask"


@pytest.mark.parametrize("kind", ["experiment", "stock_twin", "cascade"])
def test_a_transcript_is_that_of_speech2text(kind, speech, request):
    system = System(request.getfixturevalue(kind))
    for one in speech[:3]:
        [found] = system.speech2text.recognize([one.samples])
        text, skipped, flops = system.transcribe(one)
        assert (text, skipped) == (found.nbest[0][0], found.skips)
        assert flops > 0


def test_describes_what_runs(experiment, stock_twin, cascade):
    settings = SkipSettings(0.5, (0, 0), "full")
    assert System(experiment, settings).describe() == (
        "LayerSkipConformerEncoder, fast form, threshold=0.5 extension=0,0 context=full"
    )
    assert System(experiment, settings, "int8").how.endswith("context=full precision=int8")
    assert System(cascade, SkipSettings(gates_in_use=(3,))).how.endswith("gates=3")
    assert System(stock_twin, OFF).describe() == "ConformerEncoder, full depth"


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_precision_is_close_but_not_equal(experiment, speech, precision):
    off = System(experiment, OFF)
    other = System(experiment, OFF, precision)
    batch = off.batch(speech[:1])
    exact, rough = off.encode(batch).out, other.encode(batch).out
    assert not torch.equal(exact, rough)
    assert (exact - rough).abs().mean() < 0.2 * exact.abs().mean()
    assert torch.equal(off.encode(batch).out, exact)  # it has an encoder of its own


def test_a_stock_encoder_has_one_precision(stock_twin):
    with pytest.raises(ValueError, match="precision int8 needs a layerskip encoder"):
        System(stock_twin, OFF, "int8")


def test_ceiling_by_hand(experiment, speech):
    """s * (L - K) / L with L = 4 and K = 1."""
    on = System(experiment)
    batch = on.batch(speech[:2])
    encoded = on.encode(batch)
    skipped = on.skips(encoded)
    assert 0.0 < skipped.ratio < 1.0
    assert skipped.ceiling == pytest.approx(skipped.ratio * 3 / 4)
    assert skipped.num_skipped == encoded.trace.num_skipped()
    stopped = System(experiment, SkipSettings(blank_threshold=1.0, exit_layer=1))
    stopped_skipped = stopped.skips(stopped.encode(batch))
    assert (stopped_skipped.ratio, stopped_skipped.ceiling) == (1.0, 0.75)
    assert stopped_skipped.num_frames == skipped.num_frames
    off = System(experiment, OFF)
    num_frames = skipped.num_frames
    assert off.skips(off.encode(batch)) == SkipCount(num_frames, 0, 4 * num_frames, 4 * num_frames)


def test_skipped_adds_up():
    total = sum((SkipCount(10, 5, 25, 40), SkipCount(30, 0, 120, 120)), SkipCount())
    assert total == SkipCount(40, 5, 145, 160)
    assert total.ratio == 0.125
    assert total.ceiling == pytest.approx(15 / 160)
    assert SkipCount().ratio == SkipCount().ceiling == 0.0


def test_bad_exit_layer(experiment):
    with pytest.raises(ValueError, match="exit_layer must be .*2"):
        System(experiment, SkipSettings(exit_layer=2))
