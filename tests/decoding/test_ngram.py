import gzip
import importlib.util
import itertools
import math
import random

import numpy as np
import pytest
import torch

from espnet_layerskip.decoding import PrefixBeamDecoder, make_decoder
from espnet_layerskip.decoding.lexicon import LexiconScorer, read_lexicon
from espnet_layerskip.decoding.ngram import ArpaNGram, KenLMNGram, load_ngram
from espnet_layerskip.decoding.token_ngram import TokenNGram
from tests.decoding.ctc_reference import all_sequences

# p(a) = 0.4, p(b) = 0.25, p(</s>) = 0.3, p(<unk>) = 0.05; p(b | a) = 0.6, p(a | <s>) = 0.5
ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-0.39794\ta\t-0.2
-0.60206\tb
-0.52288\t</s>
-1.30103\t<unk>
-99\t<s>\t-0.1

\\2-grams:
-0.22185\ta b
-0.30103\t<s> a

\\end\\
"""


@pytest.fixture
def arpa(tmp_path):
    path = tmp_path / "2gram.arpa"
    path.write_text(ARPA)
    return path


def test_probabilities_with_and_without_backing_off(arpa):
    model = ArpaNGram(arpa)
    start = model.start()
    assert model.score(start, "a") == (-0.30103, ("a",))
    assert model.score(start, "b")[0] == pytest.approx(-0.1 - 0.60206)
    assert model.score(("a",), "b") == (-0.22185, ())
    assert model.score(("a",), "a")[0] == pytest.approx(-0.2 - 0.39794)
    assert model.score(("a",), "never seen")[0] == pytest.approx(-0.2 - 1.30103)
    assert model.unigram("b") == -0.60206
    words = ["a", "b", "</s>", "never seen"]
    for state in ((), start, ("a",)):
        expected = [model.score(state, word)[0] for word in words]
        assert model.vector(state, words).tolist() == pytest.approx(expected)


def test_compressed_files_and_what_is_no_model(arpa, tmp_path):
    packed = tmp_path / "2gram.arpa.gz"
    packed.write_bytes(gzip.compress(arpa.read_bytes()))
    assert load_ngram(packed).unigram("a") == -0.39794
    with pytest.raises(ValueError, match="no such n-gram file"):
        load_ngram(tmp_path / "none.arpa")
    arpa.write_text(ARPA.replace("-0.60206\tb", "b"))
    with pytest.raises(ValueError, match=r"2gram.arpa:7: not of the ARPA format: 'b'"):
        load_ngram(arpa)
    arpa.write_text(ARPA.replace("\\end\\", ""))
    with pytest.raises(ValueError, match="cut off"):
        load_ngram(arpa)


WORLD = {
    "as it is": lambda text: text,
    "Windows": lambda text: "\ufeff" + text.replace("\n", "\r\n"),
    "comments": lambda text: "# made by a tool\nngrams of words\n\n" + text,
    "tabs": lambda text: text.replace("ngram 1", "ngram\t1").replace("a b", "a\tb"),
    "spaces": lambda text: text.replace("\t", "  "),
    "missing orders": lambda text: text.replace("ngram 2=2", "ngram 2=2\nngram 3=0"),
    "CMU": lambda text: text.replace("<unk>", "<UNK>").replace("ngram 1=5", "ngram 1= 5"),
}


@pytest.mark.parametrize("tool", WORLD)
@pytest.mark.parametrize("packed", [False, True])
def test_what_tools_write_is_read(arpa, tmp_path, tool, packed):
    expected = ArpaNGram(arpa)
    content = WORLD[tool](ARPA).encode()
    path = tmp_path / "other"
    path.write_bytes(gzip.compress(content) if packed else content)
    model = load_ngram(path)
    words = ["a", "b", "</s>", "never seen"]
    for state in ((), model.start(), ("a",)):
        assert model.vector(state, words).tolist() == expected.vector(state, words).tolist()


def test_white_space_of_unicode_belongs_to_a_word(arpa):
    for space in "\xa0\u3000":
        arpa.write_text(ARPA.replace("\tb\n", f"\tb{space}b\n").replace("a b", f"a b{space}b"))
        assert load_ngram(arpa).score(("a",), f"b{space}b")[0] == -0.22185


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"iARPA\n\\data\\\n", ":1: IRSTLM's own format: convert it"),
        (b"<html>", r"has no \\data"),
        (ARPA.replace("\ta\t", "\t\xe9\t").encode("latin-1"), ":6: the line is not UTF-8"),
        (b"qARPA\n\\data\\\n", ":1: IRSTLM's own format: convert it"),
        (ARPA.replace("ngram 1=", "ngram 1=1").encode(), r"head says ngram 1=1\d+, but there are"),
        (ARPA.replace("-0.60206", "nan").encode(), ":7: not of the ARPA format"),
        (ARPA.replace("-0.60206", "inf").encode(), ":7: not of the ARPA format"),
        (gzip.compress(ARPA.encode(), mtime=0)[:40], "gzip cannot unpack more of it"),
    ],
    ids=["IRSTLM", "HTML", "Latin-1", "IRSTLM quantized", "counts", "NaN", "infinite", "cut off"],
)
def test_what_cannot_be_read_is_named(arpa, content, message):
    arpa.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_ngram(arpa)


def test_log_zero_and_what_a_model_may_lack(arpa):
    arpa.write_text(ARPA.replace("-99\t<s>", "-inf\t<s>").replace("-0.60206", "-inf"))
    model = load_ngram(arpa)
    assert model.unigram("b") == model.unigram("<s>") == -99
    assert np.isfinite(0.0 * model.vector(model.start(), ["a", "b"])).all()
    fewer = ARPA.replace("ngram 1=5", "ngram 1=3").replace("-1.30103\t<unk>\n", "")
    arpa.write_text(fewer.replace("-99\t<s>\t-0.1\n", ""))
    model = load_ngram(arpa)  # no <unk>, and <s> as a context only
    assert model.unigram("never seen") == -100
    assert model.score(model.start(), "a")[0] == -0.30103
    gap = ARPA.replace("ngram 2=2", "ngram 2=0\nngram 3=1").replace("\\2-grams:", "\\3-grams:")
    gap = gap.replace("a b", "<s> a b").replace("<s> a\n", "")
    arpa.write_text(gap.replace("-0.30103\t\n", "").replace("-0.30103\t", ""))
    model = load_ngram(arpa)  # no 2-grams
    assert model.score(model.score(model.start(), "a")[1], "b")[0] == -0.22185


def test_a_binary_without_kenlm_names_the_command(tmp_path, monkeypatch):
    binary = tmp_path / "2gram.bin"
    binary.write_bytes(b"mmap lm http://kheafield.com/code")
    monkeypatch.setitem(__import__("sys").modules, "kenlm", None)
    with pytest.raises(ValueError, match="needs: pip install kenlm"):
        load_ngram(binary)


@pytest.mark.skipif(importlib.util.find_spec("kenlm") is None, reason="needs kenlm")
def test_the_same_numbers_as_kenlm(arpa):
    ours, theirs = ArpaNGram(arpa), KenLMNGram(arpa)
    rng = random.Random(0)
    for _ in range(30):
        one, other = ours.start(), theirs.start()
        for word in rng.choices(["a", "b", "c"], k=5):
            assert ours.vector(one, ["a", "b", "c"]) == pytest.approx(
                theirs.vector(other, ["a", "b", "c"]), rel=1e-5
            )
            (p, one), (q, other) = ours.score(one, word), theirs.score(other, word)
            assert p == pytest.approx(q, rel=1e-5)
    assert ours.unigram("a") == pytest.approx(theirs.unigram("a"), rel=1e-5)


def posteriors(seed, num_frames, vocab):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(num_frames, vocab, generator=gen).double().log_softmax(-1)


def best(log_probs, scorer):
    decoder = PrefixBeamDecoder(500, nbest=500, scorer=scorer)
    [hyps] = decoder(log_probs[None], torch.tensor([len(log_probs)]))
    return {tuple(h.token_int): h.score for h in hyps}


def sentence(model, words):
    state, total = model.start(), 0.0
    for word in [*words, "</s>"]:
        log10, state = model.score(state, word)
        total += log10
    return total


def test_tokens_every_sequence_has_the_score_of_the_formula(arpa):
    model = ArpaNGram(arpa)
    log_probs = posteriors(0, 4, 3)
    got = best(log_probs, TokenNGram(model, ["<blank>", "a", "b"], weight=1.5, penalty=0.25))
    expected = {
        y: score + 1.5 * sentence(model, ["_ab"[k] for k in y]) + 0.25 * len(y)
        for y, score in all_sequences(log_probs.numpy()).items()
    }
    assert got == pytest.approx(expected)


TOKENS = ["<blank>", "x", "y", "<space>"]
LEXICON = {"a": [[1]], "b": [[1, 2], [2]], "c": [[2, 2]]}


def test_lexicon_every_sequence_of_words_has_the_score_of_the_formula(arpa):
    model = ArpaNGram(arpa)
    log_probs = posteriors(1, 5, 4)
    got = best(log_probs, LexiconScorer(LEXICON, TOKENS, model, weight=0.7, penalty=-0.3))
    spelled = {(1,): "a", (1, 2): "b", (2,): "b", (2, 2): "c"}
    expected = {}
    for y, score in all_sequences(log_probs.numpy()).items():
        parts = [tuple(g) for is_space, g in itertools.groupby(y, lambda k: k == 3) if not is_space]
        trailing = y[:-1] if y[-1:] == (3,) else y
        single = "  " not in "".join(" " if k == 3 else "x" for k in y)
        if trailing[:1] == (3,) or (y and not trailing) or not single:
            continue
        if all(part in spelled for part in parts):
            words = [spelled[part] for part in parts]
            expected[y] = score + 0.7 * sentence(model, words) - 0.3 * len(words)
    assert len(expected) > 10
    assert got == pytest.approx(expected)


def test_pieces_without_a_space_token(arpa):
    """A repeated last token of a word is no second word; two words "p" need a blank between."""
    tokens = ["<blank>", "\u2581p", "q"]
    scorer = LexiconScorer({"a": [[1]], "b": [[1, 2]]}, tokens, ArpaNGram(arpa), weight=0.0)
    p = torch.tensor([[0.02, 0.96, 0.02], [0.02, 0.02, 0.96], [0.02, 0.02, 0.96]]).log()
    [[hyp]] = PrefixBeamDecoder(scorer=scorer)(p[None], torch.tensor([3]))
    assert hyp.token_int == [1, 2]
    assert hyp.score > math.log(0.96**3)
    p = torch.tensor([[0.02, 0.96, 0.02], [0.96, 0.02, 0.02], [0.02, 0.96, 0.02]]).log()
    [[hyp]] = PrefixBeamDecoder(scorer=scorer, drop_threshold=0.9)(p[None], torch.tensor([3]))
    assert hyp.token_int == [1, 1]


def test_an_unfinished_word_is_returned_where_nothing_else_is_in_the_beam():
    scorer = LexiconScorer({"yx": [[2, 1]]}, TOKENS)
    p = torch.tensor([[0.0, 0.0, 1.0, 0.0]]).log()
    [[hyp]] = PrefixBeamDecoder(2, scorer=scorer)(p[None], torch.tensor([1]))
    assert hyp.token_int == [2]


def test_lexicon_files(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("XY\nYES y\n\nYES  x y\n")
    spell = {"XY": ["x", "y"]}
    assert read_lexicon(path, TOKENS, spell.__getitem__) == {"XY": [[1, 2]], "YES": [[2], [1, 2]]}
    with pytest.raises(ValueError, match="XY and YES are spelled alike"):
        LexiconScorer(read_lexicon(path, TOKENS, spell.__getitem__), TOKENS)
    path.write_text("A a\n")
    with pytest.raises(ValueError, match=r"lexicon.txt:1: the model has no token a"):
        read_lexicon(path, TOKENS, list)
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no word"):
        read_lexicon(path, TOKENS, list)
    with pytest.raises(ValueError, match=r"tokens \[1\] cannot both start words and go on"):
        LexiconScorer({"a": [[1]], "b": [[2, 1]]}, TOKENS[:3])


def test_make_decoder(arpa):
    for name in ("greedy", "prefix_beam"):
        decoder = make_decoder(name, TOKENS, list)
        assert decoder(torch.zeros(1, 0, 4), torch.tensor([0]))[0][0].token_int == []
    with pytest.raises(ValueError, match="needs ngram_file, lexicon or both"):
        make_decoder("ngram", TOKENS, list)
    with pytest.raises(ValueError, match="so it is one over words"):
        make_decoder("ngram", TOKENS, list, ngram_file=arpa)
    assert np.isfinite(
        make_decoder("ngram", ["<blank>", "a", "b"], list, ngram_file=arpa)(
            torch.zeros(1, 2, 3), torch.tensor([2])
        )[0][0].score
    )


def test_tables_of_words_as_the_world_writes_them(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_bytes("\ufeffXY \tx\u00a0 y\r\n\r\nYES\ty\r\n".encode())
    tokens = [*TOKENS, "x\u00a0"]
    assert read_lexicon(path, tokens, list) == {"XY": [[len(TOKENS), 2]], "YES": [[2]]}
    path.write_bytes(b"XY x\nCAF\xc9 y\n")
    with pytest.raises(ValueError, match=r"lexicon.txt:2: the line is not UTF-8 \(byte 0xc9\)"):
        read_lexicon(path, TOKENS, list)


def test_an_ngram_over_other_words_is_refused(arpa):
    with pytest.raises(ValueError, match=r"knows none of the lexicon's words \(XY, .*It has a, b"):
        LexiconScorer({"XY": [[1, 2]]}, TOKENS, load_ngram(arpa))


@pytest.mark.parametrize("decoder", ["greedy", "prefix_beam"])
@pytest.mark.parametrize("option", [{"lexicon": "x"}, {"penalty": -1.0}, {"ngram_file": "x"}])
def test_options_that_a_decoder_cannot_use_are_refused(decoder, option):
    with pytest.raises(
        ValueError, match=f"{next(iter(option))} is of no use to .*{decoder}, .*ngram"
    ):
        make_decoder(decoder, TOKENS, list, **option)


@pytest.mark.parametrize("line", ["a <blank>", "a a <sos/eos>"])
def test_a_word_that_no_search_can_say_is_refused(tmp_path, line):
    (tmp_path / "words").write_text(f"b b\n{line}\n")
    tokens = ["<blank>", "a", "b", "<sos/eos>"]
    with pytest.raises(ValueError, match=r"words:2: the model has no token <.*> that a word can"):
        read_lexicon(tmp_path / "words", tokens, list)


def test_a_probability_above_one_is_refused(tmp_path):
    (tmp_path / "a.arpa").write_text("\\data\\\n\\1-grams:\n1e-5 a\n1.5 b\n\\end\\\n")
    with pytest.raises(ValueError, match=r"a.arpa:4: not of the ARPA format: '1.5 b'"):
        load_ngram(tmp_path / "a.arpa")
