"""Times of tokens and words in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from espnet_layerskip.decoding.hypothesis import Word

SPACE, WORD_START = "<space>", "\u2581"  # of ESPnet's characters, of SentencePiece
# Feature frames for one encoder frame, by ESPnet's input_layer.
SUBSAMPLING = {"conv2d": 4, "conv2d1": 1, "conv2d2": 2, "conv2d6": 6, "conv2d8": 8, "linear": 1}


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
) -> list[Word]:
    """Group tokens to words with their times.

    Args:
        token: Tokens of a transcript.
        starts: Start of each token in seconds; empty gives no words.
        ends: End of each token in seconds.
        token_type: "char" (words are separated by ``<space>``), "bpe" (pieces that start a
            word are marked), anything else: each token is a word.

    Example:
        >>> word_times(["N", "O", "<space>", "A"], [0, 1, 2, 3], [1, 2, 3, 5], "char")
        [Word(text='NO', start=0, end=2), Word(text='A', start=3, end=5)]
    """
    words: list[Word] = []
    inside = False
    for text, start, end in zip(token, starts, ends, strict=False):
        if token_type == "char" and text == SPACE:
            inside = False
            continue
        if token_type == "bpe" and text.startswith(WORD_START):
            text, inside = text.removeprefix(WORD_START), False
        if inside:
            words[-1] = Word(words[-1].text + text, words[-1].start, end)
        else:
            words.append(Word(text, start, end))
        inside = token_type in ("char", "bpe")
    return [word for word in words if word.text]


def ctm_lines(utt_id: str, words: Iterable[Word]) -> list[str]:
    """Return lines "utt_id channel start duration word" of Kaldi's and sclite's CTM."""
    return [f"{utt_id} 1 {w.start:.2f} {w.end - w.start:.2f} {w.text}" for w in words]
