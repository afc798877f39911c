#!/usr/bin/env python3
"""Write SHIFT.md: what skipping costs a model on shifted copies of test sets, setting by setting.

Example, in egs2/an4/asr1::

    python local/shift_page.py --exp pretrained/an4_layerskip.zip --data test=dump/raw/test \\
        --shifts all --setting "as stored" stored --output SHIFT.md
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

from espnet_layerskip.evaluation.calibrate import COPIES, all_conditions, try_all
from espnet_layerskip.evaluation.choose import Condition, Trial
from espnet_layerskip.evaluation.environment import (
    describe,
    environment_record,
    finish_record,
    typed,
)
from espnet_layerskip.evaluation.experiment import Experiment, load_experiment
from espnet_layerskip.evaluation.inputs import TestSet, load_test_set, located
from espnet_layerskip.evaluation.shift_names import read_shifts
from espnet_layerskip.evaluation.tables import markdown_table
from espnet_layerskip.files import DataDir, run_main, write_text
from espnet_layerskip.method.settings import OFF, SkipSettings

ABOUT = """\
What skipping costs the same weights, by greedy search, on test sets and on copies of them with
other noise, rooms, lines and levels (`espnet_layerskip/evaluation/shifts.py`). More errors: in
percent of those at full depth. The limits (95 %) count what a set of this size cannot show, and
the spread between speakers. The last column: the upper limit keeps this budget (shown), only the
rate as measured does (measured), or neither does (no). With `--known-words` an utterance counts
only if the model has all its words."""


def known_words(data_dir: Path, words: set[str], target: Path) -> Path:
    """Write the utterances of a data directory whose words are all among some; return where."""
    data = DataDir.load(data_dir)
    kept = data.subset(utt for utt, text in data.text.items() if set(text.split()) <= words)
    kept.wav = {
        utt: str(Path(located(path, data_dir.resolve())).resolve())
        for utt, path in kept.wav.items()
    }
    kept.save(target)
    return target


def load_sets(experiment: Experiment, named: Sequence[str], known: bool) -> dict[str, TestSet]:
    """Return test sets of NAME=DIR; ``known``: only utterances of words that the model has."""
    words, rate = set(experiment.model.token_list), experiment.speech2text.sample_rate
    sets = {}
    for name, _, directory in (one.partition("=") for one in named):
        if not directory:
            raise ValueError(f"--data {name}: NAME=DIR is needed")
        with tempfile.TemporaryDirectory() as folder:
            source = Path(directory)
            source = known_words(source, words, Path(folder)) if known else source
            sets[name] = load_test_set(source, rate)
    return sets


def table(
    budget: float, conditions: Sequence[Condition], full: Sequence[Trial], on: Sequence[Trial]
) -> str:
    """Return the table of one setting."""
    header = [
        *("condition", "utterances", "WER % at full depth", "WER %", "more errors, % [95 %]"),
        *("skipped", f"at most {budget:g} % more"),
    ]
    cells = []
    for condition, off, trial in zip(conditions, full, on, strict=True):
        scale = 100.0 / max(off.rate, 1e-9)
        verdict = "shown" if trial.fits else "measured" if trial.seems_to_fit else "no"
        cells.append(
            [
                *(condition.name, str(condition.utterances), f"{off.rate:.1f}"),
                f"{trial.rate:.1f}",
                "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(scale * n for n in astuple(trial.increase))),
                *(f"{100 * trial.skip_ratio:.0f} %", verdict),
            ]
        )
    return markdown_table(header, cells)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Cost of skipping on shifted copies")
    parser.add_argument("--exp", type=Path, required=True, help="Experiment or packed model")
    parser.add_argument("--data", nargs="+", required=True, help="NAME=DIR ...")
    parser.add_argument("--known-words", action="store_true", help="Utterances of known words only")
    parser.add_argument("--shifts", nargs="+", default=["default"])
    parser.add_argument("--budget", type=float, default=4.0, help="More errors, in percent")
    parser.add_argument(
        "--setting", nargs=2, action="append", required=True, metavar=("NAME", "SETTINGS"),
        help="SETTINGS: KEY=VALUE ..., or stored; may be repeated",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    experiment, record = load_experiment(args.exp), environment_record()
    settings = [OFF.resolved(experiment.encoder)]
    for _, text in args.setting:
        wanted = SkipSettings.from_items([] if text == "stored" else text.split())
        settings.append(wanted.resolved(experiment.encoder))
    conditions, found = [], []
    sets = load_sets(experiment, args.data, args.known_words)
    shifts = [one.name for one in read_shifts(args.shifts)]
    for condition, data in all_conditions(sets, args.budget / COPIES, shifts):
        conditions.append(replace(condition, max_increase=args.budget))
        found.append(try_all(experiment, data, settings, "wer", conditions[-1]))
    full, *tried = zip(*found, strict=True)
    lines = ["# What skipping costs under shift", "", ABOUT, "", *describe(finish_record(record))]
    command = typed(["python", *sys.argv])
    lines += [f"- model: {args.exp} ({experiment.checkpoint})", f"- command: `{command}`", ""]
    for (name, _), how, on in zip(args.setting, settings[1:], tried, strict=True):
        lines += [f"## {name}", "", f"`{how.describe()}`", ""]
        lines += [table(args.budget, conditions, full, on), ""]
    write_text(args.output, "\n".join(lines))


if __name__ == "__main__":
    run_main(main)
