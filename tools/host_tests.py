#!/usr/bin/env python3
"""Run ESPnet's own unit tests with our classes in the place of ESPnet's, and tabulate them.

::

    pip download --no-deps --no-binary espnet espnet==202611 && tar xzf espnet-202611.tar.gz
    tools/host_tests.py espnet-202611 --python .venv/bin/python --python .venv312/bin/python \\
        --output docs/host_tests.md

The tests are read where they lie; nothing of them is copied. ESPnet itself is the installed one of
each Python: the source archive of 202511 has no tests of ``espnet2``, so those of 202611 are run
with both. Those of alignment need the package ctc-segmentation. host_tests_plugin.py puts our
classes in, in the process that runs the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What stands in the place of ESPnet's classes: nothing; all of ours without gates; with gates that
# pass every frame on; with gates that really skip.
MODES = {"stock": None, "off": "", "gates 1.0": "1.0", "gates 0.2": "0.2"}
FEW = ("stock", "off", "gates 0.2")
ENCODERS = ("conformer", "transformer", "branchformer", "e_branchformer", "e_branchformer_ctc")
ENCODER_TESTS = "test/espnet2/asr/encoder/test_{}_encoder.py"


@dataclass(frozen=True)
class Row:
    """A row of the table: a test file and what is put in the place of ESPnet's classes in it."""

    file: str
    put: str = "encoders"
    label: str = "our encoders"
    modes: tuple[str, ...] = tuple(MODES)


ROWS = [
    *(Row(ENCODER_TESTS.format(name), "encoders alone") for name in ENCODERS),
    Row("test/espnet2/asr/test_espnet_model.py"),
    Row("test/espnet2/asr/test_maskctc_model.py"),
    Row("test/espnet2/asr/test_partially_AR.py"),
    Row("test/espnet2/bin/test_asr_inference_maskctc.py"),
    Row("test/espnet2/bin/test_s2t_inference_ctc.py"),
    Row("test/espnet2/asr/test_espnet_model.py", "encoders model", "our encoders and model", FEW),
    Row("test/espnet2/asr/test_ctc.py", "plain", "our head, plain", ("stock", "off")),
    Row("test/espnet2/asr/test_ctc.py", "factorized", "our head, factorized", ("stock", "off")),
    Row("test/espnet2/bin/test_asr_align.py", "encoders conformer", "our Conformer", FEW),
    Row(
        "test/espnet2/bin/test_asr_inference.py",
        "encoders speech2text",
        "our encoders and Speech2Text",
        FEW,
    ),
]

# Why a test fails that passes with ESPnet's classes: a pattern of its error and the reason.
REASONS = [
    (
        r"use_sdpa needs ESPnet 202611",
        "refused on purpose: `use_sdpa` is an option of ESPnet 202611; ESPnet 202511 fails too, "
        "with a TypeError",
    ),
    (
        r"(enh_s2t_task|multi_asr|hugging_face_decoder|streaming) is not supported",
        "refused on purpose: left to ESPnet's own class",
    ),
    (
        r"gates and ctc_trim cannot|gate_layer_idx and ctc_trim cannot",
        "refused on purpose: ESPnet's `ctc_trim` and gates cannot be combined",
    ),
    (
        r"needs an encoder with skipping",
        "refused on purpose: our model is for our encoders; others are for `model: espnet`",
    ),
    (
        r"No module named 'warprnnt_pytorch'",
        "needs `warprnnt_pytorch`, which is not installed; with ESPnet's own classes too",
    ),
]


