import dataclasses

from espnet_layerskip.evaluation.decode import Decoded, decode, one_pass_groups
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.stock import StockSearch, stock_speech2text
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.settings import OFF, SkipSettings


def systems_of(experiment, *settings):
    return [System(experiment, one) for one in settings]


def check_equal(systems, few):
    """One pass gives what decoding with each setting by itself gives: texts, frames, FLOPs."""
    swept = decode(systems, few)
    alone = [decode([system], few)[0] for system in systems]
    assert swept == alone
    assert len({d.skipped for d in alone}) > 2, "the settings do not differ"
    assert len({str(d.hyps) for d in alone}) > 1, "the transcripts do not differ"


def test_one_pass_equals_decoding_with_each_setting(experiment, few):
    grid = [SkipSettings(t, e) for t in (0.3, 0.5, 0.7) for e in ((0, 0), (0, 1))]
    check_equal(systems_of(experiment, OFF, SkipSettings(exit_layer=1), *grid), few)


def test_one_pass_equals_decoding_with_two_gates(cascade, few):
    sets = (None, (1,), (3,))
    grid = [SkipSettings(t, (0, 0), gates_in_use=g) for t in (0.4, 0.6) for g in sets]
    grid += [SkipSettings((0.4, 0.6)), *(SkipSettings(exit_layer=k) for k in (1, 3))]
    check_equal(systems_of(cascade, OFF, *grid), few)


def test_one_pass_equals_decoding_with_a_gate_that_drops_repeats(cascade, few):
    grid = [SkipSettings(0.6, (0, n), repeat_threshold=r) for n in (0, 1) for r in (None, 0.2, 0.4)]
    systems = systems_of(cascade, OFF, *grid)
    check_equal(systems, few)
    kept, dropped = (decode([one], few)[0].skipped for one in systems[1:3])
    assert dropped.num_skipped > kept.num_skipped


def test_what_is_the_same_runs_once(experiment, few, monkeypatch):
    calls = []
    layer = type(experiment.encoder.fast_form().layers[0])
    run = layer.__call__
    monkeypatch.setattr(layer, "__call__", lambda *args: (calls.append(1), run(*args))[1])
    near = [SkipSettings(0.5), SkipSettings(0.5 + 1e-9), SkipSettings(0.5 + 2e-9)]
    done = []
    swept = decode(systems_of(experiment, OFF, *near), few, done.append)
    assert len({str(d) for d in swept}) == 2
    # of four layers: the one below the gate once, the upper three for "off" and for the others
    assert len(calls) == 4 + len(few.speech) * (1 + 3 + 3)  # 4 of the warm-up
    assert done == [1, 2, 3]


def test_groups_share_the_layers_below_the_gate(experiment, cascade, stock_twin):
    sharing = systems_of(experiment, OFF, SkipSettings(0.7), SkipSettings(exit_layer=1))
    packed = System(experiment, SkipSettings(skip_context="packed"))
    int8, other = System(experiment, precision="int8"), System(cascade)
    stock = systems_of(stock_twin, OFF, OFF)
    groups = one_pass_groups([*sharing, packed, int8, other, *stock])
    assert groups == [sharing, [packed], [int8], [other], *([one] for one in stock)]


def test_an_utterance_that_is_too_short(experiment, plain, few, caplog):
    short = Speech("s0-short", few.speech[0].samples[:300], 16000)
    few = dataclasses.replace(few, speech=[short])
    systems = systems_of(experiment, OFF, SkipSettings(0.5))
    for some in (systems, systems[:1]):
        found = decode(some, few)
        nothing = Decoded({"s0-short": ""}, SkipCount(), 0, ["s0-short"])
        assert found == [nothing] * len(some)
        assert "s0-short has" in caplog.text
    [found] = decode([StockSearch(stock_speech2text(plain, beam_size=1))], few)
    assert (found.hyps, found.too_short) == ({"s0-short": ""}, ["s0-short"])


def test_espnets_search_is_decoded_too(plain, few):
    [found] = decode([StockSearch(stock_speech2text(plain, beam_size=1))], few)
    assert set(found.hyps) == {s.utt_id for s in few.speech}
    assert (found.skipped, found.encoder_flops) == (SkipCount(), 0)
