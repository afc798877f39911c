"""Token list and SentencePiece model of characters with OWSM's symbols.

ESPnet's preprocessor of OWSM-CTC counts on SentencePiece's way with symbols (a space comes
before the first of them), so that its ``token_type: char`` does not fit.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from windows import SYMBOLS

from espnet_layerskip.files import read_table, run_main, write_text
from espnet_layerskip.recipe.token_list import train_bpe, write_blank_bias


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", required=True, type=Path, help="text.ctc of the training set")
    parser.add_argument("--output", required=True, type=Path, help="Directory")
    args = parser.parse_args()
    words = [t for t in read_table(args.text, allow_empty_value=True).values() if t]
    pieces = train_bpe(
        words, args.output / "bpe", nbpe=1000, mode="char", symbols=",".join(SYMBOLS)
    )
    tokens = ["<blank>", "<unk>", *pieces, "<sos>", "<eos>", "<sop>"]
    write_text(args.output / "tokens.txt", "".join(f"{token}\n" for token in tokens))
    write_blank_bias(args.output / "blank_bias.pth", len(tokens))


if __name__ == "__main__":
    run_main(main)
