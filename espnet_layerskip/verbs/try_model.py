"""The verb ``try``: what a trained model gains, in one sentence; no training, nothing written."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

from espnet_layerskip.files import write_text
from espnet_layerskip.inference.quiet import start
from espnet_layerskip.method.settings import SkipSettings
from espnet_layerskip.verbs.command_line import check_output


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``try``."""
    parser.description = (
        "Say what a trained ESPnet model, stock or ours, gains on some speech: from the exact fast "
        "form of its encoder, and from skipping by gates at its trained intermediate CTC heads. "
        "Prints one sentence and a short table. Trains nothing and writes nothing (but --output). "
        "Decoding is greedy CTC; progress goes to stderr."
    )
    add = parser.add_argument
    add(
        "--model",
        required=True,
        metavar="EXPDIR_ZIP_OR_TAG",
        help="experiment directory, zip of espnet2.bin.pack, or tag of espnet_model_zoo",
    )
    add("--model-file", metavar="F", help="checkpoint; default: the best averaged one")
    add(
        "--data",
        required=True,
        metavar="DIR",
        help="with wav.scp, and text if there are transcripts; without them the disagreement with "
        "full depth is counted",
    )
    add(
        "--max-utts",
        type=int,
        metavar="N",
        help="utterances to use, spread over the durations; default: about 5 minutes of audio",
    )
    add(
        "--gates",
        metavar="K,K",
        help="gates after these layers, all together, trained heads or not; default: each trained "
        "intermediate CTC layer that is not too deep, and pairs of them",
    )
    add("--metric", choices=("wer", "cer"), default="wer", help="of transcripts; default: wer")
    add("--num-threads", type=int, metavar="N", help="CPU threads; default: PyTorch's choice")
    add("--output", metavar="F.json", help="write all figures to this file")


def run(args: argparse.Namespace) -> int:
    """Try as the arguments of `add_options` say.

    Returns:
        Exit status: 0, whatever the answer is; 1 if some of the data could not be used.

    Raises:
        ValueError: If the call, the model or the data cannot be used.
    """
    for name in ("max_utts", "num_threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, but got {value}")
    output = None if args.output is None else Path(args.output)
    if output is not None:
        tables = [Path(args.data, name) for name in ("wav.scp", "text", "utt2spk")]
        check_output("--output", output, [args.model, *tables])
    gates = None if args.gates is None else SkipSettings.from_items([f"gates={args.gates}"])
    start()
    began = time.monotonic()

    def log(line: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {line}", file=sys.stderr, flush=True)

    with contextlib.redirect_stdout(sys.stderr):  # ESPnet and its imports print
        log("loading")
        import torch

        if args.num_threads is not None:
            torch.set_num_threads(args.num_threads)
        from espnet_layerskip.evaluation.open_model import open_model
        from espnet_layerskip.evaluation.trial import run_trial
        from espnet_layerskip.evaluation.trial_data import load_trial_data
        from espnet_layerskip.evaluation.trial_report import trial_page, unsupported

        forced = None if gates is None else gates.gates_in_use
        opened = open_model(args.model, args.model_file, forced)
        unusable = 0
        if opened.no_ours:
            page, report = unsupported(opened), {"model": args.model, "unsupported": opened.no_ours}
        else:
            data = load_trial_data(args.data, opened.speech2text.sample_rate, args.max_utts)
            log(data.describe())
            unusable = data.unusable
            result = run_trial(opened, data, args.metric, log, forced is not None)
            page, report = trial_page(result), result.to_json()
    print(page)
    if output is not None:
        write_text(output, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return 1 if unusable else 0
