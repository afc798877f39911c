"""Accuracy of a benchmark's rows: the whole test set decoded, and which rows may count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from espnet_layerskip.evaluation.contenders import Contenders
from espnet_layerskip.evaluation.decode import Transcriber, decode
from espnet_layerskip.evaluation.inputs import TestSet
from espnet_layerskip.evaluation.progress import Log, note_utterances
from espnet_layerskip.evaluation.scoring import SPLITS, check_hypotheses, error_rate, judge, score
from espnet_layerskip.inference.recognize import reason


@dataclass(frozen=True)
class Accuracy:
    """Error rates on the whole test set in percent; "ok", or why the row does not count.

    ``too_short`` names utterances that are too short for the encoder: their transcript is empty.
    """

    wer: float | None
    cer: float | None
    status: str = "ok"
    too_short: Sequence[str] = ()


def measure_accuracy(rows: Contenders, data: TestSet, log: Log) -> dict[str, Accuracy]:
    """Decode the whole test set with the system of every row, once, one utterance at a time.

    Args:
        rows: The rows.
        data: The test set.
        log: Takes lines about the progress.

    Returns:
        Accuracy of each row; its ``status`` says where transcripts are missing or all empty.
    """
    found: dict[str, Accuracy] = {}
    known: dict[int, Accuracy] = {}
    for name, row in rows.items():
        if isinstance(row.system, str):
            found[name] = Accuracy(None, None, f"failed: {row.system}")
            continue
        if id(row.system) not in known:
            log(f"decoding {len(data.speech)} utterances: {name}")
            known[id(row.system)] = _decode(name, row.system, data, log)
        found[name] = known[id(row.system)]
    return found


def judged(
    rows: Contenders, found: dict[str, Accuracy], max_wer_increase: float
) -> dict[str, Accuracy]:
    """Return the accuracy of the rows with the status of those that lose too much.

    Args:
        rows: The rows.
        found: Accuracy of each of them.
        max_wer_increase: Allowed increase over the row's reference, in percent of its WER.
    """

    def judge_one(name: str, one: Accuracy) -> Accuracy:
        against = rows[name].reference
        if one.wer is None or not against:
            return one
        reference = found[against].wer
        if reference is None:
            return replace(one, status=f"failed: {against}, which its WER is judged by, has none")
        return replace(one, status=judge(one.wer, reference, reference * max_wer_increase / 100))

    return {name: judge_one(name, found[name]) for name in rows}


def _decode(name: str, system: Transcriber, data: TestSet, log: Log) -> Accuracy:
    try:
        [decoded] = decode([system], data, note_utterances(log, name, len(data.speech)))
        hyps = decoded.hyps
        check_hypotheses(data.text, hyps)
    except Exception as e:  # whatever it is, it must not cost the other rows
        return Accuracy(None, None, f"failed: {reason(e)}")
    wer, cer = (error_rate(score(data.text, hyps, how).values()) for how in SPLITS.values())
    return Accuracy(wer, cer, too_short=decoded.too_short)
