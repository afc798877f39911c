"""The verb ``compare``: measure experiments, write a page for people and JSON for programs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from espnet_layerskip.files import write_text
from espnet_layerskip.inference.quiet import start
from espnet_layerskip.verbs.command_line import make_folder


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``compare``; words are joined by "-" or "_", as recipes do."""
    parser.description = (
        "Compare experiments on a test set: accuracy, skip ratio, encoder time and FLOPs. An "
        "experiment with a gate gives rows for skipping off, skipping on and stopped at each gate "
        "layer. Writes compare.md and compare.json into the output folder; decodings are kept, "
        "and only new ones are computed. Progress goes to stderr."
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="wav.scp, text and utt2spk")
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write into")
    add(
        "--exp",
        nargs="+",
        action="extend",
        default=[],
        metavar="[LABEL=]EXPDIR[,EXPDIR...]",
        help="experiment with its standard rows; several folders are training seeds",
    )
    add(
        "--row",
        nargs="+",
        action="append",
        default=[],
        metavar="NAME EXPDIR[,EXPDIR...] KEY=VALUE",
        help="one row: threshold=P|off|auto, extension=L,R, context=C, exit=K, gates=K,K, "
        "repeats=P|off, precision=P",
    )
    add(
        "--model-file",
        "--model_file",
        metavar="F",
        help="checkpoint; default: the best averaged one",
    )
    add("--cache", type=Path, metavar="DIR", help="folder of decodings; default: OUTPUT/cache")
    add(
        "--repeats",
        type=int,
        default=5,
        metavar="N",
        help="timed passes, at least 5, 0 = no timing (default: 5)",
    )
    add(
        "--max-timed",
        "--max_timed",
        type=int,
        metavar="N",
        help="utterances of a timed pass, spread over the durations; default: the whole set",
    )
    add(
        "--seconds",
        type=float,
        nargs="+",
        default=[],
        metavar="S",
        help="time inputs of about these lengths, made of whole utterances of a speaker; "
        "default: the utterances as they are",
    )
    add(
        "--num-threads",
        "--num_threads",
        type=int,
        default=1,
        metavar="N",
        help="while timing (default: 1)",
    )
    add(
        "--max-wer-points",
        "--max_wer_points",
        type=float,
        metavar="POINTS",
        help="percent points over full depth above which a row counts as failed (default: 0.3)",
    )


def run(args: argparse.Namespace) -> int:
    """Compare as the arguments of `add_options` say.

    Returns:
        Exit status: that of `compare`.

    Raises:
        ValueError: As `compare`.
    """
    return compare(args, ["espnet-layerskip", *args.argv])


def compare(args: argparse.Namespace, command: Sequence[str]) -> int:
    """Compare, print the page and write ``compare.md`` and ``compare.json``.

    Args:
        args: Those of `add_options`.
        command: How it can be done again, word by word.

    Returns:
        0, or 1 if utterances of the test set could not be used (the others were).

    Raises:
        ValueError: For a wrong row, an unreadable test set or if every row failed.
    """
    if args.max_timed is not None and args.max_timed < 1:
        raise ValueError(f"--max_timed {args.max_timed}: at least 1 is needed")
    start()
    from espnet_layerskip.evaluation.timing import MIN_REPEATS

    if args.num_threads < 1 or (args.repeats != 0 and args.repeats < MIN_REPEATS):
        raise ValueError(
            f"--repeats must be 0 (no timing) or at least {MIN_REPEATS}, and --num_threads at "
            f"least 1, but got {args.repeats} and {args.num_threads}"
        )
    if args.max_timed is not None and args.seconds:
        raise ValueError("--max_timed and --seconds cannot go together: all inputs are timed")
    make_folder("--output", args.output, "compare.json", "compare.md")
    make_folder("--cache", args.cache or args.output / "cache")
    if any(not seconds > 0.0 for seconds in args.seconds):
        raise ValueError(f"--seconds must be above 0, but got {args.seconds}")
    from espnet_layerskip.evaluation.cache import DecodingCache
    from espnet_layerskip.evaluation.compare import Comparison, too_short
    from espnet_layerskip.evaluation.compare_report import compare_page, compare_records
    from espnet_layerskip.evaluation.environment import (
        environment_record,
        finish_record,
        relative,
        typed,
    )
    from espnet_layerskip.evaluation.progress import to_stderr
    from espnet_layerskip.evaluation.rows import check_names, custom_row, experiment_rows
    from espnet_layerskip.evaluation.scoring import MAX_WER_POINTS

    points = MAX_WER_POINTS if args.max_wer_points is None else args.max_wer_points
    rows = [row for spec in args.exp for row in experiment_rows(spec)]
    rows = check_names([*rows, *(custom_row(items) for items in args.row)])
    environment = environment_record()
    cache = DecodingCache(args.cache or args.output / "cache")
    comparison = Comparison(args.data, cache, args.model_file, to_stderr)
    lengths = sorted(set(args.seconds))
    results = comparison.measure(rows, args.repeats, args.num_threads, args.max_timed, lengths)
    if not any(result.seeds for result in results):
        reasons = "; ".join(f"{r.row.name}: {r.failure}" for r in results)
        raise ValueError(f"every row failed, nothing is written: {reasons}")
    data, short = comparison.data, too_short(results)
    timed = len(data.speech) - len(short)
    report = {
        "environment": finish_record(environment),
        "command": typed(command),
        "data": {
            "dir": relative(args.data),
            **data.describe(),
            **({"too_short": short} if short else {}),
        },
        "settings": {
            "repeats": args.repeats,
            "threads": args.num_threads,
            "timed_utterances": min(args.max_timed or timed, timed),
            "timed_seconds": args.seconds,
            "max_wer_points": points,
        },
        "experiments": [
            {"exp": exp, "checkpoint": e.checkpoint, "sha256": e.sha256, "chosen": e.chosen}
            for exp, e in comparison.experiments.items()
        ],
        "rows": compare_records(results, data.seconds, points),
    }
    page, path = compare_page(report), args.output / "compare.json"
    try:
        write_text(path, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        write_text(path.with_suffix(".md"), page)
    finally:  # what was measured is not lost with the disk
        print(page)
    print(f"written: {path} and {path.with_suffix('.md')}")
    return 1 if data.refused else 0
