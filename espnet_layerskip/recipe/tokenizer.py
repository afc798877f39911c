"""Text to tokens as ESPnet does it: characters, words, or SentencePiece."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from espnet_layerskip.files import read_lines

SPACE = "<space>"
TOKEN_TYPES = ("char", "bpe", "word")

Tokenize = Callable[[str], list[str]]


def read_symbols(path: str | None) -> list[str]:
    """Read non-linguistic symbols, one a line; None and 'none' mean that there are none."""
    if path in (None, "none", ""):
        return []
    return [line.strip() for _, line in read_lines(str(path)) if line.strip()]


def split_chars(text: str, symbols: list[str]) -> list[str]:
    """Split into characters; a space becomes <space>, a non-linguistic symbol stays whole.

    >>> split_chars("A B<laugh>", ["<laugh>"])
    ['A', '<space>', 'B', '<laugh>']
    """
    tokens: list[str] = []
    at = 0
    while at < len(text):
        symbol = next((s for s in symbols if text.startswith(s, at)), None)
        if symbol is None:
            tokens.append(SPACE if text[at] == " " else text[at])
            at += 1
        else:
            tokens.append(symbol)
            at += len(symbol)
    return tokens


def make_tokenizer(token_type: str, *, bpemodel: str = "", nlsyms_txt: str = "none") -> Tokenize:
    """Return the function from a transcript to its tokens.

    Raises:
        ValueError: A token type that is not char, bpe or word, or no such bpemodel.
    """
    if token_type == "char":
        symbols = read_symbols(nlsyms_txt)
        return lambda text: split_chars(text, symbols)
    if token_type == "word":
        return str.split
    if token_type == "bpe":
        if not Path(bpemodel).is_file():
            raise ValueError(f"bpemodel '{bpemodel}': no such file; stage 5 makes it")
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor()
        try:
            model.load(str(bpemodel))
        except (RuntimeError, OSError) as err:
            raise ValueError(f"bpemodel '{bpemodel}' is no SentencePiece model: {err}") from err
        return lambda text: list(model.EncodeAsPieces(text))
    raise ValueError(f"token_type '{token_type}': choose one of {', '.join(TOKEN_TYPES)}")
