import numpy as np
import pytest

from espnet_layerskip.evaluation.choose import (
    Condition,
    choose,
    find_warnings,
    in_order,
    make_trial,
    make_trials,
    over_conditions,
)
from espnet_layerskip.evaluation.decode import Decoded
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.settings import OFF, SkipSettings

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


def worse(full):
    """12.5 % more errors."""
    return [e + (i % 4 == 0) for i, e in enumerate(full)]


def test_the_cheapest_of_those_that_keep_the_budget(full):
    off = trial(full, full, flops=100)
    bad = trial(worse(full), full, flops=50, threshold=0.4)
    good = trial(full, full, flops=60, threshold=0.5)
    careful = trial(full, full, flops=80)
    assert not bad.fits
    assert bad.rate == pytest.approx(off.rate + 2.5)
    assert bad.increase.difference == pytest.approx(2.5)
    assert bad.excess.difference == pytest.approx(2.5 - 0.05 * off.rate)
    assert choose([bad, careful, good], off) == (good, "upper bound")
    assert choose([bad], off) == (off, "nothing")
    equal = trial(full, full, flops=60)
    assert choose([careful, equal, good], off)[0].settings.blank_threshold == 0.9
    allowed = trial(worse(full), full, budget=30.0, flops=50)
    assert choose([allowed, good], off) == (allowed, "upper bound")
    assert find_warnings([allowed, good], off, allowed, "upper bound", 30.0, 400) == []


def test_a_saving_that_cannot_be_measured_is_none(full):
    """Within 1 % of full depth's FLOPs the more accurate setting is kept, and full depth is off."""
    off = trial(full, full, budget=30.0, flops=1000)
    accurate = trial(full, full, budget=30.0, flops=605)
    cheap = trial(worse(full), full, budget=30.0, flops=596)
    cheaper = trial(worse(full), full, budget=30.0, flops=594)
    assert cheap.fits
    assert choose([cheap, accurate], off) == (accurate, "upper bound")
    assert choose([cheaper, accurate], off) == (cheaper, "upper bound")
    nearly = trial(full, full, budget=30.0, flops=991)
    assert choose([nearly], off) == (off, "nothing")
    [warning] = find_warnings([nearly], off, off, "nothing", 30.0, 400)
    assert "no setting saves 1 % of the encoder's FLOPs there" in warning


def test_the_first_setting_that_fails_ends_the_test(full):
    """One that runs more breaks the budget: that those after it do not is chance."""
    off = trial(full, full, flops=100)
    lucky = trial(full, full, flops=50, threshold=0.8)
    first = trial(full, full, flops=90, threshold=0.99)
    broken = trial(worse(full), full, flops=80, extension=(0, 0))
    assert choose([lucky, broken], off) == (off, "nothing")
    assert choose([lucky, broken], off, point_estimate=True) == (off, "nothing")
    assert choose([lucky, broken, first], off) == (first, "upper bound")
    cheaper = trial(worse(full), full, flops=40)
    assert choose([lucky, cheaper], off) == (lucky, "upper bound"), "it comes later"
    useless = trial(worse(full), full, flops=100)
    assert choose([lucky, useless], off) == (lucky, "upper bound"), "it saves nothing"
    assert in_order([lucky, broken, first, useless], off) == [first, broken, lucky]


def test_budget_counts_the_spread_of_full_depth_as_well(full):
    """A setting at exactly the budget has not been shown to keep it."""
    edge = list(full)
    for i in np.flatnonzero(full)[: round(0.05 * sum(full))]:
        edge[i] += 1
    assert trial(edge, full, budget=5.1).seems_to_fit
    assert not trial(edge, full, budget=5.1).fits


def test_speakers_count_as_such(full):
    """What one speaker in forty loses counts for more than as many words of all speakers."""
    speakers = [f"s{i // 10}" for i in range(400)]
    lost = [e + 4 * (i < 10) for i, e in enumerate(full)]
    spread = [e + 4 * (i % 40 == 0) for i, e in enumerate(full)]
    settings = SkipSettings(0.9, (1, 1), "full")

    def limit(errors):
        found = make_trial(settings, errors, full, [WORDS] * 400, 5.0, 0.5, 60, speakers)
        return found.excess.high

    assert limit(lost) > 1.2 * limit(spread) > 0
    assert trial(lost, full).excess.high == pytest.approx(trial(spread, full).excess.high, rel=0.02)


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
    """With so many utterances of the same kind the limit keeps the budget, with fewer not."""
    full = full[:100]
    other = noisy(full, 1)
    assert sum(other) == sum(full)
    times = trial(other, full, 2.0).utterances_needed / 100
    enough, fewer = round(1.1 * times) + 1, int(0.9 * times)
    assert fewer > 1
    assert trial(other * enough, full * enough, 2.0).fits
    assert not trial(other * fewer, full * fewer, 2.0).fits


def test_a_point_estimate_only_where_it_is_allowed(full):
    full = full[:100]
    off, other = trial(full, full, 1.0, 100), trial(noisy(full, 1), full, 1.0, 50)
    assert choose([other], off, point_estimate=True) == (other, "point estimate")
    warnings = find_warnings([other], off, other, "point estimate", 1.0, 100)
    assert "not shown to keep" in warnings[0]
    assert "only the point estimate keeps it" in warnings[0]
    assert "too small" in warnings[1]
    more = full * 5
    fitting = trial(more, more, 1.0, 90, threshold=0.99)
    assert choose([other, fitting], off, point_estimate=True) == (fitting, "upper bound")


