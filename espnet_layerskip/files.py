"""Text files, Kaldi tables (``id value`` a line) and data directories; files are written whole."""

from __future__ import annotations

import contextlib
import errno
import gzip
import logging
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DISK_FULL = "; the disk is full: free some space, then run it again: what is done is kept"
LOG_FORMAT = "%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s"


# What a user can mend: bad inputs, files and disks, a package that is not installed, a process
# that the system has killed. Anything else is a fault of ours and keeps its traceback.
MISTAKES = (ValueError, OSError, ImportError, MemoryError, BrokenExecutor)


def run_main(main: Callable[[], None]) -> None:
    """Run a command of this package; a mistake ends it with one readable line and status 1."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stdout)
    logging.raiseExceptions = False  # a log that cannot be written is lost, without a traceback
    try:
        main()
        sys.stdout.flush()
    except MISTAKES as err:
        if isinstance(err, BrokenPipeError):  # what is still to be written would raise it again
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stdout.flush()
        print(f"ERROR: {what_is_wrong(err)}", file=sys.stderr)
        sys.exit(1)


def what_is_wrong(err: BaseException) -> str:
    """Return a message for one of `MISTAKES`, with what to do where it does not say so."""
    if isinstance(err, MemoryError):
        return f"the memory is too small {err}".rstrip() + ": run fewer jobs, or less at once"
    if isinstance(err, BrokenExecutor):
        return "a process was killed (was the memory too small?): run it again with fewer (--nj)"
    if getattr(err, "errno", 0) in (errno.ENOSPC, errno.EDQUOT):
        return f"{err}{DISK_FULL}"
    return str(err) or type(err).__name__


def some(names: Iterable[str], limit: int = 10) -> str:
    """Join names for a message: the first ``limit``, then how many more there are."""
    all_names = sorted(names)
    shown = ", ".join(all_names[:limit])
    more = len(all_names) - limit
    return f"{shown} and {more} more" if more > 0 else shown


def read_lines(path: Path | str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file, each with its number from 1 and without its end.

    A line ends at a line feed only. A byte order mark and carriage returns at line ends are
    dropped. A file that gzip has packed is unpacked.

    Raises:
        ValueError: A missing or damaged file, or a line that is not UTF-8; the message names file
            and line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    number = 0
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            for number, line in enumerate(gzip.GzipFile(fileobj=file) if packed else file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as err:
        byte = err.object[err.start]
        raise ValueError(
            f"{path}:{number}: the line is not UTF-8 (byte 0x{byte:02x}); convert the file"
        ) from err
    except (gzip.BadGzipFile, EOFError, zlib.error) as err:
        raise ValueError(f"{path}:{number}: gzip cannot unpack more of it ({err})") from err


def read_rows(path: Path | str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, id and value ("" = none) of the lines of a Kaldi table.

    The first run of spaces or tabs ends the id. Other white space of Unicode is text like any
    other. Empty lines are left out.

    Raises:
        ValueError: As `read_lines`.
    """
    for number, line in read_lines(path):
        key, *value = re.split(r"[ \t]+", line.strip(" \t"), maxsplit=1)
        if key:
            yield number, key, "".join(value)


def read_table(path: Path | str, *, allow_empty_value: bool = False) -> dict[str, str]:
    """Read ``id value`` lines, in the file's order; `read_rows` says how a line is split.

    Raises:
        ValueError: As `read_lines`; an empty table, an id that comes twice, or (unless
            ``allow_empty_value``) an id without a value; the message names file, line and id.
    """
    table: dict[str, str] = {}
    for number, key, value in read_rows(path):
        if key in table:
            raise ValueError(f"{path}:{number}: the id '{key}' comes a second time")
        if not value and not allow_empty_value:
            raise ValueError(f"{path}:{number}: nothing follows the id '{key}'")
        table[key] = value
    if not table:
        raise ValueError(f"{path}: the file is empty; 'id value' lines are needed")
    return table


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file of plain values; tags that would make Python objects are refused.

    Raises:
        ValueError: A missing file, one that is no YAML or not a mapping; the message names it.
    """
    import yaml  # not needed by most users of this module

    text = "\n".join(line for _, line in read_lines(path))
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as err:
        raise ValueError(f"{path} is not a YAML file of plain values: {err}") from err
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a mapping is needed, not {type(content).__name__}")
    return content


def write_table(path: Path | str, table: Mapping[str, str]) -> None:
    """Write ``id value`` lines sorted by id (C order), replacing the file in one step."""
    lines = [f"{key} {table[key]}".rstrip(" ") for key in sorted(table)]
    write_text(path, "".join(f"{line}\n" for line in lines))


def write_text(path: Path | str, text: str) -> None:
    """Write a text file in one step: a reader sees the old content or the new, never a part."""
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file in one step, see `write_text`; a failure (a full disk) leaves nothing.

    A link keeps its place: what it points to is written. A device or a pipe is written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            file.write(content)
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@dataclass
class DataDir:
    """A Kaldi data directory: one audio file, transcript and speaker for each utterance."""

    wav: dict[str, str]
    text: dict[str, str]
    utt2spk: dict[str, str]

    @classmethod
    def load(cls, path: Path | str) -> DataDir:
        """Read and check a directory.

        Raises:
            ValueError: A missing directory or file, or tables whose ids differ.
        """
        path = Path(path)
        if not path.is_dir():
            raise ValueError(
                f"{path}: no such data directory; it should hold wav.scp, text and utt2spk "
                "(stage 1, local/data.sh, writes data/, stages 3 and 4 write the dump directory)"
            )
        missing = [n for n in ("wav.scp", "text", "utt2spk") if not (path / n).is_file()]
        if missing:
            found = sorted(p.name for p in path.iterdir())
            raise ValueError(f"{path}: {some(missing)} missing; found {some(found) or 'nothing'}")
        if (path / "segments").exists():
            raise ValueError(
                f"{path}/segments: segments are not supported; write one audio file an utterance"
            )
        data = cls(
            read_table(path / "wav.scp"),
            read_table(path / "text", allow_empty_value=True),
            read_table(path / "utt2spk"),
        )
        data.check_ids(path)
        return data

    def check_ids(self, where: Path | str) -> None:
        """Raise a ValueError that begins with ``where`` if the tables' ids differ."""
        for name, ids in (("text", self.text.keys()), ("utt2spk", self.utt2spk.keys())):
            for has, lacks, diff in (
                ("wav.scp", name, self.wav.keys() - ids),
                (name, "wav.scp", ids - self.wav.keys()),
            ):
                if diff:
                    raise ValueError(
                        f"{where}: {len(diff)} id(s) are in {has} but not in {lacks}: {some(diff)}"
                    )

    def subset(self, ids: Iterable[str]) -> DataDir:
        """Return the data of the given utterances."""
        keep = set(ids)
        return DataDir(
            *(
                {k: v for k, v in t.items() if k in keep}
                for t in (self.wav, self.text, self.utt2spk)
            )
        )

    def save(self, path: Path | str) -> None:
        """Write wav.scp, text, utt2spk and spk2utt, sorted by id."""
        path = Path(path)
        spk2utt: dict[str, list[str]] = {}
        for utt in sorted(self.utt2spk):
            spk2utt.setdefault(self.utt2spk[utt], []).append(utt)
        write_table(path / "wav.scp", self.wav)
        write_table(path / "text", self.text)
        write_table(path / "utt2spk", self.utt2spk)
        write_table(path / "spk2utt", {spk: " ".join(utts) for spk, utts in spk2utt.items()})
