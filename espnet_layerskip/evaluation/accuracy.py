"""Accuracy of a benchmark's rows: the whole test set decoded, and which rows may count."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from espnet_layerskip.evaluation.entries import Entries, Entry
from espnet_layerskip.evaluation.inputs import TestSet
from espnet_layerskip.evaluation.scoring import characters, check_hypotheses, error_rate, words
from espnet_layerskip.evaluation.tables import judge
from espnet_layerskip.recipe.score_table import Counts, count_errors

Log = Callable[[str], object]
PROGRESS_SECONDS = 15.0


@dataclass(frozen=True)
class Accuracy:
    """Error rates on the whole test set in percent, and why there are none if so."""

    wer: float | None
    cer: float | None
    failure: str = ""


def measure_accuracy(
    entries: Entries, data: TestSet, known: dict[int, Accuracy], log: Log
) -> dict[str, Accuracy]:
    """Decode the whole test set with every row, one utterance at a time.

    Args:
        entries: The rows.
        data: The test set.
        known: What was decoded before, by the id of the row's source; is added to.
        log: Is told what is going on.

    Returns:
        Accuracy of each row; its ``failure`` says where transcripts are missing or all empty.
    """
    found = {}
    for name, entry in entries.items():
        if isinstance(entry, str):
            found[name] = Accuracy(None, None, entry)
            continue
        if id(entry.source) not in known:
            log(f"decoding {len(data.speech)} utterances: {name}")
            known[id(entry.source)] = _decode(name, entry, data, log)
        found[name] = known[id(entry.source)]
    return found


def judge_rows(
    entries: Entries, accuracy: Mapping[str, Accuracy], max_wer_increase: float
) -> dict[str, str]:
    """Return the status of each row: "ok", or why its speed does not count.

    Args:
        entries: The rows.
        accuracy: Of each of them.
        max_wer_increase: Allowed increase over the row's reference, in percent of its WER.
    """
    found = {}
    for name, entry in entries.items():
        wer, failure = accuracy[name].wer, accuracy[name].failure
        if wer is None or isinstance(entry, str):
            found[name] = f"failed: {failure}"
            continue
        reference = accuracy[entry.reference].wer if entry.reference else wer
        if reference is None:
            found[name] = f"failed: {entry.reference}, which its WER is judged by, has none"
            continue
        found[name] = judge(wer, reference, reference * max_wer_increase / 100.0)
    return found


def reason(error: Exception) -> str:
    """Return an error in one line; with its type where it is not one that explains itself."""
    message = " ".join(str(error).split())
    return message if isinstance(error, ValueError) else f"{type(error).__name__}: {message}"


def _decode(name: str, entry: Entry, data: TestSet, log: Log) -> Accuracy:
    hyps: dict[str, str] = {}
    said = time.monotonic()
    try:
        entry.prepare()
        for speech in data.speech:
            hyps[speech.utt_id] = entry.transcribe(speech)
            if time.monotonic() - said > PROGRESS_SECONDS:
                said = time.monotonic()
                log(f"  {name}: {len(hyps)} of {len(data.speech)} utterances")
        check_hypotheses(data.text, hyps)
    except Exception as e:  # whatever it is, it must not cost the other rows
        return Accuracy(None, None, reason(e))
    wer, cer = (
        error_rate(sum((count_errors(s(t), s(hyps[u])) for u, t in data.text.items()), Counts()))
        for s in (words, characters)
    )
    return Accuracy(wer, cer)
