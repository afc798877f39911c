"""Audio files that are several in a row: libsndfile reads the first and says nothing."""

from __future__ import annotations

from typing import BinaryIO

JOINABLE = ("OGG", "MP3", "MPEG", "FLAC")  # of libsndfile's formats
BLOCK = 1 << 20  # bytes that are looked at at once


def is_joined(path: str | bytes) -> bool:
    """Return whether another stream follows the first one of an Ogg, MP3 or FLAC file.

    An MP3 file is known to be so if it says how long its first stream is (a Xing or Info header).
    """
    with open(path, "rb") as file:
        head = file.read(10)
        if head[:4] == b"OggS":
            return _is_chained(file)
        start = 10 + sum(b << 7 * i for i, b in enumerate(head[:5:-1])) if head[:3] == b"ID3" else 0
        file.seek(start)
        frame = file.read(64)
        if frame[:4] == b"fLaC":
            return _has_another(file)
        at = max(frame.find(b"Xing"), frame.find(b"Info"))
        has_count, has_size = (at >= 0 and frame[at + 7] & flag for flag in (1, 2))
        if not has_size:
            return False
        size = frame[at + (12 if has_count else 8) :][:4]
        file.seek(start + int.from_bytes(size, "big"))
        following = file.read(3)  # another tag, or the sync word of a frame
        return following == b"ID3" or (following[:1] == b"\xff" and following[1:2] >= b"\xe0")


def _is_chained(file: BinaryIO) -> bool:
    """Return whether an Ogg stream begins (flag 2) after another has ended (flag 4)."""
    file.seek(0)
    ended = 0
    while len(page := file.read(27)) == 27 and page[:4] == b"OggS":
        if ended and page[5] & 2:
            return True
        ended |= page[5] & 4
        file.seek(sum(file.read(page[26])), 1)
    return False


def _has_another(file: BinaryIO) -> bool:
    """Return whether a second FLAC stream begins behind the place that a file is read to.

    It begins with "fLaC" and a block of metadata of type 0 (the last one: 0x80) and 34 bytes.
    """
    held = b""
    while block := file.read(BLOCK):
        held = held[-7:] + block  # a beginning has 8 bytes, and may lie across two blocks
        if any(b"fLaC" + kind + b"\0\0\x22" in held for kind in (b"\0", b"\x80")):
            return True
    return False
