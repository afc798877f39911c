"""Decode a whole test set with one system: transcripts, skipped frames, FLOPs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

from espnet_layerskip.evaluation.flops import counting_flops
from espnet_layerskip.evaluation.inputs import TestSet
from espnet_layerskip.evaluation.scoring import characters, check_hypotheses, words
from espnet_layerskip.evaluation.systems import Skipped, System, skipped_of
from espnet_layerskip.recipe.score_table import Counts, count_errors


@dataclass(frozen=True)
class Decoded:
    """Greedy decoding of a test set, batch 1.

    Attributes:
        hyps: Transcript of each utterance.
        skipped: Skipped frames and layers, over the whole set.
        encoder_flops: FLOPs of the encoder, over the whole set; 0 = not counted.
        audio_seconds: Duration of the whole set.
    """

    hyps: dict[str, str]
    skipped: Skipped
    encoder_flops: int
    audio_seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return plain types; `from_json` reads them."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Decoded:
        """Undo `to_json`."""
        return Decoded(**{**data, "skipped": Skipped(**data["skipped"])})


@dataclass(frozen=True)
class Scores:
    """Errors of one system on a test set.

    Attributes:
        wer: Word errors of each utterance.
        cer: Character errors of each utterance; a space is a character, as in ESPnet.
        ter: Token errors of each utterance, in the model's own tokens.
    """

    wer: dict[str, Counts]
    cer: dict[str, Counts]
    ter: dict[str, Counts]

    def total(self, kind: str) -> Counts:
        """Return the counts of "wer", "cer" or "ter" over the whole set."""
        return sum(getattr(self, kind).values(), Counts())


def decode_test_set(system: System, data: TestSet, with_flops: bool = True) -> Decoded:
    """Transcribe every utterance alone and count what its encoder did."""
    hyps, skipped = {}, Skipped()
    if with_flops:
        system.warm_up(data.speech)
    with counting_flops(system.encoder) if with_flops else nullcontext(lambda: 0) as flops:
        for speech in data.speech:
            hyps[speech.utt_id], count = system.transcribe(speech)
            if count.num_frames == 0:
                raise ValueError(f"{speech.utt_id} is too short: remove it from the test set")
            skipped += skipped_of(system.encoder, count.num_frames)  # of that very forward
    return Decoded(hyps, skipped, flops(), data.seconds)


def score(system: System, data: TestSet, decoded: Decoded) -> Scores:
    """Count the errors of transcripts against the references, as they are.

    Raises:
        ValueError: If a transcript is missing or all are empty.
    """
    check_hypotheses(data.text, decoded.hyps)
    tokenizer = system.experiment.speech2text.tokenizer

    def tokens(text: str) -> list[str]:
        return characters(text) if tokenizer is None else list(tokenizer.text2tokens(text))

    wer, cer, ter = (
        {utt: count_errors(split(ref), split(decoded.hyps[utt])) for utt, ref in data.text.items()}
        for split in (words, characters, tokens)
    )
    return Scores(wer, cer, ter)
