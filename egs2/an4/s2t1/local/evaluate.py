"""Decode AN4 with a trained small OWSM-CTC, skipping off and on, by ESPnet's inference class.

Example::

    python local/evaluate.py --exp exp/s2t_train_s2t_ctc --output exp/skipping.json
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile

from espnet_layerskip._compat import s2t_inference_module
from espnet_layerskip.evaluation.environment import environment_record, finish_record, typed
from espnet_layerskip.evaluation.scoring import Counts, count_errors
from espnet_layerskip.files import read_table, run_main, write_text
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.inference.when_built import SkipWhenBuilt
from espnet_layerskip.method.settings import SkipSettings

GATES = ("4", "2,4,6")
SETTINGS = (
    "threshold=0.9 extension=1,1 context=full",
    "threshold=0.9 extension=1,1 context=packed",
    "threshold=0.99 extension=1,1 context=packed",
    "threshold=0.9 extension=0,0 context=packed",
)
ASR = {"lang_sym": "<eng>", "task_sym": "<asr>"}


class System:
    """A model with one way of skipping, and what it has decoded.

    Args:
        name: For the table.
        files: Those of ESPnet's class.
    """

    def __init__(self, name: str, files: dict[str, str]):
        self.name, self.model = name, s2t_inference_module().Speech2TextGreedySearch(**files, **ASR)
        self.words, self.chars, self.skipped = Counts(), Counts(), SkipCount()
        self.seconds, self.texts = 0.0, dict[str, str]()
        encoder = self.model.s2t_model.encoder
        encoder.register_forward_pre_hook(lambda *_: self._tick(-1))
        encoder.register_forward_hook(lambda *_: self._tick(1))

    def _tick(self, sign: int) -> None:
        self.seconds += sign * time.perf_counter()

    def take(self, utt: str, text: str, reference: str) -> None:
        """Score a text."""
        self.texts[utt] = text
        self.words += count_errors(reference.split(), text.split())
        self.chars += count_errors(list(reference), list(text))


def read(data: Path) -> list[tuple[str, Any, str]]:
    """Return (id, samples (N,) float32, words) of a directory of local/windows.py."""
    words = read_table(data / "text.ctc")
    wavs = read_table(data / "wav.scp")
    return [(u, soundfile.read(p, dtype="float32")[0], words[u]) for u, p in wavs.items()]


def systems(files: dict[str, str], told: SkipWhenBuilt) -> list[System]:
    """Return our layers without skipping, and all ways of skipping."""
    ways = {"ours, skipping off": "threshold=off"}
    ways |= {name: name for g in GATES for name in (f"gates={g} {text}" for text in SETTINGS)}
    found = []
    for name, items in ways.items():
        told.settings = SkipSettings.from_items(items.split())
        found.append(System(name, files))
    return found


def decode(found: Sequence[System], told: SkipWhenBuilt, data: Path) -> None:
    """Decode a test set with all systems, and count what they skip."""
    for utt, speech, reference in read(data):
        for system in found:
            told.count = SkipCount()
            system.take(utt, system.model(speech)[0][3].strip(), reference)
            system.skipped += told.count


def measure(found: Sequence[System], data: Path, repeats: int) -> None:
    """Time the encoders, utterance by utterance in turns."""
    for system in found:
        system.seconds = 0.0
    for _, speech, _ in read(data):
        for _ in range(repeats):
            for system in found:
                system.model(speech)


def row(system: System, repeats: int) -> dict[str, Any]:
    """Return what the page shows of a system."""
    return {
        "wer": system.words.percentages()[4],
        "cer": system.chars.percentages()[4],
        "skipped": 100.0 * system.skipped.ratio,
        "ceiling": 100.0 * system.skipped.ceiling,
        "encoder_s": system.seconds / repeats,
        "texts": system.texts,
    }


def decode_long(found: Sequence[System], data: Path) -> dict[str, Any]:
    """Decode long recordings, alone and as a batch; return WERs by system."""
    rows = {}
    for system in found:
        long, batched = Counts(), Counts()
        audio = read(data)
        options = {"batch_size": 4, "context_len_in_secs": 2.0, **ASR}
        together = system.model.batch_decode([speech for _, speech, _ in audio], **options)
        for (_, speech, reference), text in zip(audio, together, strict=True):
            alone = system.model.decode_long_batched_buffered(speech, **options)
            long += count_errors(reference.split(), plain(alone))
            batched += count_errors(reference.split(), plain(text))
        rows[system.name] = {
            "long_wer": long.percentages()[4],
            "batch_wer": batched.percentages()[4],
        }
    return rows


def plain(text: str) -> list[str]:
    """Return the words of a text without OWSM's symbols."""
    return [word for word in text.replace(">", "> ").split() if not word.startswith("<")]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Accuracy of a small OWSM-CTC with skipping")
    parser.add_argument("--exp", type=Path, required=True, help="experiment directory")
    parser.add_argument("--model_file", default="valid.cer_ctc.ave_5best.pth")
    parser.add_argument("--data", type=Path, default=Path("dump/owsm/test"))
    parser.add_argument("--long_data", type=Path, default=Path("dump/owsm/test_long"))
    parser.add_argument("--repeats", type=int, default=3, help="timed passes, in turns")
    parser.add_argument("--output", type=Path, required=True, help="JSON")
    args = parser.parse_args()
    logging.disable(logging.INFO)  # ESPnet logs every hypothesis
    record = environment_record()
    files = {
        "s2t_train_config": str(args.exp / "config.yaml"),
        "s2t_model_file": str(args.exp / args.model_file),
    }
    stock = System("ESPnet", files)
    told = SkipWhenBuilt(SkipSettings())
    found = [stock, *systems(files, told)]
    decode(found, told, args.data)
    told.undo()
    measure(found, args.data, args.repeats)
    result = {
        "short": {system.name: row(system, args.repeats) for system in found},
        "long": decode_long([*found[:2], found[3], found[-3]], args.long_data),
        "references": {utt: words for utt, _, words in read(args.data)},
        "command": typed(["python", *sys.argv]),
        "environment": finish_record(record),
    }
    write_text(args.output, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)
