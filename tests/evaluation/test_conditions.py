import pytest

from espnet_layerskip.evaluation.conditions import make_conditions


def sizes(conditions):
    return [(c.audio_seconds, c.batch_size, [len(g) for g in c.groups]) for c in conditions]


def test_inputs_in_batches(data):
    """The data has eight utterances of 0.5 s, four a speaker: four inputs of 1 s, two of 2 s."""
    assert sizes(make_conditions(data, [1.0, 2.0], [1, 2], None)) == [
        (1.0, 1, [1, 1, 1, 1]),
        (1.0, 2, [2, 2]),
        (2.0, 1, [1, 1]),
        (2.0, 2, [2]),
    ]
    assert sizes(make_conditions(data, [1.0], [1, 2], 2)) == [(1.0, 1, [1, 1]), (1.0, 2, [2])]
    [condition] = make_conditions(data, [1.0], [3], None)  # whole batches only
    assert [len(g) for g in condition.groups] == [3]
    assert condition.describe() == {
        "audio_seconds": 1.0,
        "batch_size": 3,
        "num_inputs": 3,
        "measured_seconds": 1.0,
    }


def test_smaller_batches_are_of_the_same_inputs(data):
    ones, twos = make_conditions(data, [1.0], [1, 2], 4)
    names = [s.utt_id for group in ones.groups for s in group]
    assert names == [s.utt_id for group in twos.groups for s in group]


def test_about_forty_seconds_where_nothing_is_said(data, monkeypatch):
    monkeypatch.setattr("espnet_layerskip.evaluation.conditions.AUDIO_SECONDS", 3.0)
    assert sizes(make_conditions(data, [1.0, 2.0], [1], None)) == [
        (1.0, 1, [1, 1, 1]),
        (2.0, 1, [1]),
    ]


def test_too_little_data(data):
    with pytest.raises(ValueError, match="batch size 3 does not divide the 2 inputs"):
        make_conditions(data, [1.0], [3], 2)
    with pytest.raises(ValueError, match=r"5 different inputs of about 1 s .*only has 4"):
        make_conditions(data, [1.0], [5], None)
    with pytest.raises(ValueError, match=r"about 30 s .*only has 0"):
        make_conditions(data, [30.0], [1], None)
