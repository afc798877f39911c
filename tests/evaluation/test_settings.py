import pytest

from espnet_layerskip.evaluation.settings import OFF, SkipSettings, can_skip, parse_settings


class FakeEncoder:
    def __init__(self):
        self.blank_threshold, self.spike_extension = 0.9, (1, 1)
        self.skip_context, self.exit_layer = "full", None
        self.gate_layer_idx = [3, 4]


class StockEncoder:
    pass


def test_parse_and_describe_round_trip():
    items = ["threshold=0.95", "extension=0,2", "context=packed", "exit=4", "gates=3,4"]
    items += ["precision=int8", "repeats=0.5"]
    settings = parse_settings(items)
    assert settings == SkipSettings(0.95, (0, 2), "packed", 4, (3, 4), "int8", 0.5)
    assert settings.describe().split() == items
    assert parse_settings(["threshold=off"]) == OFF
    assert parse_settings([]) == SkipSettings()


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["treshold=0.9"], "setting 'treshold=0.9' is not known: .*threshold.*extension"),
        (["threshold"], "write KEY=VALUE"),
        (["threshold=high"], "blank_threshold must be .*'high'"),
        (["extension=1"], "spike_extension must be two frame counts.*'1'"),
        (["context=half"], "skip_context must be one of packed, .*'half'"),
        (["precision=half"], "precision must be one of float32, .*'half'"),
        (["repeats=some"], "repeats must be .*'some'"),
        (["exit=last"], "exit_layer must be a layer number.*'last'"),
        (["gates=low"], "gates must be layer numbers.*'low'"),
        (["exit=2", "exit=3"], "given twice"),
    ],
)
def test_bad_settings(items, message):
    with pytest.raises(ValueError, match=message):
        parse_settings(items)


def test_none_keeps_what_is_stored_and_exit_is_reset():
    encoder = FakeEncoder()
    resolved = parse_settings(["extension=0,0"]).resolved(encoder)
    assert resolved == SkipSettings(0.9, (0, 0), "full", None)
    SkipSettings(0.5, (2, 2), "packed", 3).apply(encoder)
    assert vars(encoder) == {
        "blank_threshold": 0.5,
        "spike_extension": (2, 2),
        "skip_context": "packed",
        "exit_layer": 3,
        "gate_layer_idx": [3, 4],
        "gates_in_use": [3, 4],
    }
    SkipSettings(gates=(4,)).apply(encoder)
    assert encoder.gates_in_use == (4,)
    resolved.apply(encoder)
    assert (encoder.blank_threshold, encoder.exit_layer) == (0.9, None)
    assert encoder.gates_in_use == [3, 4]


def test_stored_values_win_over_present_ones():
    encoder = FakeEncoder()
    stored = SkipSettings().resolved(encoder)
    OFF.apply(encoder)
    assert SkipSettings().resolved(encoder).threshold == 1.0  # that is why they are stored
    assert SkipSettings().resolved(encoder, stored).threshold == 0.9


def test_full_depth():
    assert OFF.resolved(FakeEncoder()).full_depth
    assert not SkipSettings().resolved(FakeEncoder()).full_depth
    assert not parse_settings(["threshold=1", "exit=4"]).resolved(FakeEncoder()).full_depth


def test_stock_encoders_only_run_at_full_depth():
    encoder = StockEncoder()
    assert not can_skip(encoder)
    assert SkipSettings().resolved(encoder) == OFF
    assert OFF.resolved(encoder).full_depth
    OFF.apply(encoder)
    assert not vars(encoder)
    with pytest.raises(ValueError, match="'exit=4' need a layer-skipping encoder.*StockEncoder"):
        parse_settings(["exit=4"]).resolved(encoder)
