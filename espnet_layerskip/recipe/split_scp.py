"""Split a Kaldi table into N contiguous parts of nearly equal size.

Example::

    python -m espnet_layerskip.recipe.split_scp --nj 4 dump/raw/test/wav.scp logdir/keys.JOB.scp
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

from espnet_layerskip.files import read_rows, run_main, write_text


def split_lines(lines: list[str], parts: int) -> list[list[str]]:
    """Cut lines into ``parts`` contiguous pieces whose sizes differ by one at most.

    Raises:
        ValueError: ``parts`` outside 1..number of lines.

    >>> split_lines(["a", "b", "c"], 2)
    [['a', 'b'], ['c']]
    """
    if not 1 <= parts <= len(lines):
        raise ValueError(f"cannot split {len(lines)} line(s) into {parts} part(s)")
    size, longer = divmod(len(lines), parts)
    starts = [i * size + min(i, longer) for i in range(parts + 1)]
    return [lines[a:b] for a, b in pairwise(starts)]


def main() -> None:
    """Command line: write the parts."""
    parser = argparse.ArgumentParser(description="Split a Kaldi table into parts")
    parser.add_argument("--nj", type=int, required=True, help="Number of parts")
    parser.add_argument("table", type=Path)
    parser.add_argument("output", help="Path of a part; JOB in it stands for 1..nj")
    args = parser.parse_args()
    if "JOB" not in args.output:
        raise ValueError(f"'{args.output}': the output path needs JOB in it")
    lines = [f"{key} {value}".rstrip(" ") for _, key, value in read_rows(args.table)]
    for job, part in enumerate(split_lines(lines, args.nj), 1):
        write_text(args.output.replace("JOB", str(job)), "".join(f"{line}\n" for line in part))


if __name__ == "__main__":
    run_main(main)
