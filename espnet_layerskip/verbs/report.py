"""The verb ``report``: measure an experiment, draw, and write the page."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_layerskip.files import read_usable, write_bytes, write_text
from espnet_layerskip.inference.quiet import start
from espnet_layerskip.verbs.command_line import make_folder

if TYPE_CHECKING:  # the command line starts without PyTorch
    from espnet_layerskip.evaluation.report.canvas import Drawing
    from espnet_layerskip.evaluation.report.collect import Material

PAGE = "index.html"
# What a report of a usual test set takes, cache included.
NEEDED_BYTES = 30_000_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``report``."""
    parser.description = (
        "Measure an experiment with a gate and write OUTPUT/index.html, one page with figures, "
        "audio and numbers that opens without a network, the figures as PNG and SVG, and "
        "report.json. Progress goes to stderr."
    )
    add = parser.add_argument
    add(
        "--exp",
        required=True,
        metavar="EXPDIR_ZIP_OR_TAG",
        help="experiment with a gate, packed zip, or tag of espnet_model_zoo",
    )
    add(
        "--compare",
        nargs="+",
        action="extend",
        default=[],
        metavar="[LABEL=]EXPDIR_ZIP_OR_TAG",
        help="other experiments in the same axes, with or without a gate",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="folder to write into")
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="wav.scp, text and utt2spk; default: the recipe's dump/raw/test",
    )
    add("--model-file", metavar="F", help="checkpoint; default: the best averaged one")
    add(
        "--utt-id",
        action="append",
        default=[],
        metavar="ID",
        help="utterance to show, can be repeated; default: a few informative ones",
    )
    add(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder of decodings, can be that of compare_exps; default: OUTPUT/cache",
    )
    add("--num-threads", type=int, default=1, metavar="N", help="while timing (default: 1)")
    add(
        "--times-from",
        type=Path,
        metavar="COMPARE.json",
        help="comparison of the same experiment and data, made with --seconds: its times head the "
        "page, which then says what the comparison says; default: the utterances as they are, "
        "timed for the report",
    )


def run(args: argparse.Namespace) -> int:
    """Make a report as the arguments of `add_options` say.

    Returns:
        Exit status: 0, or 1 if utterances of the test set could not be used (the others were).

    Raises:
        ValueError: If something that is needed is missing or cannot be used.
    """
    if args.num_threads < 1:
        raise ValueError(f"--num-threads must be at least 1, but got {args.num_threads}")
    start()
    from espnet_layerskip.evaluation.environment import typed
    from espnet_layerskip.evaluation.report.canvas import check_installed
    from espnet_layerskip.evaluation.report.collect import collect
    from espnet_layerskip.evaluation.report.comparison import read_comparison
    from espnet_layerskip.evaluation.report.page import build_page, draw_all

    compared = None if args.times_from is None else read_comparison(args.times_from)
    check_installed()
    command = typed(["espnet-layerskip", *args.argv])
    with writing_to(args.output), contextlib.redirect_stdout(sys.stderr):
        make_folder("--cache", cache := args.cache or args.output / "cache")
        material = collect(
            args.exp,
            args.compare,
            cache,
            data_dir=args.data,
            model_file=args.model_file,
            utt_ids=args.utt_id,
            num_threads=args.num_threads,
            compared=compared,
        )
        print("drawing")
        drawings = draw_all(material, command)
        page = build_page(material, drawings, command)
        write_figures(args.output / "figures", drawings, command)
        write_record(args.output / "report.json", material, command)
        write_text(args.output / PAGE, page)
    print(args.output / PAGE)
    return status(Path(material.data_dir), len(material.speech))


def status(data_dir: Path, used: int) -> int:
    """Return 1 if the test set lists more utterances than could be used, else 0."""
    listed = read_usable(data_dir / "wav.scp", allow_empty_value=True)
    return 1 if sum(map(len, listed)) > used else 0


@contextlib.contextmanager
def writing_to(output: Path) -> Iterator[None]:
    """Say plainly, inside the block, that the output folder cannot be written to, and why.

    Raises:
        ValueError: At once if the folder cannot be made, is a file or its disk is nearly full;
            later if the disk fills up. Files are replaced whole: none is left half-written.
    """
    make_folder("--output", output, PAGE, "report.json")
    free = shutil.disk_usage(output).free
    if free < NEEDED_BYTES:
        raise ValueError(
            f"--output {output}: its disk has {free / 1e6:.0f} MB left, a report takes about "
            f"{NEEDED_BYTES / 1e6:.0f} MB: free some space, or name a folder on another disk"
        )
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise ValueError(
                f"--output {output} cannot be written to ({e.strerror}): free some space or name "
                "another folder, and start again; what was decoded so far is kept in its cache"
            ) from e
        raise


def write_figures(directory: Path, drawings: Sequence[Drawing], command: str) -> None:
    """Write every figure as SVG and PNG, and their captions."""
    captions = [f"Made by: {command}", ""]
    for drawing in drawings:
        write_bytes(directory / f"{drawing.name}.svg", drawing.svg.encode())
        write_bytes(directory / f"{drawing.name}.png", drawing.png)
        captions += [f"{drawing.name}: {drawing.title}. {drawing.caption}", ""]
    write_text(directory / "captions.txt", "\n".join(captions))


def write_record(path: Path, material: Material, command: str) -> None:
    """Write all numbers as JSON."""
    record = {
        "command": command,
        "environment": material.environment,
        "exp": material.exp,
        "checkpoint": material.experiment.checkpoint,
        "sha256": material.experiment.sha256,
        "settings": material.experiment.chosen,
        "data": material.data_dir,
        "rows": [{"kind": p.kind, "wer_interval": asdict(p.wer), **p.record}
                 for p in material.points],
        "failed": material.failures,
        "utterances": [
            {
                "utt_id": t.utt_id,
                "seconds": t.seconds,
                "skip_ratio": t.skip_ratio,
                "tokens_per_second": t.token_rate,
                "reference": t.ref,
                "skipping_on": t.text_on,
                "skipping_off": t.text_off,
            }
            for t in material.traces
        ],
        "training": material.history.curves,
    }  # fmt: skip
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
