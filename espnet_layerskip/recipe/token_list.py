"""Stage 5: the token list, in ESPnet's order: <blank>, <unk>, by falling count, <sos/eos>.

Beside it, ``blank_bias.pth`` for ESPnet's ``init_param``: see :func:`write_blank_bias`.

Example::

    python -m espnet_layerskip.recipe.token_list --token_type char --text dump/raw/train/text \\
        --output data/en_token_list/char/tokens.txt
"""

from __future__ import annotations

import argparse
import io
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from espnet_layerskip.files import read_table, run_main, some, write_bytes, write_text
from espnet_layerskip.recipe.tokenizer import TOKEN_TYPES, make_tokenizer

BLANK, UNK, SOS_EOS = "<blank>", "<unk>", "<sos/eos>"
SPM_RESERVED = ("<unk>", "<s>", "</s>")


def count_tokens(texts: Iterable[str], token_type: str, nlsyms_txt: str = "none") -> list[str]:
    """Return the characters or words by falling count; equal counts as they come first."""
    tokenize = make_tokenizer(token_type, nlsyms_txt=nlsyms_txt)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenize(text))
    return [token for token, _ in counts.most_common()]


def train_bpe(
    texts: Iterable[str],
    prefix: Path,
    *,
    nbpe: int,
    mode: str = "unigram",
    char_cover: float = 1.0,
    symbols: str = "",
) -> list[str]:
    """Train SentencePiece, write PREFIX.model and PREFIX.vocab, return its pieces in their order.

    Raises:
        ValueError: SentencePiece cannot reach ``nbpe`` pieces with this text.
    """
    import sentencepiece

    prefix.parent.mkdir(parents=True, exist_ok=True)
    train_text = prefix.parent / "train.txt"
    write_text(train_text, "".join(f"{text}\n" for text in texts))
    try:
        sentencepiece.SentencePieceTrainer.train(
            input=str(train_text),
            model_prefix=str(prefix),
            vocab_size=nbpe,
            model_type=mode,
            character_coverage=char_cover,
            user_defined_symbols=symbols.split(",") if symbols else [],
            minloglevel=1,
        )
    except RuntimeError as err:
        raise ValueError(f"SentencePiece cannot make nbpe={nbpe} pieces ({mode}): {err}") from err
    lines = Path(f"{prefix}.vocab").read_text(encoding="utf-8").split("\n")
    pieces = [line.split("\t")[0] for line in lines if line]
    return [piece for piece in pieces if piece not in SPM_RESERVED]


def check_white_space(table: Mapping[str, str], path: str) -> None:
    """Refuse white space that ESPnet would strip from a list of characters: the token "" remained.

    Args:
        table: Transcript by utterance.
        path: Where it comes from, for the error.

    Raises:
        ValueError: White space other than the space; names utterances and characters.
    """
    found = {
        f"{utt} (U+{ord(char):04X})"
        for utt, text in table.items()
        for char in text
        if char.isspace() and char != " "
    }
    if found:
        raise ValueError(
            f"{path}: transcripts have white space that cannot be a token: {some(found)}; "
            "replace it by a space, or choose --token_type bpe or word"
        )


def write_blank_bias(path: Path, num_tokens: int) -> None:
    """Write the bias of a CTC head that starts at p(blank) = 0.5, as parameters of ESPnet.

    ESPnet's head starts at p(blank) = 1/V and then aligns labels to frames that should be
    blank; on AN4 that made the first epochs several times slower. Our own heads start at
    0.5 by themselves; a stock model does so with ``init_param: [.../blank_bias.pth]``.
    """
    import torch

    bias = torch.zeros(num_tokens)
    bias[0] = math.log(num_tokens - 1)
    content = io.BytesIO()
    torch.save({"ctc.ctc_lo.bias": bias}, content)
    write_bytes(path, content.getvalue())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Write a token list")
    parser.add_argument("--token_type", default="char", choices=TOKEN_TYPES)
    parser.add_argument("--text", required=True, nargs="+", help="Kaldi text file(s)")
    parser.add_argument("--output", required=True, type=Path, help="tokens.txt")
    parser.add_argument("--nlsyms_txt", default="none", help="Non-linguistic symbols")
    parser.add_argument("--nbpe", type=int, default=30, help="Number of SentencePiece pieces")
    parser.add_argument("--bpemode", default="unigram", choices=("unigram", "bpe"))
    parser.add_argument("--bpe_char_cover", type=float, default=1.0)
    parser.add_argument("--bpe_nlsyms", default="", help="Symbols kept whole, joined by commas")
    args = parser.parse_args()
    texts: list[str] = []
    for path in args.text:
        table = read_table(path, allow_empty_value=True)
        if args.token_type == "char":
            check_white_space(table, path)
        texts += [t for t in table.values() if t]
    if not texts:
        raise ValueError(f"{' '.join(args.text)}: every transcript is empty")
    if args.token_type == "bpe":
        tokens = train_bpe(
            texts,
            args.output.parent / "bpe",
            nbpe=args.nbpe,
            mode=args.bpemode,
            char_cover=args.bpe_char_cover,
            symbols=args.bpe_nlsyms,
        )
    else:
        tokens = count_tokens(texts, args.token_type, args.nlsyms_txt)
    tokens = [token for token in tokens if token not in (BLANK, UNK, SOS_EOS)]
    tokens = [BLANK, UNK, *tokens, SOS_EOS]
    write_text(args.output, "".join(f"{token}\n" for token in tokens))
    write_blank_bias(args.output.with_name("blank_bias.pth"), len(tokens))
    logging.info("%d tokens (%s) -> %s", len(tokens), args.token_type, args.output)


if __name__ == "__main__":
    run_main(main)
