"""The frame-synchronous decoders by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from espnet_layerskip.decoding.beam import PrefixScorer
from espnet_layerskip.decoding.confidence import WithConfidence
from espnet_layerskip.decoding.greedy import GreedyDecoder
from espnet_layerskip.decoding.hypothesis import CTCDecoder
from espnet_layerskip.decoding.lexicon import LexiconScorer, read_lexicon
from espnet_layerskip.decoding.ngram import load_ngram
from espnet_layerskip.decoding.prefix_beam import PrefixBeamDecoder
from espnet_layerskip.decoding.token_ngram import TokenNGram
from espnet_layerskip.method.settings import check_count

# Which decoders use an option; one for another is an error: the transcripts would not heed it.
USERS = {
    "ngram_file": ("ngram", "espnet"),
    "lexicon": ("ngram",),
    "penalty": ("ngram", "espnet"),
    "lm_file": ("espnet",),
    "ngram_weight": ("ngram", "espnet"),
    "beam_size": ("prefix_beam", "ngram", "espnet"),
    "drop_threshold": ("prefix_beam", "ngram", "espnet"),
    "ctc_weight": ("espnet",),
}


def check_used(decoder_type: str, **options: object) -> None:
    """Refuse options that a decoder cannot use.

    Args:
        decoder_type: Name of the decoder.
        options: Values of those of ``USERS``; None and 0 = not given.

    Raises:
        ValueError: Names the option and the decoders that use it.
    """
    for name, value in options.items():
        if value and decoder_type not in USERS[name]:
            raise ValueError(
                f"{name} is of no use to decoder_type {decoder_type}, it is for decoder_type "
                f"{' and '.join(USERS[name])}: leave it out, or choose another decoder"
            )


def make_decoder(
    decoder_type: str,
    token_list: Sequence[str],
    spell: Callable[[str], Sequence[str]],
    *,
    beam_size: int = 10,
    nbest: int = 1,
    drop_threshold: float | str = 1.0,
    ngram_file: str | Path | None = None,
    ngram_weight: float = 0.9,
    penalty: float = 0.0,
    lexicon: str | Path | None = None,
) -> CTCDecoder:
    """Build a decoder.

    Args:
        decoder_type: "greedy", "prefix_beam" or "ngram".
        token_list: Tokens of the model by id.
        spell: Gives the tokens of a word, for a lexicon that is only a list of words.
        beam_size: Prefixes kept after each frame.
        nbest: Hypotheses to return; the greedy decoder has one.
        drop_threshold: See :func:`~.frame_drop.drop_frames`.
        ngram_file: ARPA or KenLM binary: over words with a lexicon, else over tokens.
        ngram_weight: Of log10 p, as in ESPnet.
        penalty: Added for each token, or with a lexicon for each word.
        lexicon: Words to decode to; see :func:`~.lexicon.read_lexicon`.

    Raises:
        ValueError: For an unknown type, an option that it cannot use, or if "ngram" has neither
            an n-gram nor a lexicon.
    """
    check_used(decoder_type, ngram_file=ngram_file, lexicon=lexicon, penalty=penalty)
    check_count("beam_size", beam_size)
    check_count("nbest", nbest)
    if decoder_type == "greedy":
        return WithConfidence(GreedyDecoder())
    scorer: PrefixScorer | None = None
    if decoder_type == "ngram":
        if ngram_file is None and lexicon is None:
            raise ValueError("decoder_type ngram needs ngram_file, lexicon or both: give one")
        ngram = None if ngram_file is None else load_ngram(ngram_file)
        if lexicon is not None:
            words = read_lexicon(lexicon, token_list, spell)
            scorer = LexiconScorer(words, token_list, ngram, ngram_weight, penalty)
        elif ngram is not None:
            scorer = TokenNGram(ngram, token_list, ngram_weight, penalty)
    elif decoder_type != "prefix_beam":
        raise ValueError(f"decoder_type {decoder_type!r} is not a frame-synchronous decoder")
    return WithConfidence(PrefixBeamDecoder(beam_size, nbest, scorer, drop_threshold))
