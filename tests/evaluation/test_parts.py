import copy

import pytest

from espnet_layerskip.encoders.fast.layout import Layout
from espnet_layerskip.evaluation.conditions import make_conditions
from espnet_layerskip.evaluation.contenders import GREEDY_OFF, GREEDY_ON
from espnet_layerskip.evaluation.measure import binders
from espnet_layerskip.evaluation.parts import PARTS, Stopwatch, profile, watching
from espnet_layerskip.evaluation.stock import StockSearch, stock_speech2text
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.inference import features
from espnet_layerskip.method import walk
from espnet_layerskip.method.frames import LayerState
from espnet_layerskip.method.settings import OFF


class Clock:
    """Goes on by one second whenever it is looked at."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.fixture(scope="module")
def systems(plain):
    return {
        "stock_beam10": StockSearch(stock_speech2text(plain, beam_size=2)),
        GREEDY_OFF: System(plain, OFF),
        GREEDY_ON: System(plain),
    }


def test_of_nested_calls_the_inner_part_counts():
    watch = Stopwatch(Clock())

    class Thing:
        def inner(self):
            return "x"

        def outer(self):
            return self.inner() + self.inner()

    thing = Thing()
    with watch.around(thing, "inner", "head"), watch.around(thing, "outer", "search"):
        assert thing.outer() == "xx"
    # inner looks twice at the clock: 1 s each; outer spans 5 s, of which 2 are the inner ones'
    assert {p: s for p, s in watch.seconds.items() if s} == {"head": 2.0, "search": 3.0}
    assert not vars(thing)
    thing.outer()
    assert watch.seconds["head"] == 2.0  # put back as it was


def test_parts_sum_up_to_the_whole(systems, data, tmp_path):
    [condition] = make_conditions(data, [1.0], [1], 1)
    bind = binders(tmp_path)["e2e"]
    runs = {name: [bind(s, group) for group in condition.groups] for name, s in systems.items()}
    found = profile(systems, 1, runs, 5, Clock())
    assert list(found) == list(systems)
    for name, taken in found.items():
        assert list(taken["parts_s"]) == list(PARTS)
        silent = {p for p, s in taken["parts_s"].items() if s == 0.0}
        # ESPnet has no gate; at full depth nothing is gathered, only asked for
        assert silent == ({"gate"} if name == "stock_beam10" else set())
        # its own two looks at the clock
        assert sum(taken["parts_s"].values()) == taken["total_s"] - 2.0
        encoder = sum(taken["parts_s"][p] for p in ("stem", "lower", "gate", "upper"))
        assert taken["encoder_s"] == encoder + taken["parts_s"]["encoder_other"]
        share = taken["parts_s"]["gate"] / taken["encoder_s"]
        assert taken["gate_share_of_encoder"] == share
    gates = {name: taken["parts_s"]["gate"] for name, taken in found.items()}
    assert gates[GREEDY_ON] > gates[GREEDY_OFF]


def test_everything_is_put_back(systems):
    fast_layer = type(systems[GREEDY_ON].encoder.fast_form().layers[0])
    patched = [
        *((LayerState, "drop"), (LayerState, "full"), (Layout, "__init__")),
        *((walk, "look"), (walk, "decide"), (fast_layer, "__call__")),
        *((features, "compute_features"), (features, "normalise")),
    ]
    before = [vars(owner).get(name) for owner, name in patched]
    for name in ("stock_beam10", GREEDY_ON):
        model = systems[name].model
        state = set(vars(model)), set(vars(model.encoder))
        with watching(Stopwatch(), systems[name], 1):
            assert "log_softmax" in vars(model.ctc)
        assert (set(vars(model)), set(vars(model.encoder))) == state
    assert before == [vars(owner).get(name) for owner, name in patched]


def test_the_plain_form_has_the_same_parts(plain, data):
    encoder = copy.copy(plain.encoder)
    encoder._fast = None
    watch = Stopwatch()
    system = System(plain, encoder=encoder)
    assert encoder.fast_form() is None
    with watching(watch, system, 1):
        watch.measure("other", system.speech2text, data.speech[0].samples)
    assert {part for part, seconds in watch.seconds.items() if not seconds} == set()
