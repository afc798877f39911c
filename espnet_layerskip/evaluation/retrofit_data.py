"""What a retrofit learns from and is judged on: utterances, transcripts, a held-out share."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from espnet_layerskip._compat import TooShortUttError
from espnet_layerskip.evaluation.inputs import Speech, TestSet, left_out, located, read_tables
from espnet_layerskip.files import refuse_segments, some
from espnet_layerskip.inference.audio import AudioBlocks, Utterance
from espnet_layerskip.inference.posteriors import extract_features, prepare
from espnet_layerskip.training.retrofit import Example

# Seconds; what is shorter has no word, what is longer needs the square of its length in memory.
SHORTEST, LONGEST = 0.3, 30.0
MAX_UNKNOWN = 0.01  # share of a data set's tokens
_COPY = re.compile(r"^sp\d+(\.\d+)?-")  # of ESPnet's and Kaldi's speed perturbation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """A data directory of which only ``wav.scp`` is needed.

    Attributes:
        name: Of the directory.
        wav: Audio file of each utterance.
        text: Transcripts; of some utterances, or of none.
        utt2spk: Speaker of each utterance; where none is known, the utterance itself.
        refused: Why lines of its tables, and their utterances, are left out.
    """

    name: str
    wav: dict[str, str]
    text: dict[str, str]
    utt2spk: dict[str, str]
    refused: dict[str, str] = field(default_factory=dict)

    def subset(self, ids: Sequence[str], name: str) -> Corpus:
        """Return some of the utterances."""
        tables = ({k: t[k] for k in ids if k in t} for t in (self.wav, self.text, self.utt2spk))
        return Corpus(name, *tables)


def read_corpus(directory: Path, labels: bool) -> Corpus:
    """Read a data directory; what is wrong in its tables is named and left out, see `left_out`.

    Args:
        directory: With ``wav.scp``, and ``text`` and ``utt2spk`` where there are such.
        labels: Whether ``text`` is wanted.

    Raises:
        ValueError: If a table is missing or cannot be used.
    """
    if not (directory / "wav.scp").is_file():
        raise ValueError(f"{directory}: no such data directory, or no wav.scp in it")
    refuse_segments(directory)
    if labels and not (directory / "text").is_file():
        raise ValueError(
            f"{directory} has no text: add the transcripts, or use none with --labels none"
        )
    names = ["wav.scp", *(["text"] if labels else [])]
    speakers = ["utt2spk"] if (directory / "utt2spk").is_file() else []
    tables = read_tables(directory, [*names, *speakers])
    refused = left_out(tables)
    for why in refused.values():
        logger.error("left out: %s", why)
    found = {name: table for name, (table, _) in tables.items()}
    wav = {
        utt: located(path, directory.resolve())
        for utt, path in found["wav.scp"].items()
        if utt not in refused
    }
    text = {utt: line for utt, line in found.get("text", {}).items() if utt in wav and line.strip()}
    if labels and not text:
        raise ValueError(f"{directory}: text has no transcript of an utterance of wav.scp")
    utt2spk = {utt: found.get("utt2spk", {}).get(utt, utt) for utt in wav}
    return Corpus(directory.resolve().name, wav, text, utt2spk, refused)


def hold_out(corpus: Corpus, share: float, seed: int) -> tuple[Corpus, Corpus]:
    """Return a corpus without a share of it, and that share; by speakers, where there are ten.

    Copies at other speeds (names ``sp0.9-...``) go with their speaker, and are not judged on; nor
    are utterances without a transcript where others have one.

    Raises:
        ValueError: If one of the two would be empty.
    """

    def speaker(utt: str) -> str:
        return _COPY.sub("", corpus.utt2spk[utt])

    utterances = sorted(corpus.wav)
    if len({speaker(utt) for utt in utterances}) < 10:
        corpus = replace(corpus, utt2spk={utt: utt for utt in utterances})
    names = sorted({speaker(utt) for utt in utterances})
    Random(f"{seed} held out").shuffle(names)
    held: set[str] = set()
    for name in names:
        if sum(speaker(utt) in held for utt in utterances) >= share * len(utterances):
            break
        held.add(name)
    rest = [utt for utt in utterances if speaker(utt) not in held]
    dev = [utt for utt in utterances if speaker(utt) in held and not _COPY.match(utt)]
    dev = [utt for utt in dev if not corpus.text or utt in corpus.text]
    if not rest or not dev:
        raise ValueError(
            f"{corpus.name}: {len(utterances)} utterances are too few to hold out "
            f"{100 * share:g} % of them; give a development set with --dev"
        )
    part = f"{100 * share:g} % of {corpus.name}"
    return corpus.subset(rest, corpus.name), corpus.subset(dev, part)


def with_usable_audio(corpus: Corpus) -> Corpus:
    """Return a corpus without the utterances whose audio cannot be read; each is named.

    Raises:
        ValueError: If none is left; says why of one.
    """
    refused = dict(corpus.refused)
    for utt, path in corpus.wav.items():
        try:
            _open(utt, path, None).read()
        except ValueError as e:
            refused[utt] = str(e)
            logger.error("left out: %s", e)
    usable = [utt for utt in corpus.wav if utt not in refused]
    if not usable:
        raise ValueError(f"{corpus.name}: no audio can be used: {next(iter(refused.values()))}")
    return replace(corpus.subset(usable, corpus.name), refused=refused)


def load_dev(corpus: Corpus, sample_rate: int) -> TestSet:
    """Read the audio of a development set; without transcripts ``text`` is empty.

    Raises:
        ValueError: For audio that cannot be used, or if some utterances have no transcript.
    """
    if corpus.text and (missing := corpus.wav.keys() - corpus.text.keys()):
        raise ValueError(f"{corpus.name}: utterances without a transcript: {some(missing)}")
    speech = [
        Speech(utt, _open(utt, path, sample_rate).read(), sample_rate)
        for utt, path in sorted(corpus.wav.items())
    ]
    return TestSet(speech, corpus.text, corpus.utt2spk)


def tokenized(speech2text: Any, corpus: Corpus) -> dict[str, list[str]]:
    """Return the tokens of each transcript, cleaned and cut as in the model's training.

    Raises:
        ValueError: If the model was trained on another kind of labels than text.
    """
    if not corpus.text:
        return {}
    from espnet_layerskip.training.task import LayerSkipASRTask

    built = LayerSkipASRTask.build_preprocess_fn(speech2text.asr_train_args, False)
    if getattr(built, "tokenizer", None) is None:
        raise ValueError(
            "the model's configuration does not say how transcripts are cut into tokens "
            "(token_type): use none with --labels none"
        )
    return {
        utt: list(built.tokenizer.text2tokens(built.text_cleaner(line)))
        for utt, line in corpus.text.items()
    }


def examples(
    corpus: Corpus,
    sample_rate: int,
    split: Mapping[str, Sequence[str]],
    token_list: Sequence[str],
) -> list[Example]:
    """Return what to learn from; utterances of an unusual length are left out, with a warning.

    Args:
        corpus: The training data.
        sample_rate: Of the model, in Hz.
        split: Tokens of the transcripts; an utterance without any is learnt from all the same, and
            so is one with tokens that the model does not know.
        token_list: The model's.

    Raises:
        ValueError: For audio that cannot be read, if nothing is left, or if the transcripts do
            not fit the token list.
    """
    ids = {token: i for i, token in enumerate(token_list) if token != "<unk>"}
    lengths = {utt: _open(utt, path, sample_rate).seconds for utt, path in corpus.wav.items()}
    usual = {utt: n for utt, n in lengths.items() if SHORTEST <= n <= LONGEST}
    if left_out := lengths.keys() - usual.keys():
        logger.warning(
            "%d utterances are left out, shorter than %g s or longer than %g s: %s",
            len(left_out),
            SHORTEST,
            LONGEST,
            some(left_out),
        )
    if not usual:
        raise ValueError(f"{corpus.name}: no utterance is {SHORTEST:g} to {LONGEST:g} s long")
    split = {utt: tokens for utt, tokens in split.items() if utt in usual}
    unknown = {utt: set(line) - ids.keys() for utt, line in split.items()}
    unknown = {utt: names for utt, names in unknown.items() if names}
    check_labels(corpus.name, split, unknown)
    found = []
    for utt in sorted(usual):
        known = utt in split and utt not in unknown
        label = torch.tensor([ids[t] for t in split[utt]]) if known else None
        found.append(Example(utt, usual[utt], label))
    return found


def check_labels(
    name: str, split: Mapping[str, Sequence[str]], unknown: Mapping[str, set[str]]
) -> None:
    """Warn of tokens that the model does not know; raise ValueError if there are many.

    Args:
        name: Of the data.
        split: Tokens of each transcript.
        unknown: Of some utterances, those of them that the token list lacks.
    """
    if not unknown:
        return
    total = sum(map(len, split.values()))
    wrong = sum(token in unknown.get(utt, ()) for utt, line in split.items() for token in line)
    names = some({repr(token) for tokens in unknown.values() for token in tokens})
    said = (
        f"{name}: {wrong} of {total} tokens in {len(unknown)} transcripts are not in the model's "
        f"token list: {names} (utterances {some(unknown, 3)})"
    )
    if wrong > MAX_UNKNOWN * total:
        raise ValueError(
            f"{said}; write the transcripts as those that the model was trained on (case, "
            "punctuation, digits), or use none with --labels none"
        )
    logger.warning("%s; these transcripts are not used", said)


def encoder_input(
    speech2text: Any, corpus: Corpus, augment: bool, device: str
) -> Callable[[Sequence[Example]], tuple[torch.Tensor, torch.Tensor]]:
    """Return a function that gives the encoder's input for a batch, (B, T, F) and lengths (B,).

    Args:
        speech2text: `espnet_layerskip.Speech2Text` of the model.
        corpus: Where the audio is.
        augment: Apply the model's own SpecAugment.
        device: Where the model is.
    """
    model, rate = speech2text.asr_model, speech2text.sample_rate
    specaug = model.specaug if augment else None

    @torch.no_grad()
    def load(batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        feats = []
        for one in batch:
            wave = _open(one.utt_id, corpus.wav[one.utt_id], rate).read()
            samples = torch.from_numpy(speech2text.preprocess(one.utt_id, wave))
            try:
                found = extract_features(model, samples.to(device))
            except TooShortUttError as e:
                raise ValueError(f"{one.utt_id} {e}: leave it out of {corpus.name}") from e
            if specaug is not None:
                found = specaug(found[None], torch.tensor([len(found)]))[0][0]
            feats.append(found)
        return prepare(model, feats)

    return load


def _open(utt: str, path: str, sample_rate: int | None) -> AudioBlocks:
    resample = sample_rate is not None
    return AudioBlocks(Utterance(utt, path), sample_rate, resample=resample, mix=True)
