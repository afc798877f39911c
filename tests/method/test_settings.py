from types import SimpleNamespace

import pytest

from espnet_layerskip.method import settings as options, skipping


def test_choices_are_those_of_the_encoder():
    assert options.SKIP_CONTEXTS == skipping.SKIP_CONTEXTS


@pytest.mark.parametrize(
    ("value", "threshold"),
    [(None, None), ("auto", None), ("off", 1.0), (False, 1.0), ("0.5", 0.5), (1, 1.0)],
)
def test_blank_threshold(value, threshold):
    assert options.parse_blank_threshold(value) == threshold


@pytest.mark.parametrize("value", ["0", "1.1", "-1", "nan", "on", True, 0])
def test_wrong_blank_threshold(value):
    with pytest.raises(ValueError, match=r"'auto', 'off' or a number in \(0, 1\]"):
        options.parse_blank_threshold(value)


@pytest.mark.parametrize(
    ("value", "extension"), [(None, None), ("1,2", (1, 2)), ("0, 3", (0, 3)), ([2, 0], (2, 0))]
)
def test_spike_extension(value, extension):
    assert options.parse_spike_extension(value) == extension


@pytest.mark.parametrize("value", ["1", "1,2,3", "-1,0", "a,b", [1], ""])
def test_wrong_spike_extension(value):
    with pytest.raises(ValueError, match="two frame counts 'L,R'"):
        options.parse_spike_extension(value)


def test_exit_layer():
    assert [options.parse_exit_layer(v) for v in (None, "none", "4", 4)] == [None, None, 4, 4]
    with pytest.raises(ValueError, match="a layer number or 'none', but got 'last'"):
        options.parse_exit_layer("last")


def test_nothing_is_set_unless_asked():
    encoder = SimpleNamespace(gate_layer_idx=[1], blank_threshold=0.3)
    options.set_skipping(encoder, "auto")
    assert vars(encoder) == {"gate_layer_idx": [1], "blank_threshold": 0.3}
    options.set_skipping(encoder, "off", "2,1", "full", 1)
    assert encoder.blank_threshold == 1.0
    assert (encoder.spike_extension, encoder.skip_context, encoder.exit_layer) == (
        (2, 1),
        "full",
        1,
    )


def test_an_encoder_without_gates_can_only_be_off():
    encoder = SimpleNamespace()
    options.set_skipping(encoder, "off")
    assert not vars(encoder)
    with pytest.raises(ValueError, match="blank_threshold, skip_context cannot be set: .*gate"):
        options.set_skipping(encoder, 0.9, skip_context="full")
