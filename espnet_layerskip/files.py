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
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import get_native_id
from typing import Any

DISK_FULL = "; the disk is full: free some space, then run it again: what is done is kept"
LOG_FORMAT = "%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s"

HOST = f"{zlib.crc32(os.uname().nodename.encode()):08x}"
"""Of this machine, in the names of partial files: a folder may be shared with others."""

# What a user can mend: inputs, files, disks, a missing package, a process that the system has
# killed. Anything else is a fault of ours and keeps its traceback.
MISTAKES = (ValueError, OSError, ImportError, MemoryError, BrokenExecutor)


def open_streams() -> None:
    """Open the standard streams that the caller has closed; files would else take their places."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def run_main(main: Callable[[], None]) -> None:
    """Run a command of this package; a mistake ends it with one readable line and status 1."""
    open_streams()
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stdout)
    logging.raiseExceptions = False  # a log that cannot be written is lost, without a traceback
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("ERROR: interrupted", file=sys.stderr)
        sys.exit(130)
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
    shown, more = ", ".join(all_names[:limit]), len(all_names) - limit
    return f"{shown} and {more} more" if more > 0 else shown


def read_lines(path: Path | str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file, each with its number from 1 and without its end.

    A line ends at a line feed. A byte order mark and carriage returns at line ends are dropped. A
    file that gzip has packed is unpacked.

    Raises:
        ValueError: A missing or damaged file, or a line that is not UTF-8; the message names file
            and line.
    """
    for number, line in _raw_lines(path):
        yield number, _decoded(path, number, line)


