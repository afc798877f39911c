"""Rows of a comparison: which experiments, with which skipping settings, under which name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_layerskip.evaluation.experiment import read_config
from espnet_layerskip.method.settings import OFF, PRECISIONS, SkipSettings, check_choice

KEEP = SkipSettings()  # as the experiment says
PRECISION = "precision="


@dataclass(frozen=True)
class Row:
    """One row: the same architecture and settings, one experiment for each training seed.

    Attributes:
        name: What the table calls it.
        exps: Experiment folders.
        settings: How it skips; None values keep what the experiment says.
        precision: Of the encoder.
    """

    name: str
    exps: tuple[str, ...]
    settings: SkipSettings = KEEP
    precision: str = "float32"

    def describe(self) -> str:
        """Return the settings that were asked for, as on the command line."""
        return describe(self.settings, self.precision)


def describe(settings: SkipSettings, precision: str) -> str:
    """Return settings with their precision, as they are written on the command line."""
    rest = "" if precision == PRECISIONS[0] else f" {PRECISION}{precision}"
    return f"{settings.describe()}{rest}".strip()


def experiment_rows(spec: str) -> list[Row]:
    """Return the standard rows of ``[LABEL=]EXPDIR[,EXPDIR...]`` (several: training seeds).

    A stock experiment gives one row. One with a gate gives "skipping off", "skipping on" (as
    the experiment says) and "stopped at layer K" for each gate.

    Raises:
        ValueError: For what is no experiment, or seeds with differing gates.
    """
    label, sign, found = spec.partition("=")
    if not sign or Path(spec).exists():  # a name may have this sign in it
        label, found = Path(spec.split(",")[0]).name, spec
    exps = tuple(found.split(","))
    gates = {_gate_layers(exp) for exp in exps}
    if len(gates) > 1:
        raise ValueError(
            f"{spec}: the experiments have differing gates {sorted(gates)}; only seeds of the "
            "same configuration go together"
        )
    [layers] = gates
    if not layers:
        return [Row(label, exps)]
    return standard_rows(exps, layers, f"{label}, ")


def standard_rows(exps: tuple[str, ...], layers: Sequence[int], label: str = "") -> list[Row]:
    """Return skipping off, on, and stopped at each gate layer, of experiments with gates."""
    stopped = {k: SkipSettings(blank_threshold=1.0, exit_layer=k) for k in layers}
    return [
        Row(f"{label}skipping off", exps, OFF),
        Row(f"{label}skipping on", exps),
        *(Row(f"{label}stopped at layer {k}", exps, how) for k, how in stopped.items()),
    ]


def custom_row(items: Sequence[str]) -> Row:
    """Return the row of ``NAME EXPDIR[,EXPDIR...] [KEY=VALUE ...]``.

    Raises:
        ValueError: For fewer than two items or a wrong setting.
    """
    if len(items) < 2:
        raise ValueError(
            f"row {' '.join(items)!r}: NAME EXPDIR[,EXPDIR...] [threshold=P] [extension=L,R] "
            "[context=C] [exit=K] [gates=K,K] [repeats=P] [precision=P] is needed"
        )
    precisions = [i.removeprefix(PRECISION) for i in items[2:] if i.startswith(PRECISION)]
    try:
        if len(precisions) > 1:
            raise ValueError("setting precision is given twice: give it once")
        [precision] = precisions or PRECISIONS[:1]
        return Row(
            items[0],
            tuple(items[1].split(",")),
            SkipSettings.from_items(i for i in items[2:] if not i.startswith(PRECISION)),
            check_choice("precision", precision, PRECISIONS),
        )
    except ValueError as e:
        raise ValueError(f"row {items[0]!r}: {e}") from e


def check_names(rows: Sequence[Row]) -> list[Row]:
    """Return the rows; raise ValueError if there are none or two have the same name."""
    if not rows:
        raise ValueError("there is nothing to compare: give at least one experiment or row")
    names = [row.name for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two rows are named {twice[0]!r}: give each a name of its own (LABEL=)")
    return list(rows)


def _gate_layers(exp: str) -> tuple[int, ...]:
    return tuple(sorted((read_config(exp).get("encoder_conf") or {}).get("gate_layer_idx") or ()))
