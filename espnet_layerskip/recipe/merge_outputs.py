"""Stage 12: put the results of the parts together, sorted by id; utterances without one are named.

Example::

    python -m espnet_layerskip.recipe.merge_outputs --nj 2 --keys dump/raw/test/wav.scp \\
        logdir/output.JOB exp/asr_x/inference/test
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from espnet_layerskip.files import read_table, run_main, some, write_table

FIELDS = ("token", "token_int", "score", "text", "skip_stats")


def read_field(path: Path) -> dict[str, str]:
    """Read one part's table; a file that is not there or empty gives no rows."""
    if not path.is_file() or path.stat().st_size == 0:
        return {}
    return read_table(path, allow_empty_value=True)


def merge_outputs(parts: list[Path], keys: Path, target: Path) -> list[str]:
    """Write the merged tables of ``parts`` (``1best_recog/*`` and ``skip_stats``) into ``target``.

    Returns:
        The ids in ``keys`` that have no text.
    """
    merged: dict[str, dict[str, str]] = {}
    for name in FIELDS:
        rows: dict[str, str] = {}
        for part in parts:
            for path in (part / "1best_recog" / name, part / name):
                rows |= read_field(path)
        if rows:
            merged[name] = rows
            write_table(target / name, rows)
        else:
            (target / name).unlink(missing_ok=True)
    text = merged.get("text", {})
    return [utt for utt in read_table(keys) if utt not in text]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Merge the outputs of decoding jobs")
    parser.add_argument("--nj", type=int, required=True, help="Number of parts")
    parser.add_argument("--keys", type=Path, required=True, help="wav.scp of the test set")
    parser.add_argument("output", help="Directory of a part, with JOB in it")
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    parts = [Path(args.output.replace("JOB", str(n))) for n in range(1, args.nj + 1)]
    missing = merge_outputs(parts, args.keys, args.target)
    if missing:
        logging.warning("%d utterance(s) without a result: %s", len(missing), some(missing, 50))
    total = len(read_table(args.keys))
    found = total - len(missing)
    logging.info(
        "%d read = %d decoded + %d not -> %s/text", total, found, len(missing), args.target
    )


if __name__ == "__main__":
    run_main(main)