def _raw_lines(path: Path | str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file, packed by gzip or not, each with its number from 1."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    number = 0
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            for number, line in enumerate(gzip.GzipFile(fileobj=file) if packed else file, 1):
                yield number, line.removeprefix(BOM_UTF8) if number == 1 else line
    except (gzip.BadGzipFile, EOFError, zlib.error) as err:
        raise ValueError(f"{path}:{number}: gzip cannot unpack more of it ({err})") from err


def _decoded(path: Path | str, number: int, line: bytes) -> str:
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError as err:
        why = f"not UTF-8 (byte 0x{err.object[err.start]:02x})"
        raise ValueError(f"{path}:{number}: the line is {why}; convert the file") from err
    if "\0" in text:
        raise ValueError(f"{path}:{number}: the line holds zero bytes (UTF-16?); convert the file")
    return text


@dataclass(frozen=True)
class Row:
    """A line of a Kaldi table.

    Attributes:
        number: Of the line, from 1.
        key: Its id; "" where it cannot be read.
        value: What follows; "" = nothing.
        problem: What is wrong with it, with file and line; "" = nothing.
        again: Whether an earlier line has its id.
        name: Its id; "file:line" where that is of no use, or another line's.
    """

    number: int
    key: str
    value: str
    problem: str = ""
    again: bool = False
    name: str = ""


def each_row(path: Path | str, *, allow_empty_value: bool = False) -> Iterator[Row]:
    """Yield the lines of a Kaldi table; those that are wrong say so, and do not end it.

    The first run of spaces or tabs ends the id. Other white space of Unicode is text like any
    other. Empty lines are left out. Wrong are lines that are not UTF-8, an id that comes again or
    has control characters, and (unless ``allow_empty_value``) an id without a value.

    Raises:
        ValueError: A missing or damaged file.
    """
    rows, seen = list(_split_rows(path)), set[str]()
    ids = {row.key for row in rows}
    for row in rows:
        again, problem = row.key in seen, row.problem
        name, place = row.key, f"{path}:{row.number}"
        odd = re.search(r"[\x00-\x1f\x7f-\x9f]", name)  # a carriage return, an escape
        if not problem and odd:
            problem = f"{place}: the id {row.key!r} has control characters: rename it"
        elif not problem and again:
            problem = f"{place}: the id '{row.key}' comes a second time"
        elif not (problem or row.value or allow_empty_value):
            problem = f"{place}: nothing follows the id '{row.key}'"
        if odd or again or not name:
            name = "_".join(Path(place).name.split())
            while name in ids:
                name += "_"
        seen |= {row.key} - {""}
        yield replace(row, problem=problem, again=again, name=name)


def _split_rows(path: Path | str) -> Iterator[Row]:
    for number, raw in _raw_lines(path):
        try:
            line = _decoded(path, number, raw)
        except ValueError as err:
            key = ""
            with contextlib.suppress(UnicodeDecodeError):  # the id may be fine
                key = re.split(rb"[ \t]+", raw.strip(b" \t"), maxsplit=1)[0].decode()
            yield Row(number, key, "", str(err))
            continue
        key, *value = re.split(r"[ \t]+", line.strip(" \t"), maxsplit=1)
        if key:
            yield Row(number, key, "".join(value))


def read_rows(path: Path | str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, id and value ("" = none) of the lines of a Kaldi table.

    Lines are split as in `each_row`; an id may come again.

    Raises:
        ValueError: As `read_lines`.
    """
    for row in _split_rows(path):
        if row.problem:
            raise ValueError(row.problem)
        yield row.number, row.key, row.value


def read_table(path: Path | str, *, allow_empty_value: bool = False) -> dict[str, str]:
    """Read ``id value`` lines, in the file's order; `each_row` says how a line is split.

    Raises:
        ValueError: As `read_lines`; an empty table, an id that comes twice, or (unless
            ``allow_empty_value``) an id without a value; the message names file, line and id.
    """
    table: dict[str, str] = {}
    for row in each_row(path, allow_empty_value=allow_empty_value):
        if row.problem:
            raise ValueError(row.problem)
        table[row.key] = row.value
    if not table:
        raise nothing_usable(path)
    return table


def nothing_usable(path: Path | str, problems: Iterable[str] = ()) -> ValueError:
    """Return the error of a table without a usable line; of several problems the first."""
    empty = f"{path}: the file is empty; 'id value' lines are needed"
    return ValueError(next(iter(problems), empty))


def read_usable(
    path: Path | str, *, allow_empty_value: bool = False
) -> tuple[dict[str, str], dict[str, str]]:
    """Read a table as `read_table`; a line that is wrong costs its own id, and no other.

    Of an id that comes twice with different values none is used: which is right is not known.

    Returns:
        The table, and what is wrong by the name of the line, see `Row`.

    Raises:
        ValueError: A missing, damaged or empty file, or if every line is wrong.
    """
    table, refused = dict[str, str](), dict[str, str]()
    for row in each_row(path, allow_empty_value=allow_empty_value):
        if not row.problem:
            table[row.key] = row.value
        elif row.again and row.key in table and table[row.key] != row.value:
            refused[row.key] = f"{row.problem}, with another value"
            del table[row.key]
        else:
            refused[row.name] = row.problem
    if not table:
        raise nothing_usable(path, refused.values())
    return table, refused


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
    write_text(path, "".join(f"{key} {table[key]}".rstrip(" ") + "\n" for key in sorted(table)))


def write_text(path: Path | str, text: str) -> None:
    """Write a text file in one step: a reader sees the old content or the new, never a part."""
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file in one step, see `write_text`; a failure (a full disk) leaves nothing.

    Of several writers at once, one file stands whole in the end. What a killed one has left goes
    with the next. A link, a device, a pipe, or what stdout or stderr goes to is written to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = _stream_of(path)
    if stream is not None or (path.exists() and not path.is_file()):
        for out in filter(None, (sys.stdout, sys.stderr)):
            out.flush()
        with open(path if stream is None else stream, "wb", closefd=stream is None) as file:
            file.write(content)
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    remove_leftovers(path.parent)
    start = os.fsdecode(os.fsencode(path.name)[:200])  # the whole may be as long as names can be
    partial = path.with_name(f".{start}.{HOST}-{os.getpid()}-{get_native_id()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as err:
        if err.errno:  # a full disk does not say where
            err.filename = err.filename or str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _stream_of(path: Path) -> int | None:
    """Return the number of stdout or stderr if a file is what it goes to; else None."""
    for number in (1, 2):
        with contextlib.suppress(OSError):  # there is no such file, or the stream is closed
            if os.path.samestat(os.stat(path), os.fstat(number)):
                return number
    return None


@lru_cache
def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed on this machine have left; once for each folder."""
    for entry in folder.glob(f".*.{HOST}-*.partial"):
        try:
            os.kill(int(entry.name.split("-")[-2]), 0)  # asks whether the process is there
        except ProcessLookupError:
            entry.unlink(missing_ok=True)
        except (OSError, ValueError):
            continue  # it is there, and another user's; or another's file


def refuse_segments(directory: Path) -> None:
    """Raise ValueError for a data directory with ``segments``."""
    if (directory / "segments").exists():
        why = "segments are not supported; write one audio file an utterance"
        raise ValueError(f"{directory}/segments: {why}")


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
        path = cls.check_files(path)
        text = read_table(path / "text", allow_empty_value=True)
        data = cls(read_table(path / "wav.scp"), text, read_table(path / "utt2spk"))
        data.check_ids(path)
        return data

    @staticmethod
    def check_files(path: Path | str) -> Path:
        """Return the path of a directory that has the three tables.

        Raises:
            ValueError: If it has not, or has ``segments``.
        """
        path = Path(path)
        if not path.is_dir():
            where = "(stages 1 and 2 write data/, stages 3 and 4 the dump directory)"
            needed = f"it should hold wav.scp, text and utt2spk {where}"
            raise ValueError(f"{path}: no such data directory; {needed}")
        missing = [n for n in ("wav.scp", "text", "utt2spk") if not (path / n).is_file()]
        if missing:
            found = sorted(p.name for p in path.iterdir())
            raise ValueError(f"{path}: {some(missing)} missing; found {some(found) or 'nothing'}")
        refuse_segments(path)
        return path

    def check_ids(self, where: Path | str) -> None:
        """Raise a ValueError that begins with ``where`` if the tables' ids differ."""
        for name, ids in (("text", self.text.keys()), ("utt2spk", self.utt2spk.keys())):
            for has, lacks, diff in (
                ("wav.scp", name, self.wav.keys() - ids),
                (name, "wav.scp", ids - self.wav.keys()),
            ):
                if diff:
                    which = f"{len(diff)} id(s) are in {has} but not in {lacks}: {some(diff)}"
                    raise ValueError(f"{where}: {which}")

    def subset(self, ids: Iterable[str]) -> DataDir:
        """Return the data of the given utterances."""
        keep, tables = set(ids), (self.wav, self.text, self.utt2spk)
        return DataDir(*({k: v for k, v in t.items() if k in keep} for t in tables))

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
