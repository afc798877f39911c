import math

import numpy as np
import pytest
from scipy.stats import t as student

from espnet_layerskip.evaluation.evidence import clump_size, collect, disagreement


def test_nothing_seen_is_the_poisson_limit():
    """Without any change the limit is t^2 words: about the 3.69 of "none seen" in a large set."""
    found = collect([0.0] * 2000, [10] * 2000, clump=1.0)
    assert found.margin() == pytest.approx(student.ppf(0.975, 1999) ** 2)
    assert -math.log(0.025) < found.margin() < 3.9
    assert collect([0.0] * 2000, [10] * 2000, clump=3.0).margin() == pytest.approx(
        3.0 * found.margin()
    )
    interval = found.interval()
    assert interval.difference == 0.0
    assert interval.high == -interval.low == pytest.approx(100.0 * found.margin() / 20000)


def test_without_clumps_it_is_students_interval():
    x = np.random.default_rng(0).normal(0.3, 1.0, 40)
    found = collect(x.tolist(), [10] * 40, clump=0.0)
    expected = student.ppf(0.975, 39) * x.std(ddof=1) * math.sqrt(40)
    assert found.margin() == pytest.approx(expected)
    assert found.interval().high == pytest.approx((x.sum() + expected) / 4.0)


def test_speakers_who_differ_widen_it_and_few_speakers_do():
    x = [1.0] * 10 + [-1.0] * 10 + [0.0] * 20
    names = ["a"] * 10 + ["b"] * 10 + ["c"] * 10 + ["d"] * 10
    alone, by_speaker = collect(x, [5] * 40, 1.0), collect(x, [5] * 40, 1.0, names)
    assert by_speaker.variance == pytest.approx(4 / 3 * 200)
    assert (alone.groups, by_speaker.groups) == (40, 4)
    assert by_speaker.margin() > 2 * alone.margin()
    assert collect(x, [5] * 40, 1.0, ["one"] * 40) == alone, "of one speaker, by utterances"
    # speakers who differ less than their utterances do: the larger variance counts
    mixed = collect(x, [5] * 40, 1.0, [f"s{i % 10}" for i in range(40)])
    assert mixed.variance == pytest.approx(alone.variance)


def test_one_utterance_shows_nothing():
    found = collect([-1.0], [200], 1.0)
    assert found.margin() == 200.0
    assert found.interval().high == pytest.approx(99.5)
    assert collect([-300.0], [200], 1.0).interval().high > 0


def test_clumps_of_full_depth_and_of_the_change():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 20, 3000)
    independent = rng.poisson(0.1 * lengths)
    none = [0] * 3000
    assert clump_size(independent, none, lengths.tolist()) == pytest.approx(1.0, abs=0.1)
    clumped = 4 * rng.poisson(0.025 * lengths)
    assert clump_size(clumped, none, lengths.tolist()) == pytest.approx(4.0, abs=0.4)
    assert clump_size([0, 0, 0], [1, -1, 0], [9, 9, 9]) == 1.0
    assert clump_size([0, 0, 0], [6, -1, 0], [9, 9, 9]) == pytest.approx(37 / 7)


def test_the_number_of_sets_needed_is_the_number_needed():
    found = collect([1.0, -1.0] * 5 + [0.0] * 90, [10] * 100, 1.0)
    sets = found.sets_needed(2.0)
    for count, shown in ((math.ceil(1.02 * sets), True), (math.floor(0.9 * sets), False)):
        x = ([1.0, -1.0] * 5 + [0.0] * 90) * count
        larger = collect([e - 0.02 for e in x], [10] * len(x), 1.0)
        assert (larger.interval().high <= 0) == shown
    assert found.sets_needed(0.0) is None


def test_disagreement_beyond_what_is_allowed():
    found = disagreement([0] * 500, [10] * 500, allowed=1.0)
    assert found.difference == pytest.approx(-1.0)
    assert found.high == pytest.approx(-1.0 + 100 * student.ppf(0.975, 499) ** 2 / 5000)
    assert found.low == -1.0
    none = disagreement([0] * 500, [10] * 500)
    assert none.difference == none.low == 0.0 < none.high


@pytest.mark.parametrize("args", [([], []), ([1.0], [1, 2]), ([1.0], [1], ["a", "b"])])
def test_unpaired_input_is_refused(args):
    with pytest.raises(ValueError, match="the same number, at least one, is needed"):
        collect(*args[:2], 1.0, *args[2:])
