"""Stage 9: an n-gram language model over tokens or words, as an ARPA file.

Example::

    python -m espnet_layerskip.recipe.train_ngram --order 3 --token_type word \\
        --text dump/raw/lm_train.txt --output exp/ngram/3gram.arpa --words exp/ngram/words.txt

Interpolated modified Kneser-Ney smoothing without pruning (Chen and Goodman, Computer Speech and
Language 13, 1999; the counts and fallbacks are those of KenLM's ``lmplz --discount_fallback``),
for text that fits into memory. A model that lmplz or another toolkit made may be used instead.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from espnet_layerskip.files import read_table, run_main, write_text
from espnet_layerskip.recipe.tokenizer import TOKEN_TYPES, make_tokenizer

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
FALLBACK = (0.5, 1.0, 1.5)  # where the counts are too few to estimate discounts from

Gram = tuple[str, ...]


def count_ngrams(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[Gram]]:
    """Return the adjusted counts of the 1-grams, 2-grams, ...

    The highest order has its counts. A lower one has the number of different words before
    it; where it starts the sentence its count, as nothing can be before it.

    Args:
        sentences: Words (or tokens) of each sentence.
        order: Of the model, at least 1.

    Raises:
        ValueError: If there is no sentence, or one holds ``<s>`` or ``</s>``.
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, but got {order}")
    counts: list[Counter[Gram]] = [Counter() for _ in range(order)]
    for words in sentences:
        if reserved := {START, END} & set(words):
            raise ValueError(f"the text holds {', '.join(sorted(reserved))}: remove it")
        padded = (START, *words, END)
        for i in range(len(padded)):
            for n in range(1, min(order, len(padded) - i) + 1):
                counts[n - 1][padded[i : i + n]] += 1
    if not counts[0]:
        raise ValueError("the text holds no sentence")
    for n in range(order - 1):
        before = Counter(gram[1:] for gram in counts[n + 1])
        for gram in counts[n]:
            if gram[0] != START:
                counts[n][gram] = before[gram]
    del counts[0][(START,)]
    return counts


def discounts(counts: Iterable[int]) -> tuple[float, float, float]:
    """Return D1, D2 and D3+ of Chen and Goodman's equation 26, or FALLBACK."""
    t = Counter(counts)
    if not (t[1] and t[2] and t[3]):
        return FALLBACK
    y = t[1] / (t[1] + 2 * t[2])
    d1, d2, d3 = (k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3))
    return (d1, d2, d3) if 0 <= d1 <= 1 and 0 <= d2 <= 2 and 0 <= d3 <= 3 else FALLBACK


def estimate(counts: Sequence[Counter[Gram]]) -> tuple[list[dict[Gram, float]], dict[Gram, float]]:
    """Return the interpolated probabilities by order, and the back-off weight of each context.

    p(w | context) = (c - D(c)) / sum of c + weight(context) * p(w | shorter context), and below
    the 1-grams every word and ``<unk>`` have the same probability.

    Args:
        counts: Of :func:`count_ngrams`.
    """
    vocabulary = {*counts[0], (UNKNOWN,)}
    probs: list[dict[Gram, float]] = []
    weights: dict[Gram, float] = {}
    for order_counts in counts:
        discount = (0.0, *discounts(order_counts.values()))
        total: defaultdict[Gram, float] = defaultdict(float)
        taken: defaultdict[Gram, float] = defaultdict(float)
        for gram, count in order_counts.items():
            total[gram[:-1]] += count
            taken[gram[:-1]] += discount[min(count, 3)]
        weights.update({context: taken[context] / total[context] for context in total})
        order_probs = {}
        for gram in order_counts if probs else vocabulary:
            context, count = gram[:-1], order_counts[gram]
            lower = probs[-1][gram[1:]] if probs else 1.0 / len(vocabulary)
            high = (count - discount[min(count, 3)]) / total[context]
            order_probs[gram] = high + weights[context] * lower
        probs.append(order_probs)
    return probs, weights


def write_arpa(path: Path, probs: Sequence[dict[Gram, float]], weights: dict[Gram, float]) -> None:
    """Write a model of :func:`estimate`."""
    orders = [dict(order_probs) for order_probs in probs]
    orders[0][(START,)] = 0.0  # never predicted
    lines = ["\\data\\", *(f"ngram {n}={len(grams)}" for n, grams in enumerate(orders, 1))]
    for n, grams in enumerate(orders, 1):
        lines += ["", f"\\{n}-grams:"]
        for gram in sorted(grams):
            line = f"{math.log10(grams[gram]) if grams[gram] else -99:.7g}\t{' '.join(gram)}"
            lines.append(f"{line}\t{math.log10(weights[gram]):.7g}" if gram in weights else line)
    write_text(path, "\n".join([*lines, "", "\\end\\", ""]))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Estimate an n-gram language model")
    parser.add_argument("--text", required=True, nargs="+", help="Kaldi text file(s)")
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--token_type", default="word", choices=TOKEN_TYPES)
    parser.add_argument("--bpemodel", default="none")
    parser.add_argument("--nlsyms_txt", default="none", help="Non-linguistic symbols")
    parser.add_argument("--output", required=True, type=Path, help="ARPA file")
    parser.add_argument("--words", type=Path, help="Write the words of the text, one a line")
    args = parser.parse_args()
    texts = [
        " ".join(text.split())
        for path in args.text
        for text in read_table(path, allow_empty_value=True).values()
    ]
    tokenize = make_tokenizer(args.token_type, bpemodel=args.bpemodel, nlsyms_txt=args.nlsyms_txt)
    counts = count_ngrams((tokenize(text) for text in texts if text), args.order)
    write_arpa(args.output, *estimate(counts))
    sizes = ", ".join(f"{len(c)} {n}-grams" for n, c in enumerate(counts, 1))
    logging.info("%d sentences, %s (%s) -> %s", len(texts), sizes, args.token_type, args.output)
    if args.words:
        words = sorted({word for text in texts for word in text.split()})
        write_text(args.words, "".join(f"{word}\n" for word in words))


if __name__ == "__main__":
    run_main(main)