def run_tests(
    python: str, source: Path, files: Sequence[str], put: str, mode: str, at_most: int
) -> dict[str, dict[str, Any]]:
    """Run files of tests in a process of its own; return what its plugin wrote, by file."""
    here = Path(__file__).resolve()
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        given = filter(None, [os.environ.get("PYTHONPATH")])
        settings = {
            "HOST_TESTS_PUT": "" if mode == "stock" else put,
            "HOST_TESTS_THRESHOLD": MODES[mode] or "",
            "HOST_TESTS_JSON": str(result),
            "HOST_TESTS_AT_MOST": str(at_most),
            "PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here.parent), *given]),
            "OMP_NUM_THREADS": "1",
        }
        # -P: not the ESPnet that lies beside the tests; -c: not the options of its setup.cfg
        command = [
            *(python, "-P", "-m", "pytest", "-q", "-p", "host_tests_plugin"),
            *("-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={source}", *files),
            *(f"--basetemp={folder}/tmp", "--continue-on-collection-errors"),
        ]
        done = subprocess.run(
            command,
            cwd=source,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if not result.is_file():
            raise SystemExit(f"{' '.join(command)} did not run:\n{done.stdout[-3000:]}")
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return {
        file: {**found, "results": [r for r in found["results"] if r["test"].startswith(file)]}
        for file in files
    }


def results(
    python: str, source: Path, rows: Sequence[Row], modes: Sequence[str] | None, at_most: int
) -> Iterator[tuple[Row, str, dict[str, Any]]]:
    """Yield what came of the rows: with ESPnet's classes, then with ours.

    Args:
        python: With ESPnet and this package.
        source: Unpacked source archive.
        rows: To run.
        modes: Of ours; None = all.
        at_most: Tests of each file, evenly spread; 0 = all.
    """
    files = list(dict.fromkeys(row.file for row in rows))
    stock = run_tests(python, source, files, "", "stock", at_most)
    yield from ((row, "stock", stock[row.file]) for row in rows)
    for mode in modes or list(MODES)[1:]:
        for put in dict.fromkeys(row.put for row in rows):
            group = [row for row in rows if row.put == put and mode in row.modes]
            if group:
                found = run_tests(python, source, [r.file for r in group], put, mode, at_most)
                yield from ((row, mode, found[row.file]) for row in group)


def count(found: dict[str, Any]) -> str:
    """Return passed/failed, and what was left out."""
    numbers = Counter(result["outcome"] for result in found["results"])
    skipped = f" ({numbers['skipped']} skipped)" if numbers["skipped"] else ""
    return f"{numbers['passed']}/{numbers['failed']}{skipped}"


def explained(found: dict[str, Any], stock: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (reason, test) of each failure; a reason in capitals is none."""
    as_stock = {r["test"] for r in stock["results"] if r["outcome"] == "failed"}
    for result in found["results"]:
        if result["outcome"] != "failed":
            continue
        first = next((line for line in result["error"].splitlines() if line.strip()), "")
        reason = next((why for pattern, why in REASONS if re.search(pattern, result["error"])), "")
        if not reason and result["test"] in as_stock:
            reason = "fails with ESPnet's own classes too"
        yield reason or f"NOT EXPLAINED: {first[:200]}", result["test"].partition("::")[2]


def page(command: str, runs: dict[str, dict[tuple[Row, str], dict[str, Any]]]) -> str:
    """Return the page: a table, and every failure with its reason.

    Args:
        command: How it was made.
        runs: Results by Python and by row and mode.
    """
    runs = {python: found for python, found in runs.items() if found}
    some = {python: next(iter(found.values())) for python, found in runs.items()}
    versions = [
        f"ESPnet {s['espnet']} (Python {s['python']}, torch {s['torch']})" for s in some.values()
    ]
    lines = [
        "# ESPnet's own unit tests with our classes in the place of its own",
        "",
        f"Made by `{command}`",
        "",
        f"With {'; '.join(versions)}. The tests are those of ESPnet 202611 in both cases.",
        "",
        "In brackets the tests of a file; where fewer were run, they are spread evenly over it.",
        "Passed/failed. *stock*: ESPnet's classes. *off*: ours, no gates. *gates 1.0*: a gate in",
        "the middle of each encoder with threshold 1.0, which lets every frame go on. *gates 0.2*:",
        "one that skips frames with p(blank) > 0.2 of an untrained head, in training as well.",
        "",
        "In the five files of encoders two things are changed for the gates. They refuse",
        "convolutions in the feed-forward layers, which would mix frames across a gap; these are",
        "made linear. And in training an encoder with gates returns the states at the gates too,",
        "as ESPnet's does with `interctc_layer_idx`; tests that take the output for a tensor get",
        "it alone.",
        "",
        "ESPnet's tests build random nets without a seed. Here each begins with the same random",
        "numbers, because some pass or fail by chance. The test",
        "`test_the_deprecated_class_decodes_the_same_way` compares the transcripts of two nets of",
        "other random weights each (with ESPnet's classes they differ for 7 of 15 seeds), and",
        "`test_Speech2Text_interctc` expects a token of the only frame of its audio, where a net",
        "may say blank or `<sos/eos>`, which ESPnet leaves out.",
        "",
    ]
    for python, found in runs.items():
        lines += [f"## ESPnet {some[python]['espnet']}", ""]
        lines += ["| tests | in the place of ESPnet's | " + " | ".join(MODES) + " |"]
        lines += ["|---" * (2 + len(MODES)) + "|"]
        rows = [row for row in ROWS if any((row, m) in found for m in MODES)]
        for row in rows:
            cells = [count(found[row, m]) if (row, m) in found else "" for m in MODES]
            all_ = next(iter(found[row, m] for m in MODES if (row, m) in found))["collected"]
            number = sum(n for path, n in all_.items() if path.endswith(row.file))
            name = f"{Path(row.file).name} ({number})"
            lines += [f"| {name} | {row.label} | " + " | ".join(cells) + " |"]
        lines += ["", "Failures:", ""]
        seen = [
            share for (_, m), f in found.items() if m == "gates 0.2" and (share := f["skipped"])
        ]
        for row in rows:
            for mode in (m for m in row.modes if (row, m) in found):
                if mode == "stock":
                    failed = [r for r in found[row, mode]["results"] if r["outcome"] == "failed"]
                    errors = Counter(last_words(r["error"]) for r in failed)
                    reasons = {f"ESPnet's own: {why}": n for why, n in errors.items()}
                else:
                    pairs = explained(found[row, mode], found[row, "stock"])
                    reasons = dict(Counter(reason for reason, _ in pairs))
                for reason, number in reasons.items():
                    lines += [f"- {Path(row.file).name}, {row.label}, {mode}: {number} {reason}"]
        if seen:
            lines += [
                "",
                f"Skipped in the passes of *gates 0.2*: {100 * sum(seen) / len(seen):.0f} % "
                "of the frames, mean over the files.",
            ]
        lines += [""]
    return "\n".join(lines)


def last_words(error: str) -> str:
    """Return the first line of an error, without what differs from run to run."""
    line = next((line for line in error.splitlines() if line.strip()), "")
    return re.sub(r"/\S+/|0x[0-9a-f]+", "", line)[:160]


def main() -> None:
    """Run the tests and write the page."""
    parser = argparse.ArgumentParser(description="Run ESPnet's own tests with our classes in them")
    parser.add_argument("source", type=Path, help="Unpacked source archive of ESPnet 202611")
    parser.add_argument("--python", action="append", help="Pythons with ESPnet and this package")
    parser.add_argument("--only", default="", help="Only files whose name has this in it")
    parser.add_argument(
        "--mode", action="append", choices=list(MODES)[1:], help="Only these, and stock"
    )
    parser.add_argument(
        "--at-most", type=int, default=0, help="Tests of a file, evenly spread [0: all]"
    )
    parser.add_argument("--output", type=Path, help="Page to write; default: print it")
    args = parser.parse_args()
    rows = [row for row in ROWS if args.only in row.file and (args.source / row.file).is_file()]
    if not rows:
        raise SystemExit(
            f"{args.source} has no tests of espnet2: give the source archive of 202611"
        )
    given = [
        a if a.startswith("-") else Path(a).name if "espnet-" in a else a for a in sys.argv[1:]
    ]
    runs: dict[str, dict[tuple[Row, str], dict[str, Any]]] = {}
    lock = threading.Lock()

    def write() -> str:
        text = page(" ".join(["tools/host_tests.py", *given]), runs)
        if args.output is not None:
            args.output.write_text(text, encoding="utf-8")
        return text

    def run(python: str) -> None:
        for row, mode, found in results(
            python, args.source.resolve(), rows, args.mode, args.at_most
        ):
            with lock:
                runs[python][row, mode] = found
                write()
            done = f"{found['espnet']} {Path(row.file).name}, {row.label}, {mode}: {count(found)}"
            print(done, file=sys.stderr, flush=True)

    pythons = [str(Path(python).absolute()) for python in args.python or [sys.executable]]
    runs.update({python: {} for python in pythons})
    with ThreadPoolExecutor(len(pythons)) as pool:  # each in a process of its own
        list(pool.map(run, pythons))
    if args.output is None:
        print(write())


if __name__ == "__main__":
    main()
