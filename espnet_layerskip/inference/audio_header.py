"""What the header of an audio file claims, and what is there."""

from __future__ import annotations

import os
import re
from typing import Any

# Bytes from here on stand for a length which the writer did not know: 0x7F000008 (AIFF to a
# pipe), 0x7FFFFFFF, 0xFFFFFFFF.
UNKNOWN_LENGTH = 0x7F000000
_CLAIM = re.compile(
    r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)", re.M
)


def claimed_frames(info: Any, path: str | bytes) -> int:
    """Return how many frames a header says there are; those there are if it does not say.

    Args:
        info: Of soundfile. Formats without a length of their own go by that of the file; where the
            two differ, libsndfile tells both.
        path: The file.
    """
    if info.format == "NIST":
        with open(path, "rb") as file:
            count = re.search(rb"^sample_count -i (\d+)", file.read(1024), re.M)
        return int(count[1]) if count is not None else 0
    claims = _CLAIM.findall(info.extra_info)
    if not claims:
        return int(info.frames) if info.frames < 1 << 60 else 0
    said, there = map(int, claims[-1])
    if said >= UNKNOWN_LENGTH or not there:
        return 0
    return round(int(info.frames) * said / there)


def ends_with_zeros(path: str | bytes) -> bool:
    """Return whether the last 4096 bytes of a file are zero."""
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - 4096))
        return not any(file.read())
