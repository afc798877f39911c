"""The verb ``calibrate``: choose the skipping setting for an error budget."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_layerskip.method.settings import read_extension, read_threshold

NOTHING_FITS = 3  # exit status; 1 is what Python itself exits with when something breaks


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``calibrate``."""
    parser.description = (
        "Choose the cheapest skipping setting (threshold, extension and, if there are several, "
        "gates) that keeps an error budget on a development set by greedy search, and store it "
        "beside the checkpoint in calibration.json, which --blank-threshold auto reads. Kept "
        "means: the upper limit of the 95 % interval of a paired bootstrap over utterances is "
        "within the budget. Where no setting keeps it, 'off' is stored, what would be needed is "
        "said, and the exit status is 3."
    )
    add = parser.add_argument
    add("--exp", required=True, metavar="EXPDIR", help="experiment directory")
    add("--data", required=True, metavar="DIR", help="development set: wav.scp, text and utt2spk")
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
        help="thresholds to try, beside the configured one; default: 0.5 0.8 0.9 0.95 0.99 0.999",
    )
    add(
        "--extensions",
        nargs="+",
        metavar="L,R",
        help="extensions to try, beside the configured one; default: 0,0 1,1 2,2",
    )
    add("--model-file", metavar="F", help="checkpoint; default: the best averaged one")
    add(
        "--allow-point-estimate",
        action="store_true",
        help="where no upper limit keeps the budget, go by the rates as measured",
    )
    add(
        "--if-needed",
        action="store_true",
        help="do nothing where this checkpoint is calibrated for this budget and set already",
    )
    add("--num-threads", type=int, metavar="N", help="CPU threads; default: PyTorch's choice")


def run(args: argparse.Namespace) -> int:
    """Calibrate as the arguments of `add_options` say.

    Returns:
        Exit status: 0, or 3 if no setting keeps the budget, so that "off" was stored.

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
    exp, data = Path(args.exp), Path(args.data)
    if exp.is_file():
        raise ValueError(f"{exp}: calibrate the experiment directory, then pack it again")
    if args.if_needed and is_current(args, exp, data):
        print(f"{exp}: calibrated already for this budget and development set")
        return 0
    thresholds, extensions = read_grid(args.thresholds, args.extensions)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with contextlib.redirect_stdout(sys.stderr):  # ESPnet and its imports print
        import torch

        from espnet_layerskip.evaluation.calibrate import calibrate
        from espnet_layerskip.evaluation.calibration_page import calibration_page
        from espnet_layerskip.evaluation.environment import typed

        if args.num_threads is not None:
            torch.set_num_threads(args.num_threads)
        found, path = calibrate(
            exp,
            data,
            metric=args.metric,
            max_increase=args.max_wer_increase,
            command=typed(["python", "-m", "espnet_layerskip.cli", *args.argv]),
            point_estimate=args.allow_point_estimate,
            thresholds=thresholds,
            extensions=extensions,
            model_file=args.model_file,
        )
    print(calibration_page(found))
    for warning in found.warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    print(f"written: {path}")
    return NOTHING_FITS if found.kept_by == "nothing" else 0


def is_current(args: argparse.Namespace, exp: Path, data: Path) -> bool:
    """Return whether what is stored answers the same question about the same files."""
    from espnet_layerskip.evaluation.calibrate import tables_digest
    from espnet_layerskip.inference.calibration import calibration_file, read_calibration
    from espnet_layerskip.inference.pretrained import find_model
    from espnet_layerskip.training.checkpoint import file_digest

    weights = find_model(exp, args.model_file).model_file
    try:
        stored = read_calibration(calibration_file(weights))
    except (FileNotFoundError, ValueError):
        return False
    asked = (args.metric, args.max_wer_increase, tables_digest(data), file_digest(weights))
    have = (stored.metric, stored.max_increase, stored.data.get("sha256"), stored.sha256)
    return asked == have and not (stored.kept_by == "nothing" and args.allow_point_estimate)


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
