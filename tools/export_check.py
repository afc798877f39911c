#!/usr/bin/env python3
"""How near an exported model is to its PyTorch form, on a test set: a table in Markdown.

    python tools/export_check.py --model exp/asr_a packed.zip --data dump/raw/test

For every model with a gate, in float32 and int8: the frames kept, the utterances in which both
runtimes keep the same frames, those with the same transcript, the largest difference of
log-probabilities, and the WER of both, with its gates on and off. Greedy search, one utterance at
a time; each model as it was calibrated, else as configured, but for ``--settings``.

Of a frame that skipped, the label probabilities are left out: all are (1 - p(blank)) / (V - 1),
whose logarithm says nothing but rounding where p(blank) is within 1e-6 of one.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from espnet_layerskip.evaluation.experiment import load_experiment
from espnet_layerskip.evaluation.inputs import Speech, TestSet, load_test_set
from espnet_layerskip.evaluation.onnx import OnnxSystem
from espnet_layerskip.evaluation.scoring import error_rate, score, words
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.evaluation.tables import markdown_table
from espnet_layerskip.export.write import PRECISIONS, export_model
from espnet_layerskip.method.settings import OFF, SkipSettings

HEADER = (
    *("model", "precision", "folder MB", "frames kept %", "same frames", "same transcripts"),
    *("largest difference, on / off", "WER % in PyTorch, on / off", "in onnxruntime, on / off"),
)


def get_parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", nargs="+", required=True, metavar="EXPDIR_OR_ZIP", help="models with a gate")
    add("--data", required=True, type=Path, help="test set: wav.scp, text, utt2spk")
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    add("--settings", nargs="+", default=[], metavar="KEY=VALUE", help="how the models skip")
    add("--num-utterances", type=int, help="the first ones only")
    return parser


@dataclass
class Agreement:
    """What two runtimes gave for a test set, so far."""

    same_frames: int = 0
    same_text: int = 0
    worst: float = 0.0
    kept: int = 0
    frames: int = 0
    hyps: tuple[dict[str, str], dict[str, str]] = field(default_factory=lambda: ({}, {}))

    def add(self, one: Speech, eager: System, onnx: OnnxSystem) -> None:
        """Run both on one utterance."""
        log_probs, encoded = eager.posteriors([torch.from_numpy(one.samples)])
        expected = log_probs[0].numpy()
        depth = encoded.depth(eager.num_layers)[0].numpy()
        [found] = onnx.posteriors([torch.from_numpy(one.samples)])
        other = np.full_like(depth, eager.num_layers) if found.depth is None else found.depth
        self.same_frames += bool(np.array_equal(depth, other))
        skipped = depth < eager.num_layers
        difference = np.abs(expected - found.log_probs)
        difference[skipped, 1:] = 0.0
        difference[depth != other] = 0.0  # counted above
        self.worst = max(self.worst, float(difference.max(initial=0.0)))
        self.kept, self.frames = self.kept + int((~skipped).sum()), self.frames + len(depth)
        texts = eager.text(encoded), onnx.transcribe(one)[0]
        self.same_text += texts[0] == texts[1]
        for hyps, text in zip(self.hyps, texts, strict=True):
            hyps[one.utt_id] = text


def wer(data: TestSet, hyps: dict[str, str]) -> float:
    """Return the word error rate in percent."""
    refs = {utt: data.text[utt] for utt in hyps}
    return error_rate(score(refs, hyps, words).values())


def check(name: str, data: TestSet, precision: str, settings: SkipSettings) -> list[str]:
    """Return the row of one model in one precision."""
    experiment = load_experiment(name)
    on = settings.over(experiment.settings)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "model.onnx")
        longest = max(one.seconds for one in data.speech) + 1.0
        export_model(System(experiment, on).speech2text, folder, precision, longest)
        size = sum(file.stat().st_size for file in folder.iterdir())
        for how in (on, OFF):
            eager, onnx = System(experiment, how), OnnxSystem(folder, how is OFF)
            found[how] = agreement = Agreement()
            for one in data.speech:
                agreement.add(one, eager, onnx)
    both = tuple(found.values())
    gated, total = both[0], len(data.speech)
    of_both = [" / ".join(f"{wer(data, a.hyps[i]):.2f}" for a in both) for i in (0, 1)]
    return [
        f"{Path(name).name} ({on.describe()})",
        *(precision, f"{size / 1e6:.1f}", f"{100 * gated.kept / gated.frames:.0f}"),
        f"{gated.same_frames} of {total}",
        " / ".join(f"{a.same_text} of {total}" for a in both),
        " / ".join(f"{a.worst:.1e}" for a in both),
        *of_both,
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Check models and print the table."""
    args = get_parser().parse_args(argv)
    data = load_test_set(args.data, load_experiment(args.model[0]).speech2text.sample_rate)
    data = replace(data, speech=data.speech[: args.num_utterances])
    rows = []
    for name in args.model:
        for precision in args.precision:
            print(f"{name}: {precision}", file=sys.stderr, flush=True)
            rows.append(check(name, data, precision, SkipSettings.from_items(args.settings)))
    print(markdown_table(HEADER, rows))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    main()
