#!/usr/bin/env python3
"""ASR training with ESPnet's arguments, layer skipping registered.

Stands in for ``espnet2.bin.asr_train``::

    python -m espnet_layerskip.bin.asr_train --config conf/train.yaml ...
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from espnet_layerskip._late_imports import start_sooner
from espnet_layerskip.files import MISTAKES, what_is_wrong


def get_parser() -> argparse.ArgumentParser:
    """Return ESPnet's training parser, our encoder and model among its choices."""
    from espnet_layerskip.training.task import LayerSkipASRTask

    parser: argparse.ArgumentParser = LayerSkipASRTask.get_parser()
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Train, or collect statistics with ``--collect_stats true``.

    Args:
        cmd: arguments instead of those of the command line.
    """
    from espnet_layerskip.training.task import LayerSkipASRTask

    try:
        LayerSkipASRTask.main(cmd=cmd)
    except MISTAKES as e:
        logging.debug("traceback", exc_info=True)
        sys.exit(f"ERROR: {what_is_wrong(e)} (--log_level DEBUG shows where)")


if __name__ == "__main__":
    start_sooner()
    main()
