"""The verb ``export``: a trained model as ONNX graphs."""

from __future__ import annotations

import argparse

from espnet_layerskip.verbs.command_line import make_folder


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.description = (
        "Write a model as ONNX graphs from samples to log-probabilities: model.onnx with its "
        "gates, full.onnx at full depth, stopped.onnx with an early exit, and what "
        "'espnet-layerskip transcribe --model DIR' needs to run them without PyTorch and ESPnet."
    )
    add = parser.add_argument
    add("--model", required=True, metavar="EXPDIR_ZIP_OR_TAG", help="the trained model")
    add("--model-file", metavar="F", help="checkpoint; default: the best averaged one")
    add("--output", required=True, metavar="DIR.onnx", help="folder to make")
    add(
        "--precision",
        choices=("float32", "int8"),
        default="float32",
        help="of the products with weights (default: float32)",
    )
    add(
        "--longest",
        type=float,
        default=40.0,
        metavar="S",
        help="seconds of the longest input; longer audio is cut into segments (default: 40)",
    )
    add("--force", action="store_true", help="replace an earlier export")


def run(args: argparse.Namespace) -> int:
    """Export as the arguments of ``add_options`` say.

    Raises:
        ValueError: If the call or the model cannot be used.
    """
    from pathlib import Path

    from espnet_layerskip.inference.quiet import log_ours, nothing_printed

    log_ours()
    with nothing_printed():  # ESPnet and its imports print
        from espnet_layerskip.export.write import check_output, describe, export_model
    if not 1.0 <= args.longest <= 3600.0:
        raise ValueError(f"--longest must be from 1 to 3600 seconds, but got {args.longest}")
    check_output(Path(args.output), args.force)
    make_folder("--output", Path(args.output).absolute().parent)
    with nothing_printed():
        from espnet_layerskip.inference.speech2text import load_model

        speech2text = load_model(
            args.model, args.model_file, decoder_type="greedy", blank_threshold="auto"
        )
    found = export_model(speech2text, args.output, args.precision, args.longest, args.force)
    print(f"{args.output}: {describe(found)}")
    return 0
