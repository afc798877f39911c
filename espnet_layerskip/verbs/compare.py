"""The comparison of experiments: measure, then write a page for people and JSON for programs."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet_layerskip.evaluation.cache import DecodingCache
from espnet_layerskip.evaluation.compare import Comparison
from espnet_layerskip.evaluation.compare_report import compare_page, compare_records
from espnet_layerskip.evaluation.environment import command_line, environment_record, finish_record
from espnet_layerskip.evaluation.inputs import TestSet
from espnet_layerskip.evaluation.rows import check_names, custom_row, experiment_rows
from espnet_layerskip.files import write_text


def compare_exps(args: argparse.Namespace, argv: Sequence[str]) -> None:
    """Compare experiments and write ``compare.md`` and ``compare.json``.

    Raises:
        ValueError: For a wrong row, an unreadable test set or if every row failed.
    """
    if args.max_timed is not None and args.max_timed < 1:
        raise ValueError(f"--max_timed {args.max_timed}: at least 1 is needed")
    rows = [row for group in args.exp for spec in group for row in experiment_rows(spec)]
    rows = check_names([*rows, *(custom_row(items) for items in args.row)])
    environment = environment_record()
    comparison = Comparison(
        args.data, DecodingCache(args.cache or args.output / "cache"), args.model_file
    )
    results = comparison.measure(rows, args.repeats, args.num_threads, args.max_timed)
    if not any(result.seeds for result in results):
        reasons = "; ".join(f"{r.row.name}: {r.failure}" for r in results)
        raise ValueError(f"every row failed, nothing is written: {reasons}")
    data = comparison.test_set()
    report = {
        "environment": finish_record(environment),
        "command": command_line("espnet_layerskip.bin.compare_exps", argv),
        "data": _data_record(args.data, data),
        "settings": {
            "repeats": args.repeats,
            "threads": args.num_threads,
            "timed_utterances": min(args.max_timed or len(data.speech), len(data.speech)),
            "allowed": args.max_wer_increase,
        },
        "experiments": [
            {"exp": exp, "checkpoint": e.checkpoint, "sha256": e.sha256, "chosen": e.chosen}
            for exp, e in comparison.experiments.items()
        ],
        "rows": compare_records(results, data.seconds, args.max_wer_increase),
    }
    _write(args.output / "compare.json", report, compare_page(report))


def _data_record(data_dir: Path, data: TestSet) -> dict[str, Any]:
    return {
        "dir": os.path.relpath(data_dir) if data_dir.is_relative_to(Path.cwd()) else str(data_dir),
        "utterances": len(data.speech),
        "words": sum(len(text.split()) for text in data.text.values()),
        "seconds": data.seconds,
    }


def _write(path: Path, report: Mapping[str, Any], page: str) -> None:
    write_text(path, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(path.with_suffix(".md"), page)
    print(page)
    print(f"written: {path} and {path.with_suffix('.md')}")
