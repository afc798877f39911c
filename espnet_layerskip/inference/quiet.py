"""Only our own messages on stderr: what other packages print and log when they are loaded is not.

``ESPNET_LAYERSKIP_DEBUG=1`` in the environment lets all of it through.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator

PACKAGE = "espnet_layerskip"


def is_debugging() -> bool:
    """Return whether everything is to be shown."""
    return os.environ.get("ESPNET_LAYERSKIP_DEBUG", "0") not in ("", "0")


def start() -> None:
    """Import ESPnet in silence, and log as `log_ours`: what a verb that measures begins with."""
    log_ours(say_how=False)
    with nothing_printed():
        importlib.import_module(f"{PACKAGE}._compat")


def log_ours(say_how: bool = True) -> None:
    """Log warnings of ours, and errors of all, to stderr; leave a program that logs as it is.

    Args:
        say_how: Say too how a model skips; each process of `multiprocessing` does not.
    """
    if say_how and not logging.getLogger().handlers and multiprocessing.parent_process() is None:
        logging.getLogger(f"{PACKAGE}.inference.calibration").setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    if not is_debugging():
        handler.addFilter(_is_ours)
    logging.basicConfig(
        level=logging.DEBUG if is_debugging() else logging.WARNING,
        format="%(levelname)s: %(message)s",
        handlers=[handler],
    )


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.split(".")[0] == PACKAGE or record.levelno >= logging.ERROR


@contextlib.contextmanager
def nothing_printed() -> Iterator[None]:
    """Drop what is printed by Python code within: while packages are imported, models built."""
    if is_debugging():
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        yield
