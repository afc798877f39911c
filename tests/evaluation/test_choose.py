import numpy as np
import pytest

from espnet_layerskip.evaluation.choose import choose, find_warnings, make_trial
from espnet_layerskip.method.settings import SkipSettings

WORDS = 10


def trial(errors, full, budget=5.0, flops=60, threshold=0.9, extension=(1, 1), gates=None):
    settings = SkipSettings(threshold, extension, "full", gates)
    return make_trial(settings, errors, full, [WORDS] * len(full), budget, 0.5, flops)


def noisy(full, seed, changed=0.3):
    """Errors that differ from those at full depth in both directions, with no loss in all."""
    rng = np.random.default_rng(seed)
    at = rng.permutation(np.flatnonzero(np.asarray(full) > 0))
    at = at[: int(changed * len(at)) // 2 * 2]
    out = np.array(full)
    out[at[::2]] += 1
    out[at[1::2]] -= 1
    return out.tolist()


@pytest.fixture
def full():
    return np.random.default_rng(0).binomial(WORDS, 0.2, 400).tolist()


def test_the_cheapest_of_those_that_keep_the_budget(full):
    worse = [e + (i % 4 == 0) for i, e in enumerate(full)]  # 12.5 % more errors
    off = trial(full, full, flops=100)
    bad = trial(worse, full, flops=50, threshold=0.4)
    good = trial(full, full, flops=60, threshold=0.5)
    careful = trial(full, full, flops=80)
    assert not bad.fits
    assert bad.rate == pytest.approx(off.rate + 2.5)
    assert bad.increase.difference == pytest.approx(2.5)
    assert bad.excess.difference == pytest.approx(2.5 - 0.05 * off.rate)
    assert choose([bad, careful, good], off) == (good, "upper bound")
    assert choose([bad], off) == (off, "nothing")
    assert (
        choose([careful, trial(full, full, flops=60), good], off)[0].settings.blank_threshold == 0.9
    )
    allowed = trial(worse, full, budget=30.0, flops=50)
    assert choose([allowed, good], off) == (allowed, "upper bound")
    assert find_warnings([allowed, good], off, allowed, "upper bound", 30.0, 400) == []


def test_a_setting_that_fits_by_luck_is_not_chosen(full):
    """A more cautious setting breaks the budget: that the bolder one does not is chance."""
    worse = [e + (i % 4 == 0) for i, e in enumerate(full)]
    off = trial(full, full, flops=100)
    lucky = trial(full, full, flops=50, threshold=0.8, extension=(0, 1))
    wider = trial(full, full, flops=70, threshold=0.8, extension=(1, 2))
    for cautious in (
        {"threshold": 0.9, "extension": (0, 1)},
        {"extension": (2, 1), "threshold": 0.8},
    ):
        broken = trial(worse, full, flops=80, **cautious)
        assert choose([lucky, broken], off) == (off, "nothing")
        assert choose([lucky, broken], off, point_estimate=True) == (off, "nothing")
    # what does not run all of a setting's frames says nothing about it
    for other in ({"threshold": 0.7, "extension": (1, 2)}, {"threshold": 0.9, "extension": (2, 0)}):
        broken = trial(worse, full, flops=40, **other)
        assert choose([lucky, wider, broken], off) == (lucky, "upper bound")


def test_fewer_gates_are_more_cautious(full):
    worse = [e + (i % 4 == 0) for i, e in enumerate(full)]
    off = trial(full, full, flops=100)
    for fewer, more, cautious in (((5,), None, True), ((3,), (3, 5), True), ((3,), (5,), False)):
        lucky = trial(full, full, flops=50, gates=more)
        broken = trial(worse, full, flops=80, gates=fewer)
        found = (off, "nothing") if cautious else (lucky, "upper bound")
        assert choose([lucky, broken], off) == found
        assert choose(
            [trial(full, full, flops=50, gates=fewer), trial(worse, full, gates=more)], off
        )[1] == ("upper bound")


def test_a_threshold_for_each_gate_is_more_cautious_where_none_is_lower(full):
    worse = [e + (i % 4 == 0) for i, e in enumerate(full)]
    off = trial(full, full, flops=100)
    for one, other, cautious in (
        ((0.9, 0.9), (0.8, 0.9), True),
        (0.9, (0.8, 0.9), True),
        ((0.9, 0.95), 0.9, True),
        ((0.9, 0.7), (0.8, 0.9), False),
    ):
        lucky = trial(full, full, flops=50, threshold=other)
        broken = trial(worse, full, flops=80, threshold=one)
        found = (off, "nothing") if cautious else (lucky, "upper bound")
        assert choose([lucky, broken], off) == found


def test_budget_counts_the_spread_of_full_depth_as_well(full):
    """A setting at exactly the budget has not been shown to keep it."""
    edge = list(full)
    for i in np.flatnonzero(full)[: round(0.05 * sum(full))]:
        edge[i] += 1
    assert trial(edge, full, budget=5.1).seems_to_fit
    assert not trial(edge, full, budget=5.1).fits


def test_too_small_a_set_turns_skipping_off_and_says_what_is_needed(full):
    full = full[:100]
    off = trial(full, full, budget=1.0, flops=100)
    tried = [trial(noisy(full, 1), full, 1.0, 50), trial(noisy(full, 2, 0.8), full, 1.0, 40)]
    chosen, kept_by = choose(tried, off)
    assert (chosen, kept_by) == (off, "nothing")
    first, second = find_warnings(tried, off, chosen, kept_by, 1.0, 100)
    assert "skipping is off" in first
    needed = tried[0].utterances_needed
    assert 100 < needed < tried[1].utterances_needed
    assert f"of 100 utterances is too small for a budget of 1 %: at least about {needed}" in second


def test_the_number_needed_is_the_number_needed(full):
    """With so many utterances of the same kind the limit keeps the budget, with half not."""
    full = full[:100]
    other = noisy(full, 1)
    assert sum(other) == sum(full)
    times = trial(other, full, 2.0).utterances_needed / 100
    enough, half = round(1.1 * times) + 1, int(times / 2)
    assert half > 1
    assert trial(other * enough, full * enough, 2.0).fits
    assert not trial(other * half, full * half, 2.0).fits


def test_a_point_estimate_only_where_it_is_allowed(full):
    full = full[:100]
    off, other = trial(full, full, 1.0, 100), trial(noisy(full, 1), full, 1.0, 50)
    assert choose([other], off, point_estimate=True) == (other, "point estimate")
    warnings = find_warnings([other], off, other, "point estimate", 1.0, 100)
    assert "only the point estimate keeps the budget" in warnings[0]
    assert "too small" in warnings[1]
    fitting = trial(full, full, 1.0, 90, threshold=0.99)
    assert choose([other, fitting], off, point_estimate=True) == (fitting, "upper bound")


def test_no_change_on_a_small_set_is_no_proof():
    """Nothing seen in 20 utterances: a bootstrap has no spread, but the number is told."""
    full = [1] * 20
    off, same = trial(full, full, 1.0, 100), trial(full, full, 1.0, 50)
    assert choose([same], off) == (same, "upper bound")
    [warning] = find_warnings([same], off, same, "upper bound", 1.0, 20)
    # -ln(0.025) errors may hide; 1 % of the errors of 369 utterances
    assert "at least about 369 like these" in warning


def test_full_depth_without_errors_and_nothing_skipped():
    full = [0] * 20
    off, same = trial(full, full, 1.0, 100), trial(full, full, 1.0, 50)
    assert same.utterances_needed is None
    [warning] = find_warnings([same], off, same, "upper bound", 1.0, 20)
    assert "full depth makes no error" in warning
    useless = trial(full, full, 1.0, 101)
    assert choose([useless], off) == (off, "nothing")
    [warning] = find_warnings([useless], off, off, "nothing", 1.0, 20)
    assert "no setting skips a frame" in warning
