"""Where the parts of a list are run, how it is cut for that, and the options that say so."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

CHUNKS_PER_WORKER = 4
"""So many at least: the last ones end at about the same time."""
CHUNK_SECONDS = 120.0
"""A chunk has no more audio, if its items allow it: so much is repeated at most."""


@dataclass(frozen=True)
class Workers:
    """Where chunks are run: in this process, in others here, on a Dask or a batch cluster.

    Attributes:
        num: Processes. 1, without ``dask`` and ``command``: this process itself, without retries.
        threads: CPU threads of each of the others; this process keeps its own number.
        dask: Address of a Dask scheduler, or "local" for a LocalCluster of ``num`` processes.
        command: A job runner in Kaldi's form, such as ``slurm.pl --config conf/slurm.conf``:
            it is called as ``COMMAND JOB=1:num LOG PROGRAM...``. See
            `espnet_layerskip.parallel.jobs`.
        logdir: Of ``command``: a directory that all machines see, for logs and results.

    Raises:
        ValueError: If these do not fit together.
    """

    num: int = 1
    threads: int = 1
    dask: str | None = None
    command: str | None = None
    logdir: str | None = None

    def __post_init__(self) -> None:
        """Check the combination."""
        for name, value in (("inference_nj", self.num), ("num_threads", self.threads)):
            if value < 1:
                raise ValueError(f"--{name} must be at least 1, but got {value}")
        if self.dask and self.command:
            raise ValueError("--dask and --cmd are two ways to run the work: choose one")
        if bool(self.command) != bool(self.logdir):
            raise ValueError(
                "--cmd and --logdir belong together: a batch job needs a directory that all "
                "machines see, for its log and results"
            )

    @property
    def here(self) -> bool:
        """True if all is run in this process."""
        return self.num == 1 and not self.dask and not self.command


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--inference_nj``, ``--dask``, ``--cmd`` and ``--logdir``; see `workers_from`."""
    add = parser.add_argument
    add(
        "--inference_nj",
        "--inference-nj",
        type=int,
        default=1,
        metavar="N",
        help="processes, or batch jobs; each loads the model and uses one thread unless told "
        "otherwise (default: 1)",
    )
    add(
        "--dask",
        metavar="ADDRESS",
        help="run on the Dask cluster of this scheduler, such as tcp://host:8786, or on one of "
        "--inference_nj processes here (local)",
    )
    add(
        "--cmd",
        metavar="CMD",
        help="run as --inference_nj batch jobs by a runner in Kaldi's form, such as "
        "'slurm.pl --config conf/slurm.conf'",
    )
    add("--logdir", metavar="DIR", help="of --cmd: logs and results, where all machines see it")


def workers_from(args: argparse.Namespace) -> Workers:
    """Return what the options of `add_worker_options`, and ``--num-threads``, say.

    Raises:
        ValueError: As `Workers`.
    """
    threads = getattr(args, "num_threads", None) or 1
    return Workers(args.inference_nj, threads, args.dask, args.cmd, args.logdir)


def similar_chunks(
    items: Sequence[T], seconds: Sequence[float], workers: Workers, multiple: int = 1
) -> list[Sequence[T]]:
    """Cut a list into contiguous chunks of similar duration; in this process it stays whole.

    Args:
        items: What to cut.
        seconds: Duration of each, 0 where it is not known.
        workers: Who is to run them.
        multiple: Chunks begin at multiples of it, so that batches which a function forms of
            consecutive items are the same ones as without chunks.

    >>> similar_chunks("abcdef", [9, 1, 1, 1, 1, 5], Workers(num=2))
    ['a', 'bcd', 'ef']
    """
    if workers.here:
        return [items]
    goal = min(CHUNK_SECONDS, sum(seconds) / (workers.num * CHUNKS_PER_WORKER))
    chunks: list[Sequence[T]] = []
    start, total = 0, 0.0
    for begin in range(0, len(items), multiple):
        end = begin + multiple
        total += sum(seconds[begin:end])
        if total >= goal or end >= len(items):
            chunks.append(items[start:end])
            start, total = end, 0.0
    return chunks
