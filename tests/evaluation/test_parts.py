import pytest

from espnet_layerskip.encoders.fast.layout import Layout
from espnet_layerskip.evaluation.conditions import make_conditions
from espnet_layerskip.evaluation.entries import GREEDY_OFF, GREEDY_ON, WaveFiles, e2e_entries
from espnet_layerskip.evaluation.parts import PARTS, Profile, Stopwatch, profile, watching
from espnet_layerskip.evaluation.settings import SkipSettings
from espnet_layerskip.evaluation.stock import stock_speech2text
from espnet_layerskip.evaluation.variants import make_variants
from espnet_layerskip.method.frames import Frames, LayerState


class Clock:
    """Goes on by one second whenever it is looked at."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.fixture(scope="module")
def entries(plain, tmp_path_factory):
    stock = {"stock_beam10": stock_speech2text(plain, beam_size=2)}
    files = WaveFiles(tmp_path_factory.mktemp("waves"))
    return e2e_entries(make_variants(plain, SkipSettings(), {}), {}, SkipSettings(), stock, files)


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


def test_parts_sum_up_to_the_whole(entries, data):
    [condition] = make_conditions(data, [1.0], [1], 1)
    rows = {name: entries[name] for name in ("stock_beam10", GREEDY_OFF, GREEDY_ON)}
    runs = {name: [entry.bind(group) for group in condition.groups] for name, entry in rows.items()}
    found = profile(rows, 1, runs, 5, Clock())
    assert list(found) == list(rows)
    for name, taken in found.items():
        assert list(taken.seconds) == list(PARTS)
        silent = {p for p, s in taken.seconds.items() if s == 0.0}
        # ESPnet has no gate; at full depth nothing is gathered, only asked for
        assert silent == ({"gate"} if name == "stock_beam10" else set())
        assert sum(taken.seconds.values()) == taken.total - 2.0  # its own two looks at the clock
    gates = {name: taken.seconds["gate"] for name, taken in found.items()}
    assert gates[GREEDY_ON] > gates[GREEDY_OFF]


def test_everything_is_put_back(entries, data):
    before = [vars(cls)[n] for cls, n in ((LayerState, "drop"), (Frames, "full"))]
    built = vars(Layout)["__init__"]
    for name in ("stock_beam10", GREEDY_ON):
        entry = entries[name]
        entry.prepare()
        model = getattr(entry.source, "model", None) or entry.source.asr_model
        state = set(vars(model)), set(vars(model.encoder))
        with watching(Stopwatch(), entry.source, 1):
            assert set(vars(model)) != state[0]
        assert (set(vars(model)), set(vars(model.encoder))) == state
    assert before == [vars(cls)[n] for cls, n in ((LayerState, "drop"), (Frames, "full"))]
    assert built is vars(Layout)["__init__"]


def test_share_of_the_gate_by_hand():
    seconds = dict.fromkeys(PARTS, 1.0) | {"gate": 0.5, "search": 9.0}
    record = Profile(seconds, 20.0).to_json()
    assert record["encoder_s"] == 4.5
    assert record["gate_share_of_encoder"] == pytest.approx(1 / 9)
    assert record["total_s"] == 20.0
