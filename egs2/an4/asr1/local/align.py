#!/usr/bin/env python3
"""Word times with skipping against full depth, by CTC segmentation and by forced alignment.

::

    python local/align.py --data dump/raw/test --output exp/hybrid/align.json \\
        --row "shipped, as calibrated" pretrained/an4_layerskip.zip \\
        --row "shipped, 0.9" pretrained/an4_layerskip.zip threshold=0.9 extension=0,0

Both take the reference transcripts. CTC segmentation is ESPnet's (``espnet2.bin.asr_align``, with
``pip install espnet-ctc-segmentation``), each word, with the space after it, a line of its text;
forced alignment is the best CTC path (`espnet_layerskip.decoding.align`), which gives the times in
transcripts.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from espnet_layerskip._compat import alignment_module
from espnet_layerskip.decoding.align import align
from espnet_layerskip.evaluation.environment import (
    environment_record,
    finish_record,
    relative,
    typed,
)
from espnet_layerskip.evaluation.experiment import Experiment, load_experiment
from espnet_layerskip.evaluation.inputs import Speech, load_test_set
from espnet_layerskip.evaluation.rows import check_names, custom_row
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.evaluation.tables import folded, markdown_table
from espnet_layerskip.files import run_main, write_text
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.inference.times import word_times
from espnet_layerskip.method.settings import OFF

ABOUT = """\
Share of the words whose start and end both differ from those at full depth by at most so many
frames, and the largest difference in frames. The text is the reference; words that the model's
tokens do not have are left out. "right": words of the utterances whose greedy transcripts at full
depth and with skipping are right; "with errors": the others, where a word of the reference may be
one that the model has not heard, so that no frame is its own. CTC segmentation has each word with
the space after it as a line of its text: without the space, which a model of characters says, its
times are wrong at full depth already."""
METHODS = {"segmentation": "CTC segmentation (asr_align)", "forced": "forced alignment"}
ROUNDING = 1e-3  # frames: segmentation gives seconds
Span = tuple[float, float]
"""Start and end of a word in encoder frames."""


@dataclass(frozen=True)
class Shift:
    """A word as it is placed at full depth and with skipping.

    Attributes:
        utt_id: Its utterance.
        word: What was said.
        off: Start and end at full depth, in encoder frames.
        on: The same with skipping.
        heard: The transcripts of the utterance by greedy search, at full depth and with skipping.
        right: Both are the reference.
    """

    utt_id: str
    word: str
    off: Span
    on: Span
    heard: tuple[str, str]
    right: bool

    @property
    def frames(self) -> float:
        """The larger difference of the two, in frames."""
        return max(abs(a - b) for a, b in zip(self.off, self.on, strict=True))


def summary(shifts: Sequence[Shift]) -> dict[str, Any]:
    """Return how far words move: shares in percent, and the largest difference in frames.

    A word counts by the larger difference of its start and its end.
    """
    moved = [shift.frames for shift in shifts]

    def share(limit: float) -> float | None:
        return 100.0 * sum(m <= limit + ROUNDING for m in moved) / len(moved) if moved else None

    return {
        "words": len(moved),
        "same": share(0.0),
        "within_half": share(0.5),
        "within_one": share(1.0),
        "within_two": share(2.0),
        "largest": max(moved, default=None),
    }


def tokens_of(experiment: Experiment, text: str) -> tuple[list[str], list[int]]:
    """Return the tokens of a transcript that the model knows, and their ids."""
    model = experiment.speech2text
    known = [t for t in model.tokenizer.text2tokens(text) if t in model.asr_model.token_list]
    return known, model.converter.tokens2ids(known)


def forced_words(
    log_probs: torch.Tensor, tokens: Sequence[str], ids: Sequence[int], token_type: str
) -> list[Span]:
    """Return the span of each word on the best CTC path of its tokens, in frames.

    Args:
        log_probs: (T, V).
        tokens: Of the whole transcript.
        ids: Theirs.
        token_type: As of `word_times`.

    Raises:
        ValueError: If there is no such path.
    """
    starts, ends = align(log_probs, ids)
    if not starts:
        raise ValueError(f"{len(ids)} tokens have no path through {len(log_probs)} frames")
    return [(word.start, word.end) for word in word_times(tokens, starts, ends, token_type)]


def lines_of(words: Sequence[str], tokenize: Callable[[str], Sequence[str]]) -> list[str]:
    """Return the text that ``asr_align`` takes to align words: one a line, with a name before it.

    Where the space between words is a token, it belongs to the line: a model says it, and without
    it segmentation goes astray, at full depth too.

    Example:
        >>> lines_of(["GO", "ON"], lambda text: [{" ": "<space>"}.get(c, c) for c in text])
        ['0 GO ', '1 ON']
    """
    gap = " " if "<space>" in tokenize("A B") else ""
    last = len(words) - 1
    return [f"{i} {word}{gap if i < last else ''}" for i, word in enumerate(words)]


class Segmentation:
    """ESPnet's ``asr_align`` with the encoder of a system.

    Args:
        experiment: Gives configuration and checkpoint.

    Raises:
        ValueError: If the package is not installed.
    """

    def __init__(self, experiment: Experiment):
        try:
            alignment = alignment_module()
        except ImportError as e:
            raise ValueError(f"{e} (pip install espnet-ctc-segmentation)") from e
        files = experiment.speech2text.model_files
        self.aligner = alignment.CTCSegmentation(files.train_config, files.model_file)

    def words(self, system: System, samples: Any, words: Sequence[str]) -> list[Span]:
        """Return the span of each word in frames.

        Args:
            system: Whose encoder and head are used.
            samples: (N,), float32.
            words: Each becomes a line of the text to align.
        """
        self.aligner.asr_model, self.aligner.ctc = system.model, system.model.ctc
        self.aligner.set_config(fs=system.speech2text.sample_rate)
        task = self.aligner(samples, lines_of(words, system.speech2text.tokenizer.text2tokens))
        frame = task.config.index_duration
        return [(start / frame, end / frame) for start, end, _ in task.segments]


def compare_row(
    experiment: Experiment, on: System, speech: Iterable[Speech], text: Mapping[str, str]
) -> tuple[dict[str, list[Shift]], SkipCount]:
    """Align a test set at full depth and with skipping.

    Returns:
        By method the shift of each word that the model knows, and what was skipped.
    """
    off, segmentation = System(experiment, OFF), Segmentation(experiment)
    token_type = experiment.speech2text.asr_train_args.token_type
    found: dict[str, list[Shift]] = {method: [] for method in METHODS}
    skipped = SkipCount()
    for one in speech:
        words = [w for w in text[one.utt_id].split() if tokens_of(experiment, w)[0]]
        tokens, ids = tokens_of(experiment, " ".join(words))
        spans: dict[str, list[list[Span]]] = {method: [] for method in METHODS}
        heard: list[str] = []
        for system in (off, on):
            [log_probs], encoded = system.posteriors([torch.from_numpy(one.samples)])
            heard.append(system.text(encoded))
            if system is on:
                skipped += system.skips(encoded)
            spans["forced"].append(forced_words(log_probs, tokens, ids, token_type))
            spans["segmentation"].append(segmentation.words(system, one.samples, words))
        right = all(h.split() == text[one.utt_id].split() for h in heard)
        for method, (before, after) in spans.items():
            for word, a, b in zip(words, before, after, strict=True):
                found[method].append(Shift(one.utt_id, word, a, b, (heard[0], heard[1]), right))
    return found, skipped


def row_record(
    name: str, on: System, shifts: Mapping[str, Sequence[Shift]], skipped: SkipCount
) -> dict[str, Any]:
    """Return what `compare_row` found for JSON."""
    methods = {}
    for method, found in shifts.items():
        outliers = sorted((s for s in found if s.frames > 1 + ROUNDING), key=lambda s: -s.frames)
        methods[method] = {
            "all": summary(found),
            "right": summary([s for s in found if s.right]),
            "wrong": summary([s for s in found if not s.right]),
            "outliers": [{**asdict(s), "frames": s.frames} for s in outliers],
        }
    return {
        "name": name,
        "sha256": on.experiment.sha256,
        "what": on.describe(),
        "frame_seconds": on.speech2text.frame_seconds,
        "skip_ratio": skipped.ratio,
        "methods": methods,
    }


def align_tables(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables of the page."""
    header = ("row", "method", "utterances", "words", "same", "<= 0.5", "<= 1", "<= 2", "largest")
    cells, outliers = [], []
    for record in records:
        name = f"{record['name']} ({100 * record['skip_ratio']:.1f} % skipped)"
        for method, found in record["methods"].items():
            for which, label in (("all", "all"), ("right", "right"), ("wrong", "with errors")):
                counts = found[which]
                shares = [counts[k] for k in ("same", "within_half", "within_one", "within_two")]
                cells.append(
                    [
                        name if which == "all" else "",
                        METHODS[method] if which == "all" else "",
                        label,
                        str(counts["words"]),
                        *("" if v is None else f"{v:.1f} %" for v in shares),
                        "" if counts["largest"] is None else f"{counts['largest']:.1f}",
                    ]
                )
            outliers += [
                [
                    *(record["name"], METHODS[method], s["utt_id"], s["word"]),
                    *(_span(s["off"]), _span(s["on"]), f"{s['frames']:.1f}", *s["heard"]),
                ]
                for s in found["outliers"]
            ]
    titles = (
        *("row", "method", "utterance", "word", "full depth", "skipping", "frames"),
        *("heard at full depth", "heard with skipping"),
    )
    return "\n\n".join(
        [
            markdown_table(header, cells),
            folded(
                f"The {len(outliers)} words that move by more than a frame",
                markdown_table(titles, outliers),
            ),
        ]
    )


