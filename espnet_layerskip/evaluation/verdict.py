"""What a comparison found, in one sentence for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

PAYS = 1.02
"""Times as fast from which skipping is said to pay; less is within the noise of a timing."""


def verdict(records: Sequence[Mapping[str, Any]]) -> str:
    """Return what skipping brought, or why it brought nothing; "" where nothing was compared.

    Args:
        records: Rows of compare.json. The first row that skips and has its own full depth among the
            rows is judged.
    """
    names = {record["name"]: record for record in records}
    on = next((r for r in records if r.get("off") and not r["stops"]), None)
    if on is None:
        return ""
    off = names[on["off"]]
    rates = f"{fmean(on['wer']):.1f} % word errors, against {fmean(off['wer']):.1f} % at full depth"
    skipping = f"Skipping {100 * on['skip_ratio']:.0f} % of the frames"
    if on["status"] != "ok":
        return f"{skipping} costs too much: {rates}."
    if on["skip_ratio"] == 0.0:
        return f"No frame skips: {rates}."
    speeds = speed_ups(on, off)
    if not speeds:
        return f"{skipping} gives {rates}; nothing was timed."
    lengths = _listed([f"{length} s" for length in speeds if length])
    where = f" on {lengths} of audio" if lengths else ""
    factors = _listed([f"{factor:.2f}" for factor in speeds.values()])
    if max(speeds.values()) < PAYS:
        return (
            f"{skipping} does not pay{where}: the encoder is {factors} times as fast as at full "
            f"depth (its subsampling and lower layers run on every frame); {rates}."
        )
    return f"{skipping} makes the encoder {factors} times as fast{where}, at {rates}."


def speed_ups(on: Mapping[str, Any], off: Mapping[str, Any]) -> dict[str, float]:
    """Return by length in seconds ("" = the utterances as they are) how many times as fast.

    Args:
        on: A row of compare.json.
        off: The row that it is compared with.
    """
    keys = "encoder_time_by_length", "encoder_time_per_second"
    if on.get(keys[0]) and off.get(keys[0]):
        times, base = on[keys[0]], off[keys[0]]
    elif on.get(keys[1]) and off.get(keys[1]):
        times, base = {"": on[keys[1]]}, {"": off[keys[1]]}
    else:
        return {}
    return {n: base[n]["median_ms"] / times[n]["median_ms"] for n in times}


def _listed(items: Sequence[str]) -> str:
    """Return items as in a sentence.

    >>> _listed(["1", "2", "3"]), _listed(["1"])
    ('1, 2 and 3', '1')
    """
    *first, last = items or [""]
    return f"{', '.join(first)} and {last}" if first else last
