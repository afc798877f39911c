"""Where transcripts go: one after the other to a stream, or each to a file of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TextIO

from espnet_layerskip.files import write_bytes
from espnet_layerskip.inference.audio import Utterance
from espnet_layerskip.inference.transcriber import Transcript
from espnet_layerskip.verbs.command_line import make_folder
from espnet_layerskip.verbs.transcript_formats import heading, render

Write = Callable[[Transcript], None]

SUFFIXES = {"text": "txt"}  # of the files of a format; else its name
LONGEST_NAME = 255  # bytes that a file system takes


def stream_writer(out: TextIO, name: str) -> Write:
    """Write the heading of a format to a stream; return what writes a transcript to it."""
    out.write(heading(name))

    def write(found: Transcript) -> None:
        out.write(render(name, found))
        out.flush()

    return write


def folder_writer(folder: Path, name: str, out: TextIO) -> Write:
    """Return what writes each transcript to a file of its own, whole, and its path to a stream.

    A file of ``text`` holds the transcript without the name of the utterance.

    Args:
        folder: For the files.
        name: Of the format.
        out: Takes the paths, line by line.
    """

    def write(found: Transcript) -> None:
        text = f"{found.text}\n" if name == "text" else heading(name) + render(name, found)
        path = folder / file_name(found.utt_id, name)
        write_bytes(path, text.encode("utf-8", "surrogateescape"))
        out.write(f"{path}\n")
        out.flush()

    return write


def file_name(utt_id: str, name: str) -> str:
    """Return the name of the file of an utterance: its id and what is usual for the format.

    >>> file_name("x/a", "text"), file_name("a.wav", "srt")
    ('x_a.txt', 'a.wav.srt')
    """
    return f"{utt_id.replace('/', '_')}.{SUFFIXES.get(name, name)}"


def check_folder(
    option: str,
    folder: Path,
    utterances: Sequence[Utterance],
    name: str,
    others: Iterable[str] = (),
) -> None:
    """Make a folder, and check that each utterance has a file of its own in it.

    Args:
        option: That names the folder.
        folder: For the files.
        utterances: Those to be written.
        name: Of the format.
        others: Files that are read or written beside them.

    Raises:
        ValueError: If it cannot be made or written to, or two files would have one name.
    """
    make_folder(option, folder)
    by_name: dict[str, str] = {}
    for utt in utterances:
        file = file_name(utt.utt_id, name)
        if file in by_name:
            raise ValueError(
                f"{option}: {by_name[file]} and {utt.utt_id} would both be {file}: rename one"
            )
        by_name[file] = utt.utt_id
    for path in map(Path, others):
        parent = os.path.dirname(os.path.realpath(path))
        if path.name in by_name and parent == os.path.realpath(folder):
            raise ValueError(
                f"{option}: {by_name[path.name]} would be written to {path}, which is another "
                "file of this call: name another folder"
            )


def why_no_file(folder: Path, utt_id: str, name: str) -> str:
    """Return why the file of an utterance cannot be written; "" where it can.

    Args:
        folder: For the files.
        utt_id: Of the utterance.
        name: Of the format.
    """
    path = folder / file_name(utt_id, name)
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        return f"utterance {utt_id[:20]}...: its name is too long for a file"
    target = os.path.realpath(path)  # of a link
    if os.path.isdir(target):
        return f"utterance {utt_id}: {path}, where its transcript should go, is a directory"
    if not os.path.isdir(os.path.dirname(target)):
        return f"utterance {utt_id}: {path} is a link to where there is no directory"
    return ""
