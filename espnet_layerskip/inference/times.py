"""Times of tokens and words in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from espnet_layerskip.decoding.confidence import tempered, word_confidence
from espnet_layerskip.decoding.hypothesis import Word

SPACE, WORD_START = "<space>", "\u2581"  # of ESPnet's characters, of SentencePiece
# Feature frames for one encoder frame, by ESPnet's input_layer.
SUBSAMPLING = {"conv2d": 4, "conv2d1": 1, "conv2d2": 2, "conv2d6": 6, "conv2d8": 8, "linear": 1}

# Seconds that a word can go on after its last token's frames; see spread_words.
REACH = 0.3


def sample_rate(train_args: Any) -> int:
    """Return the rate in Hz that a training's frontend takes (ESPnet's default is 16000)."""
    rate = (getattr(train_args, "frontend_conf", None) or {}).get("fs", 16000)
    if isinstance(rate, str) and rate.lower().endswith("k"):
        return round(float(rate[:-1]) * 1000)
    return int(rate)


def frame_samples(model: Any, train_args: Any) -> int | None:
    """Return the samples of one encoder frame: hop length * subsampling.

    Args:
        model: ESPnet ASR model.
        train_args: Of its training.

    Returns:
        None where a frontend or an input layer does not say.
    """
    hop_length = getattr(model.frontend, "hop_length", None)
    encoder_conf = getattr(train_args, "encoder_conf", None) or {}
    factor = SUBSAMPLING.get(encoder_conf.get("input_layer", "conv2d"))
    if not hop_length or not factor or model.preencoder is not None:
        return None
    return int(hop_length * factor)


def word_times(
    token: Sequence[str],
    starts: Sequence[float],
    ends: Sequence[float],
    token_type: str | None,
    probs: Sequence[float] = (),
    temperature: float = 1.0,
) -> list[Word]:
    """Group tokens to words with their times, and how sure each is.

    Args:
        token: Tokens of a transcript.
        starts: Start of each token in seconds; empty gives no words.
        ends: End of each token in seconds.
        token_type: "char" (words are separated by ``<space>``), "bpe" (pieces that start a
            word are marked), anything else: each token is a word.
        probs: Probability of each token; empty: the words have no confidence.
        temperature: Of the confidences; see :func:`~.decoding.confidence.tempered`.

    Example:
        >>> word_times(["N", "O", "<space>", "A"], [0, 1, 2, 3], [1, 2, 3, 5], "char")
        [Word(text='NO', start=0, end=2, confidence=None),
         Word(text='A', start=3, end=5, confidence=None)]
    """
    words: list[Word] = []
    inside = False
    for i, (text, start, end) in enumerate(zip(token, starts, ends, strict=False)):
        sure = [float(probs[i])] if probs else None
        if token_type == "char" and text == SPACE:
            inside = False
            continue
        if token_type == "bpe" and text.startswith(WORD_START):
            text, inside = text.removeprefix(WORD_START), False
        if inside:
            before = words[-1]
            sure = None if sure is None else [before.confidence or 0.0, *sure]
            start, text = before.start, before.text + text
            words.pop()
        words.append(Word(text, start, end, None if sure is None else word_confidence(sure)))
        inside = token_type in ("char", "bpe")
    return [
        word
        if word.confidence is None
        else replace(word, confidence=float(tempered(word.confidence, temperature)))
        for word in words
        if word.text
    ]


def spread_words(words: Sequence[Word], seconds: float, reach: float = REACH) -> list[Word]:
    """Return the words with the time in which they were said, not only that of their tokens.

    A CTC head gives a token one frame or a few, near its onset, and blank to the rest of it. So a
    word begins with the first frame of its first token, and ends ``reach`` after the last frame of
    its last token, or where the next word begins.

    Args:
        words: In order, as `word_times` gives them.
        seconds: Length of the audio.
        reach: In seconds.

    Example:
        >>> spread_words([Word("A", 0.1, 0.14), Word("B", 0.3, 0.34)], 1.0, reach=0.25)
        [Word(text='A', start=0.1, end=0.3, confidence=None),
         Word(text='B', start=0.3, end=0.59, confidence=None)]
    """
    limits = [*(word.start for word in words[1:]), seconds]
    return [
        replace(word, end=max(word.end, min(round(word.end + reach, 3), limit)))
        for word, limit in zip(words, limits, strict=False)
    ]


def ctm_lines(utt_id: str, words: Iterable[Word], confidence: bool = False) -> list[str]:
    """Return lines "utt_id channel start duration word [confidence]" of Kaldi's and sclite's CTM.

    Start and end are rounded, and the duration is what is between them: words that do not overlap
    do not overlap here.
    """
    lines = []
    for word in words:
        start, end = round(100 * word.start), round(100 * word.end)
        end = max(end, start + 1)
        line = f"{utt_id} 1 {start / 100:.2f} {(end - start) / 100:.2f} {word.text}"
        sure = f" {word.confidence:.4f}" if confidence and word.confidence is not None else ""
        lines.append(line + sure)
    return lines