def test_what_is_not_shown_has_neighbours(full):
    full = full[:100]
    off = trial(full, full, 1.0, 100)
    alone, left = (trial(noisy(full, 1), full, 1.0, 40, extension=e) for e in ((0, 0), (1, 0)))
    beside = trial(noisy(full, 1), full, 1.0, 60)
    tried = [alone, left, beside]
    assert not any(one.fits for one in tried)
    assert choose(tried, off, point_estimate=True) == (beside, "point estimate")
    assert choose(tried, off, True, any_extension=True)[0] in (alone, left)
    assert choose([alone], off, point_estimate=True) == (off, "nothing")
    shown = trial(full * 5, full * 5, 30.0, 40, extension=(0, 0))
    assert choose([shown], off, point_estimate=True) == (shown, "upper bound")


def test_no_change_on_a_small_set_is_no_proof():
    """Nothing seen in 20 utterances: as many errors as the budget has may hide there."""
    full = [1] * 20
    off, same = trial(full, full, 1.0, 100), trial(full, full, 1.0, 50)
    assert choose([same], off) == (off, "nothing")
    needed = same.utterances_needed
    # t^2 errors may hide: 1 % of the errors of about 388 utterances
    assert 384 < needed < 392
    warning = find_warnings([same], off, off, "nothing", 1.0, 20)[1]
    assert f"at least about {needed} like these" in warning
    assert trial([1] * needed, [1] * needed, 1.0).fits
    assert not trial([1] * (needed - 10), [1] * (needed - 10), 1.0).fits


def test_full_depth_without_errors_and_nothing_skipped():
    full = [0] * 20
    off, same = trial(full, full, 1.0, 100), trial(full, full, 1.0, 50)
    assert same.utterances_needed is None
    assert not same.fits
    warning = find_warnings([same], off, off, "nothing", 1.0, 20)[1]
    assert "full depth makes no error" in warning
    useless = trial(full, full, 1.0, 101)
    assert choose([useless], off) == (off, "nothing")
    [warning] = find_warnings([useless], off, off, "nothing", 1.0, 20)
    assert "no setting skips a frame" in warning


def test_full_depth_beside_itself_is_no_change(full):
    off = make_trial(OFF, full, full, [WORDS] * 400, 5.0, 0.0, 100)
    assert str(off.increase) == "+0.00 [+0.00, +0.00]"


CLEAN = Condition("dev", 400, 5.0)
NOISY = Condition("dev, noise10", 400, 10.0, is_copy=True)


@pytest.mark.parametrize(
    ("budget", "in_points", "fits"),
    [
        (100.0, False, True),  # twice as many errors as full depth's
        (20.0, False, False),
        (10.0, True, True),  # 10 of 100 words may differ
        (2.0, True, False),
    ],
)
def test_a_budget_is_relative_or_in_points(budget, in_points, fits):
    refs = dict.fromkeys(map(str, range(400)), " ".join("abcdefghij"))
    wrong = [n % 2 if in_points else 1 + n % 2 for n in range(400)]
    hyps = {utt: "x " * n + refs[utt][2 * n :] for utt, n in zip(refs, wrong, strict=True)}
    full = refs if in_points else {utt: "x" + ref[1:] for utt, ref in refs.items()}
    decoded = [Decoded(each, SkipCount(10, 5, 30, 40), 7) for each in (full, hyps)]
    settings = [OFF, SkipSettings(0.9)]
    off, found = make_trials(settings, decoded, refs, str.split, budget, in_points=in_points)
    assert found.increase.difference == pytest.approx(5.0)
    assert found.fits is fits
    assert (found.encoder_flops, found.skip_ratio) == (7, 0.5)
    assert (found.utterances_needed is None) == in_points
    assert off.rate == (0.0 if in_points else 10.0)
    if in_points:
        assert found.increase.high == pytest.approx(found.excess.high + budget), "what decides"
        assert found.increase.low >= 0.0, "nothing differs by less than nothing"


def test_over_several_conditions_the_worst_decides(full):
    one = trial(full, full)
    assert over_conditions([one], [CLEAN]) is one
    noisy = trial(worse(full), full, budget=10.0)
    both = over_conditions([one, noisy], [CLEAN, NOISY])
    assert (one.fits, noisy.fits, both.fits) == (True, False, False)
    assert (both.seems_to_fit, noisy.seems_to_fit) == (False, False)
    assert (both.rate, both.increase) == (one.rate, one.increase)
    assert both.excess == noisy.excess
    assert both.encoder_flops == one.encoder_flops, "copies cost nothing where it is used"
    more = trial(worse(full), full, budget=30.0)
    kept = over_conditions([one, more], [CLEAN, NOISY])
    assert kept.fits
    assert kept.excess == max(one.excess, more.excess, key=lambda excess: excess.high)
    two_sets = over_conditions([one, one], [CLEAN, CLEAN])
    assert two_sets.encoder_flops == 2 * one.encoder_flops
    assert two_sets.utterances_needed == pytest.approx(2 * one.utterances_needed, abs=1)
    off = over_conditions([trial(full, full, flops=100), trial(full, full)], [CLEAN, NOISY])
    assert choose([both, kept], off) == (off, "nothing")
    [first, *_] = find_warnings([both], off, off, "nothing", 5.0, 400)
    assert "is shown to keep an increase of at most 5 % (relative) on dev, noise10: skip" in first


def test_a_condition_that_can_show_nothing_shows_nothing(full):
    none = trial([0] * 400, [0] * 400)
    both = over_conditions([trial(full, full), none], [CLEAN, NOISY])
    assert not both.fits
    assert both.utterances_needed is None
