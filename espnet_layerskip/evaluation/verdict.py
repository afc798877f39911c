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
    found = judged(records)
    if found is None:
        return ""
    on, off = found
    rates = f"{fmean(on['wer']):.1f} % word errors, against {fmean(off['wer']):.1f} % at full depth"
    if change := on.get("wer_against_off"):
        low, high = change["low"], change["high"]
        rates += f" (95 % interval of the difference {low:+.1f} to {high:+.1f} points)"
    skipping = f"Skipping {100 * on['skip_ratio']:.0f} % of the frames"
    if on["status"] != "ok":
        return f"{skipping} costs too much: {rates}."
    if on["skip_ratio"] == 0.0:
        return f"No frame skips: {rates}."
    speeds = speed_ups(on, off)
    if not speeds:
        return f"{skipping} gives {rates}; nothing was timed."
    pays = {length: factor for length, factor in speeds.items() if factor >= PAYS}
    if not pays:
        return (
            f"{skipping} does not pay{_where(speeds)}: the encoder is {_factors(speeds)} times as "
            f"fast as at full depth (its subsampling and lower layers run on every frame); {rates}."
        )
    others = {length: factor for length, factor in speeds.items() if length not in pays}
    but = f", but{_where(others)} it does not pay ({_factors(others)} times)" if others else ""
    faster = f"{skipping} makes the encoder {_factors(pays)} times as fast{_where(pays)}"
    return f"{faster}{but}, at {rates}."


def judged(
    records: Sequence[Mapping[str, Any]],
) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Return the first row that skips and its own full depth; None where there are none."""
    names = {record["name"]: record for record in records}
    on = next((r for r in records if r.get("off") and not r["stops"]), None)
    return None if on is None else (on, names[on["off"]])


def _where(speeds: Mapping[str, float]) -> str:
    """Return " on 3 s and 10 s of audio"; "" for the utterances as they are."""
    lengths = [f"{length} s" for length in speeds if length]
    return f" on {_listed(lengths)} of audio" if lengths else ""


def _factors(speeds: Mapping[str, float]) -> str:
    """Return the factors as in a sentence, one that holds for all lengths once.

    >>> _factors({"3": 1.121, "10": 1.124}), _factors({"3": 0.9, "10": 1.2})
    ('1.12', '0.90 and 1.20')
    """
    factors = [f"{factor:.2f}" for factor in speeds.values()]
    return factors[0] if len(set(factors)) == 1 else _listed(factors)


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
