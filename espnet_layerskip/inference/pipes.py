"""Audio that does not lie in a file: what a shell command writes, and standard input."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from typing import IO, Any


def is_pipe(path: str) -> bool:
    """Return whether a path of a Kaldi table is a shell command and not a file."""
    return path.startswith("|") or path.endswith("|")


def run_pipe(path: str) -> IO[bytes]:
    """Run "COMMAND |" by the shell; return what it writes, as a temporary file with a name.

    Raises:
        OSError: If the command fails, or nothing more can be written.
    """
    held: Any = tempfile.NamedTemporaryFile(prefix="espnet_layerskip_")  # noqa: SIM115
    with tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            path.rstrip().removesuffix("|"),
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=held,
            stderr=errors,
            check=False,
        )
        if done.returncode:
            if not os.fstatvfs(held.fileno()).f_bavail:  # nor could the command say so
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), held.name)
            errors.seek(0)
            lines = errors.read().decode("utf-8", "replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "it says nothing")
            raise OSError(f"the command ended with status {done.returncode}: {last.strip()}")
    return held  # type: ignore[no-any-return]


def hold_stdin() -> IO[bytes]:
    """Return all of standard input as a temporary file with a name: readers of audio seek.

    Raises:
        OSError: If it cannot be written.
    """
    held: Any = tempfile.NamedTemporaryFile(prefix="espnet_layerskip_")  # noqa: SIM115
    try:
        shutil.copyfileobj(sys.stdin.buffer, held)
        held.flush()
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):  # else it could not be read
            err.filename = err.filename or held.name
        raise
    return held  # type: ignore[no-any-return]
