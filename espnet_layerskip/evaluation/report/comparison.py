"""Times of a comparison that was made before, so that its page and the report say the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from espnet_layerskip.evaluation.report.sweep import OFF_NAME, ON_NAME, Point

BY_LENGTH = "encoder_time_by_length"


def read_comparison(path: Path) -> dict[str, Any]:
    """Return what ``espnet-layerskip compare`` wrote.

    Args:
        path: A compare.json whose inputs were made of certain lengths (``--seconds``).

    Raises:
        ValueError: If it is no such file; says what to do.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ValueError(f"{path} cannot be read as a comparison: {e}") from e
    keys = {"rows", "data", "experiments", "settings"}
    if not isinstance(found, dict) or not keys <= set(found):
        raise ValueError(f"{path} is no compare.json: name one of 'espnet-layerskip compare'")
    if not any(row.get(BY_LENGTH) for row in found["rows"]):
        raise ValueError(
            f"{path} has no times by length: make it with 'espnet-layerskip compare --seconds 3 10'"
        )
    return found


def check_comparison(
    comparison: Mapping[str, Any], sha256: str, utterances: int, words: int
) -> None:
    """Look whether a comparison is of these weights and of this test set.

    Args:
        comparison: As `read_comparison` returns it.
        sha256: Of the checkpoint that the report is about.
        utterances: Of its test set.
        words: Reference words of its test set.

    Raises:
        ValueError: If not; says what it is of.
    """
    data = comparison["data"]
    if (data["utterances"], data["words"]) != (utterances, words):
        raise ValueError(
            f"the comparison is of {data['utterances']} utterances with {data['words']} words "
            f"({data['dir']}), the report of {utterances} with {words}: compare again"
        )
    if sha256 not in {experiment["sha256"] for experiment in comparison["experiments"]}:
        raise ValueError(
            "the comparison is not of this checkpoint: compare again, or name its --model-file"
        )


def with_times(points: Sequence[Point], comparison: Mapping[str, Any]) -> list[Point]:
    """Return the rows with the times by length that a comparison found for the same settings.

    Raises:
        ValueError: If it has none for skipping off or on.
    """
    times = {
        (tuple(row["exps"]), row["settings"]): row[BY_LENGTH]
        for row in comparison["rows"]
        if row.get(BY_LENGTH)
    }
    found = []
    for point in points:
        taken = times.get((tuple(point.record["exps"]), point.record["settings"]))
        if taken is None and point.own and point.name in (OFF_NAME, ON_NAME):
            raise ValueError(
                f"the comparison has no times of {point.name} ({point.record['settings']}) of "
                f"{', '.join(point.record['exps'])}: compare again with --exp and --seconds"
            )
        found.append(point if taken is None else _timed(point, taken))
    return found


def _timed(point: Point, times: Mapping[str, Any]) -> Point:
    return replace(point, record={**point.record, BY_LENGTH: dict(times)})


def lengths(point: Point) -> list[str]:
    """Return the lengths in seconds of which a row has times; none without a comparison."""
    return list(point.record.get(BY_LENGTH) or ())


def time_ms(point: Point, length: str = "") -> float | None:
    """Return the median encoder time per second of audio, in ms.

    Args:
        point: A row.
        length: Of the inputs in seconds; "" = the utterances as they are, timed for the report.
    """
    if not length:
        return point.time_ms.difference
    found = (point.record.get(BY_LENGTH) or {}).get(length)
    return None if found is None else float(found["median_ms"])
