"""The verb ``calibrate``: choose the skipping setting for an error budget."""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_layerskip.evaluation.shift_names import DEFAULT, read_shifts
from espnet_layerskip.inference.quiet import start
from espnet_layerskip.method.settings import read_extension, read_threshold
from espnet_layerskip.verbs.command_line import check_output

if TYPE_CHECKING:
    from espnet_layerskip.inference.calibration import Calibration

NOTHING_FITS = 3  # exit status; 1 is what Python itself exits with when something breaks


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``calibrate``."""
    parser.description = (
        "Choose the cheapest skipping setting (threshold, extension and, if there are several, "
        "gates) that keeps an error budget on a development set by greedy search, and store it "
        "beside the checkpoint in calibration.json, which --blank-threshold auto reads. Kept "
        "means: the upper 97.5 % limit of the increase is within the budget, for this setting and "
        "for all that skip less, on each set and, within twice the budget, on shifted copies of "
        "it. The limit counts what a small set cannot show, and the spread between speakers. "
        "Where no setting is shown to keep the budget, 'off' is stored, what would be needed is "
        "said, and the exit status is 3. A file that was there is kept as calibration.json.1 (or "
        ".2 ...)."
    )
    add = parser.add_argument
    add("--exp", required=True, metavar="EXPDIR", help="experiment directory")
    add(
        "--data",
        required=True,
        nargs="+",
        metavar="DIR",
        help="development set: wav.scp, text and utt2spk; several: the budget is kept in each",
    )
    add(
        "--shifts",
        nargs="+",
        default=["default"],
        metavar="SHIFT",
        help="shifted copies of the data, in each of which twice the budget is kept: names such as "
        f"noise5 reverb0.6 gain-20; default: {' '.join(DEFAULT)}; each takes as long as the data "
        "itself; none: no copies",
    )
    add(
        "--max-wer-increase",
        required=True,
        type=float,
        metavar="PCT",
        help="budget: allowed increase of the metric, in percent of what the same weights have at "
        "full depth (relative: 1 allows 10.1 %% where full depth has 10 %%)",
    )
    add("--metric", choices=("wer", "cer"), default="wer", help="default: wer")
    add(
        "--thresholds",
        nargs="+",
        metavar="P",
        help="thresholds to try; default: 0.5 0.8 0.9 0.95 0.99 0.999 and the configured one",
    )
    add(
        "--extensions",
        nargs="+",
        metavar="L,R",
        help="extensions to try; default: 0,0 1,1 2,2 and the configured one",
    )
    add("--model-file", metavar="F", help="checkpoint; default: the best averaged one")
    add(
        "--allow-point-estimate",
        action="store_true",
        help="where no upper limit keeps the budget, go by the rates as measured, of settings with "
        "a neighbour on each side unless --extensions names others; what is stored then says that "
        "it is not shown",
    )
    add(
        "--allow-seen-data",
        action="store_true",
        help="take a development set that trained the model or chose its checkpoint, which is "
        "refused otherwise: what it shows is too good; what is stored says so",
    )
    add(
        "--if-needed",
        action="store_true",
        help="do nothing where the same was asked of the same files before",
    )
    add("--dry-run", action="store_true", help="try, choose and print, but write nothing")
    add("--num-threads", type=int, metavar="N", help="CPU threads; default: PyTorch's choice")


def run(args: argparse.Namespace) -> int:
    """Calibrate as the arguments of `add_options` say.

    Returns:
        Exit status: 0; 3 if no setting keeps the budget, so that "off" was stored; else 1 if
        utterances could not be used (the others were).

    Raises:
        ValueError: If the call, the model or the data cannot be used.
    """
    if not 0.0 < args.max_wer_increase < math.inf:
        raise ValueError(
            f"--max-wer-increase must be above 0 (percent), but got {args.max_wer_increase:g}: no "
            "development set shows that there is no increase at all"
        )
    if args.num_threads is not None and args.num_threads < 1:
        raise ValueError(f"--num-threads must be at least 1, but got {args.num_threads}")
    exp, data = Path(args.exp), [Path(one) for one in args.data]
    if len({one.resolve().name for one in data}) < len(data):
        raise ValueError(
            f"--data {' '.join(args.data)}: two directories have one name, by which the results "
            "tell them apart: rename one"
        )
    if exp.is_file() and not args.dry_run:
        raise ValueError(
            f"{exp}: calibrate the experiment directory, then pack it again, or say --dry-run"
        )
    if exp.is_dir() and not args.dry_run:
        check_output("the calibration", exp / "calibration.json")
    thresholds, extensions = read_grid(args.thresholds, args.extensions)
    question: dict[str, Any] = {
        "metric": args.metric,
        "max_increase": args.max_wer_increase,
        "point_estimate": args.allow_point_estimate,
        "seen_data": args.allow_seen_data,
        "thresholds": thresholds,
        "extensions": extensions,
        "shifts": [one.name for one in read_shifts(args.shifts)],
    }
    if args.if_needed and (stored := current(exp, data, args.model_file, question)) is not None:
        print(f"{exp}: calibrated already: {stored.describe()}")
        return _status(stored)
    start()
    with contextlib.redirect_stdout(sys.stderr):  # ESPnet and its imports print
        import torch

        from espnet_layerskip.evaluation.calibrate import calibrate
        from espnet_layerskip.evaluation.calibration_page import calibration_page
        from espnet_layerskip.evaluation.environment import typed

        if args.num_threads is not None:
            torch.set_num_threads(args.num_threads)
        found, path, kept = calibrate(
            exp,
            data,
            command=typed(["python", "-m", "espnet_layerskip.cli", *args.argv]),
            model_file=args.model_file,
            dry_run=args.dry_run,
            **question,
        )
    print(calibration_page(found))
    for warning in found.warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    if args.dry_run:
        print("written: nothing (--dry-run)")
    else:
        print(f"written: {path}" + (f", the one before is kept: {kept}" if kept else ""))
    return _status(found)


def _status(found: Calibration) -> int:
    """Return the exit status of a calibration, see `run`."""
    if found.kept_by == "nothing":
        return NOTHING_FITS
    return 1 if found.data.get("refused") else 0


def current(
    exp: Path, data: Sequence[Path], model_file: str | None, question: Mapping[str, Any]
) -> Calibration | None:
    """Return what is stored, if it answers the same question about the same files.

    Args:
        exp: Experiment directory.
        data: Development sets.
        model_file: Checkpoint name; None = the default one.
        question: The other arguments of `espnet_layerskip.evaluation.calibrate.asked`.
    """
    from espnet_layerskip.evaluation.calibrate import asked
    from espnet_layerskip.inference.calibration import calibration_file, read_calibration
    from espnet_layerskip.inference.pretrained import find_model

    files = find_model(exp, model_file)
    try:
        stored = read_calibration(calibration_file(files.model_file))
    except (FileNotFoundError, ValueError):
        return None
    return stored if stored.asked == asked(files, data, **question) else None


def read_grid(
    thresholds: Sequence[str] | None, extensions: Sequence[str] | None
) -> tuple[list[float] | None, list[tuple[int, int]] | None]:
    """Return the thresholds and extensions to try; None = as usual.

    Raises:
        ValueError: If one cannot be read or turns the gate off.
    """
    numbers = []
    for text in thresholds or ():
        number = read_threshold(text)
        if not isinstance(number, float) or number == 1.0:
            raise ValueError(f"--thresholds {text}: numbers above 0 and below 1 are needed")
        numbers.append(number)
    pairs = [pair for text in extensions or () if (pair := read_extension(text)) is not None]
    return numbers or None, pairs or None
