import numpy as np
import pytest

from espnet_layerskip.evaluation.scoring import (
    Counts,
    characters,
    check_hypotheses,
    count_errors,
    error_rate,
    judge,
    paired_bootstrap,
    score,
    words,
)


def test_rate_by_hand():
    # TO deleted, THREE -> TREE, FOUR inserted, of five reference words
    counts = count_errors(words("GO TO ERASE THREE YES"), words("GO ERASE TREE YES FOUR"))
    assert (counts.errors, counts.words) == (3, 5)
    assert error_rate([counts]) == 60.0
    assert error_rate([counts, Counts(correct=5)]) == 30.0
    with pytest.raises(ValueError, match="no tokens"):
        error_rate([Counts()])


def test_scores_by_utterance_in_the_order_of_the_references():
    refs, hyps = {"b": "A B", "a": "A C"}, {"a": "A C", "b": "A", "more": "X"}
    found = score(refs, hyps, words)
    assert {utt: counts.errors for utt, counts in found.items()} == {"b": 1, "a": 0}
    assert list(found) == ["b", "a"]
    assert score(refs, hyps, characters)["b"].errors == 2


def test_text_is_taken_as_it_is():
    assert count_errors(words("YES"), words("yes")).errors == 1


def test_spaces_are_characters():
    assert characters(" A  BC ") == ["A", " ", "B", "C"]
    assert count_errors(characters("A B"), characters("AB")).deletions == 1


def test_check_hypotheses():
    check_hypotheses({"a": "X", "b": "Y"}, {"a": "", "b": "Y"})
    with pytest.raises(ValueError, match="missing for 1 of 2 utterances, first b"):
        check_hypotheses({"a": "X", "b": "Y"}, {"a": "X"})
    with pytest.raises(ValueError, match="wrote nothing for any of 2 utterances"):
        check_hypotheses({"a": "X", "b": "Y"}, {"a": " ", "b": ""})


def test_bootstrap_is_deterministic_and_centred():
    rng = np.random.default_rng(1)
    base, other = rng.integers(0, 4, 50), rng.integers(0, 4, 50)
    lengths = [6] * 50
    first = paired_bootstrap(other, base, lengths, num_samples=500)
    assert first == paired_bootstrap(other, base, lengths, num_samples=500)
    assert first.difference == pytest.approx(100 * (other.sum() - base.sum()) / 300)
    assert first.low < first.difference < first.high


def test_bootstrap_of_equal_and_of_shifted_systems():
    errors, lengths = [0, 1, 2, 3], [5, 5, 5, 5]
    same = paired_bootstrap(errors, errors, lengths)
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)
    # one error more in every utterance: paired, so there is no spread at all
    worse = paired_bootstrap([e + 1 for e in errors], errors, lengths)
    assert (worse.difference, worse.low, worse.high) == pytest.approx((20.0, 20.0, 20.0))
    assert str(worse) == "+20.00 [+20.00, +20.00]"


def test_bootstrap_covers_the_true_difference_in_most_experiments():
    """95 % intervals of 200 simulated test sets hold the true difference 180 to 200 times."""
    rng = np.random.default_rng(0)
    covered, excludes_zero = 0, 0
    for _ in range(200):
        base = rng.binomial(6, 0.10, 100)
        other = rng.binomial(6, 0.15, 100)  # true difference: 5 points
        interval = paired_bootstrap(other, base, [6] * 100, num_samples=400)
        covered += interval.low <= 5.0 <= interval.high
        excludes_zero += interval.low > 0.0
    assert 180 <= covered <= 199
    assert excludes_zero > 100


def test_many_speakers_are_drawn_as_wholes():
    """Where all errors are of one speaker in three, the interval is wider than over utterances."""
    errors = [1 if i // 10 % 3 == 0 else 0 for i in range(300)]  # 10 utterances of a speaker
    base, lengths = [0] * 300, [5] * 300

    def interval(speakers):
        return paired_bootstrap(errors, base, lengths, 1000, speakers=speakers)

    of_30, of_10 = ([str(i // size) for i in range(300)] for size in (10, 30))
    alone = interval(None)
    assert interval(of_30).difference == alone.difference
    assert interval(of_30).high - interval(of_30).low > 2 * (alone.high - alone.low)
    assert interval(of_10) == alone, "they are too few"


def test_bootstrap_refuses_unpaired_input():
    with pytest.raises(ValueError, match="got 1, 2 and 2 utterances"):
        paired_bootstrap([1], [1, 2], [3, 3])


@pytest.mark.parametrize(
    ("wer", "reference", "ok"),
    [(7.9, 7.6, True), (7.91, 7.6, False), (5.0, 7.6, True), (99.0, None, True)],
)
def test_judge(wer, reference, ok):
    status = judge(wer, reference, 0.3)
    assert (status == "ok") == ok
    assert ok or status == "failed: WER +0.31 over full depth (allowed +0.30)"
