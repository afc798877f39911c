import sys

import pytest

from espnet_layerskip.decoding.ngram import ArpaNGram
from espnet_layerskip.recipe import train_ngram
from espnet_layerskip.recipe.train_ngram import FALLBACK, count_ngrams, discounts, estimate

TEXT = ["A B A", "B A", "A C", "A B C A"]


def test_adjusted_counts():
    unigrams, bigrams = count_ngrams([["A", "B"], ["A", "A"]], 2)
    assert bigrams == {
        ("<s>", "A"): 2,
        ("A", "B"): 1,
        ("B", "</s>"): 1,
        ("A", "A"): 1,
        ("A", "</s>"): 1,
    }
    # different words before: A after <s> and A, B after A, </s> after B and A
    assert unigrams == {("A",): 2, ("B",): 1, ("</s>",): 2}
    _, middle, top = count_ngrams([["A", "B"], ["A", "A"]], 3)
    assert middle[("<s>", "A")] == 2  # nothing can be before it: its count
    assert middle[("A", "</s>")] == 1
    assert sum(top.values()) == 4


def test_discounts():
    # t1..t4 = 4, 2, 1, 1: Y = 4/8; D1 = 1 - 2*.5*2/4, D2 = 2 - 3*.5*1/2, D3 = 3 - 4*.5*1/1
    assert discounts([1, 1, 1, 1, 2, 2, 3, 4]) == pytest.approx((0.5, 1.25, 1.0))
    assert discounts([1, 1, 2]) == FALLBACK


def test_values_by_hand():
    """One sentence "A": both bigrams once, both unigrams once, fallback discounts 0.5."""
    probs, weights = estimate(count_ngrams([["A"]], 2))
    assert weights[()] == pytest.approx(0.5)  # 2 * 0.5 / 2
    assert probs[0] == pytest.approx({("A",): 5 / 12, ("</s>",): 5 / 12, ("<unk>",): 1 / 6})
    assert weights[("<s>",)] == pytest.approx(0.5)
    assert probs[1][("<s>", "A")] == pytest.approx(0.5 + 0.5 * 5 / 12)
    assert probs[1][("A", "</s>")] == pytest.approx(0.5 + 0.5 * 5 / 12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("token_type", ["word", "char"])
def test_the_file_sums_to_one_after_every_context(tmp_path, monkeypatch, order, token_type):
    text, arpa, words = tmp_path / "text", tmp_path / "lm.arpa", tmp_path / "words.txt"
    text.write_text("".join(f"utt{i} {line}\n" for i, line in enumerate([*TEXT * 3, "D", ""])))
    monkeypatch.setattr(
        sys,
        "argv",
        f"train_ngram --text {text} --order {order} --token_type {token_type} "
        f"--output {arpa} --words {words}".split(),
    )
    train_ngram.main()
    assert words.read_text() == "A\nB\nC\nD\n"
    model = ArpaNGram(arpa)
    assert model.order == order
    contexts = {(), model.start(), ("D",), *model._after}
    for context in contexts:
        if "</s>" in context:
            continue
        total = sum(10 ** model.score(context, w)[0] for w in model.unigrams if w != "<s>")
        assert total == pytest.approx(1.0, abs=1e-5), context


def test_bad_text():
    with pytest.raises(ValueError, match="the text holds </s>"):
        count_ngrams([["A", "</s>"]], 2)
    with pytest.raises(ValueError, match="no sentence"):
        count_ngrams([], 2)
    with pytest.raises(ValueError, match="order must be at least 1"):
        count_ngrams([["A"]], 0)
