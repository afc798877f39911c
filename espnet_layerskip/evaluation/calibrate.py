"""Calibrate a model: try settings on a development set, choose one, store it with the model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_layerskip.evaluation.break_even import with_break_even
from espnet_layerskip.evaluation.choose import (
    Condition,
    Trial,
    choose,
    find_warnings,
    make_trials,
    over_conditions,
)
from espnet_layerskip.evaluation.confidence import fit_confidence
from espnet_layerskip.evaluation.decode import decode, one_pass_groups
from espnet_layerskip.evaluation.environment import environment_record, finish_record
from espnet_layerskip.evaluation.experiment import Experiment, load_experiment
from espnet_layerskip.evaluation.grid import settings_to_try
from espnet_layerskip.evaluation.inputs import TestSet, load_test_set
from espnet_layerskip.evaluation.progress import note_utterances, to_stderr
from espnet_layerskip.evaluation.scoring import SPLITS, check_hypotheses
from espnet_layerskip.evaluation.seen_data import what_it_did
from espnet_layerskip.evaluation.shift_names import read_shifts
from espnet_layerskip.evaluation.shifts import shifted
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.files import DataDir, some
from espnet_layerskip.inference.calibration import Calibration, calibration_file, keep_old
from espnet_layerskip.inference.pretrained import ModelFiles, find_model
from espnet_layerskip.method.settings import SkipSettings, can_skip
from espnet_layerskip.training.checkpoint import file_digest

COPIES = 2.0  # times the budget is what a shifted copy may take
# how a setting is shown to keep the budget
RULE = (
    "limit 97.5 %, fixed sequence, savings of 1 %, each condition, copies twice the budget, "
    "neighbours where nothing is shown"
)


def calibrate(
    exp: Path,
    data_dirs: Sequence[Path],
    *,
    metric: str,
    max_increase: float,
    command: str,
    point_estimate: bool = False,
    seen_data: bool = False,
    thresholds: Sequence[float] | None = None,
    extensions: Sequence[tuple[int, int]] | None = None,
    shifts: Sequence[str] = (),
    model_file: str | None = None,
    dry_run: bool = False,
) -> tuple[Calibration, Path, Path | None]:
    """Try settings, choose one and write the file.

    Args:
        exp: Experiment folder.
        data_dirs: Development sets, at least one.
        metric: "wer" or "cer".
        max_increase: Budget in percent of what the metric is at full depth, in each set.
        command: How it can be done again.
        point_estimate: See `choose`.
        seen_data: Take data that trained the model or chose the checkpoint, too; the file says so.
        thresholds, extensions: See `grid`.
        shifts: Names of shifted copies of each set, see `read_shifts`: there the budget is
            `COPIES` times as large.
        model_file: Checkpoint name; None = the default one.
        dry_run: Write nothing.

    Returns:
        What was found; its file; where the file that was there is kept now, None if none was.

    Raises:
        ValueError: If the model or the data cannot be used.
    """
    files = find_model(exp, model_file)
    names = [one.name for one in read_shifts(shifts)]
    how: dict[str, Any] = {
        "metric": metric,
        "max_increase": max_increase,
        "point_estimate": point_estimate,
    }
    grid: dict[str, Any] = {"thresholds": thresholds, "extensions": extensions}
    question = asked(files, data_dirs, **how, seen_data=seen_data, **grid, shifts=names)
    seen, warnings = check_data(config_beside(files), data_dirs, seen_data)
    experiment = load_experiment(exp, model_file, blank_threshold=None)
    check_model(exp, experiment)
    environment = environment_record()
    rate = experiment.speech2text.sample_rate
    sets = {one.resolve().name: load_test_set(one, rate) for one in data_dirs}
    settings = settings_to_try(experiment, **grid)
    settings = with_break_even(experiment, next(iter(sets.values())), settings)
    conditions, by_condition = [], []
    for condition, data in all_conditions(sets, max_increase, names):
        conditions.append(condition)
        by_condition.append(try_all(experiment, data, settings, metric, condition))
    full_depth, *tried = (
        over_conditions(trials, conditions) for trials in zip(*by_condition, strict=True)
    )
    chosen, kept_by = choose(tried, full_depth, point_estimate, extensions is not None)
    utterances = sum(len(data.speech) for data in sets.values())
    speakers = len({spk for data in sets.values() for spk in data.utt2spk.values()})
    refused = {utt: why for data in sets.values() for utt, why in data.refused.items()}
    if speakers == 1 and utterances > 1:
        warnings.append("the development set is of one speaker: it says nothing about others")
    warnings += find_warnings(tried, full_depth, chosen, kept_by, max_increase, utterances)
    found = Calibration(
        settings=chosen.settings,
        metric=metric,
        max_increase=max_increase,
        kept_by=kept_by,
        warnings=warnings,
        checkpoint=experiment.checkpoint,
        sha256=experiment.sha256,
        data={
            "name": " + ".join(sets),
            "utterances": utterances,
            "speakers": speakers,
            **({"refused": refused} if refused else {}),
            "sha256": question["tables"],
            "seen": seen,
            **({"shifts": names} if names else {}),
        },
        full_depth=full_depth.to_json(),
        chosen=chosen.to_json(),
        sweep=[trial.to_json() for trial in tried],
        environment=finish_record(environment),
        command=command,
        asked=question,
        confidence=fit_confidence(System(experiment, chosen.settings), sets.values()),
    )
    path = calibration_file(experiment.speech2text.model_files.model_file)
    kept = None
    if not dry_run:
        try:
            kept = keep_old(path)
            found.save(path)
        except OSError as e:  # it took long to find
            raise ValueError(f"{e}; nothing is stored, but found was: {found.describe()}") from e
    return found, path, kept


def all_conditions(
    sets: Mapping[str, TestSet], max_increase: float, shifts: Sequence[str]
) -> Iterator[tuple[Condition, TestSet]]:
    """Yield the sets by name, as they are, then shifted copies of each, with their budgets."""
    for name, data in sets.items():
        yield Condition(name, len(data.speech), max_increase), data
    for name, data in sets.items():
        for shift in read_shifts(shifts):
            about = f"{name}, {shift.name}", len(data.speech), COPIES * max_increase
            yield Condition(*about, is_copy=True), shifted(data, shift)


def asked(
    files: ModelFiles,
    data_dirs: Sequence[Path],
    *,
    thresholds: Sequence[float] | None,
    extensions: Sequence[tuple[int, int]] | None,
    shifts: Sequence[str],
    **others: Any,
) -> dict[str, Any]:
    """Return all that a calibration depends on, in plain types, as JSON gives them back.

    Two calls that ask the same give the same answer, up to the rounding of another machine.

    Raises:
        ValueError: If a table of the data is missing.
    """
    return {
        "rule": RULE,
        "weights": file_digest(files.model_file),
        "config": file_digest(config_beside(files)),
        "tables": [tables_digest(one) for one in data_dirs],
        **others,
        "thresholds": None if thresholds is None else sorted(set(thresholds)),
        "extensions": None if extensions is None else [list(e) for e in sorted(set(extensions))],
        "shifts": sorted(one.name for one in read_shifts(shifts)),
    }


def config_beside(files: ModelFiles) -> Path:
    """Return config.yaml beside the checkpoint, as the training wrote it."""
    config = files.model_file.parent / "config.yaml"
    return config if config.is_file() else files.train_config


def check_data(
    train_config: Path, data_dirs: Sequence[Path], seen_data: bool
) -> tuple[dict[str, str], list[str]]:
    """Return what the data did for the model, see `what_it_did`, and what to warn of.

    Raises:
        ValueError: If it did something and ``seen_data`` is not set.
    """
    seen: dict[str, str] = {}
    unknown: list[str] = []
    for data_dir in data_dirs:
        did, missing = what_it_did(train_config, data_dir)
        why = "; ".join(f"{role} ({how})" for role, how in did.items())
        if did and not seen_data:
            raise ValueError(
                f"{data_dir} {why}: what it shows is too good. Give data that the model has not "
                "seen, or --allow-seen-data; the calibration then says so"
            )
        for role, how in did.items():
            seen[role] = f"{seen[role]}; {how}" if role in seen else how
        unknown += [one for one in missing if one not in unknown]
    if seen:
        why = "; ".join(f"{role} ({how})" for role, how in seen.items())
        return seen, [f"the development set {why}: on other speech the increase may be larger"]
    if unknown:
        return seen, [
            "whether the development set chose the checkpoint or trained the model is not known: "
            f"{some(unknown, 2)} of {train_config.name} cannot be read"
        ]
    return seen, []


def tables_digest(data_dir: Path) -> str:
    """Return the SHA-256 of a data directory's tables, with stage 3's checksums of the audio.

    Raises:
        ValueError: If ``wav.scp``, ``text`` or ``utt2spk`` is missing.
    """
    total = hashlib.sha256()
    folder = DataDir.check_files(data_dir)
    for name in ("wav.scp", "text", "utt2spk", "audio_checksums"):
        if (folder / name).is_file():
            total.update((folder / name).read_bytes())
    return total.hexdigest()


def check_model(exp: Path, experiment: Experiment) -> None:
    """Raise ValueError if there is nothing to calibrate."""
    if not can_skip(experiment.encoder):
        raise ValueError(
            f"{exp}: its encoder, {type(experiment.encoder).__name__}, has no gate, so that there "
            "is nothing to calibrate"
        )
    if experiment.model.postencoder is not None:
        raise ValueError(f"{exp}: a model with a postencoder cannot be calibrated")


def try_all(
    experiment: Experiment,
    data: TestSet,
    settings: Sequence[SkipSettings],
    metric: str,
    condition: Condition,
) -> list[Trial]:
    """Return what comes of each setting in one condition, full depth first.

    Raises:
        ValueError: If all transcripts of full depth are empty, unless it is a shifted copy.
    """
    total = len(data.speech)
    to_stderr(f"decoding {total} utterances of {condition.name} with {len(settings)} settings")
    [group] = one_pass_groups([System(experiment, one) for one in settings])
    decoded = decode(group, data, note_utterances(to_stderr, condition.name, total))
    if not condition.is_copy:  # there a model may well hear nothing
        check_hypotheses(data.text, decoded[0].hyps)
    speakers = [data.utt2spk[utt] for utt in data.text]
    budget = condition.max_increase
    return make_trials(settings, decoded, data.text, SPLITS[metric], budget, speakers=speakers)