def _span(span: Span) -> str:
    return f"{span[0]:.1f} to {span[1]:.1f}"


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; ``cmd`` stands in for the command line's arguments."""
    parser = argparse.ArgumentParser(prog="align", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="wav.scp, text and utt2spk")
    add("--output", type=Path, required=True, help="JSON file to write")
    add(
        "--row",
        nargs="+",
        action="append",
        required=True,
        metavar="NAME EXPDIR_OR_ZIP KEY=VALUE",
        help="as of compare: threshold=P extension=L,R context=C ...",
    )
    args = parser.parse_args(cmd)
    logging.getLogger().setLevel(logging.ERROR)
    environment, data = environment_record(), load_test_set(args.data)
    records = []
    for row in check_names([custom_row(items) for items in args.row]):
        [exp] = row.exps
        experiment = load_experiment(exp)
        on = System(experiment, row.settings)
        shifts, skipped = compare_row(experiment, on, data.speech, data.text)
        records.append({"exp": relative(exp), **row_record(row.name, on, shifts, skipped)})
        print(align_tables(records[-1:]))
    report = {
        "environment": finish_record(environment),
        "command": typed(["python3", "local/align.py", *(sys.argv[1:] if cmd is None else cmd)]),
        "data": {"dir": relative(args.data), **data.describe()},
        "rows": records,
    }
    write_text(args.output, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    run_main(main)
