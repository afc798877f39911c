"""Tables and data directories: what is read, what is refused, and how it is written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from threading import Thread
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_layerskip.files import (
    HOST,
    DataDir,
    read_lines,
    read_rows,
    read_table,
    read_usable,
    run_main,
    some,
    write_bytes,
    write_table,
    write_text,
)

CHARACTERS = st.characters(codec="utf-8", exclude_characters="\r\n\0")
IDS = st.text(CHARACTERS.filter(lambda c: c not in " \ufeff" and category(c) != "Cc"), min_size=1)
VALUES = st.text(CHARACTERS).map(lambda text: text.strip(" \t"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a caf\xe9\n", r"t:1: the line is not UTF-8 \(byte 0xe9\)"),
        (b"a 1\n\xff b\n", r"t:2: the line is not UTF-8 \(byte 0xff\)"),
        (b"a 1\na 2\n", r"t:2: the id 'a' comes a second time"),
        (b"a 1\nb\n", r"t:2: nothing follows the id 'b'"),
        (b"\n", r"the file is empty"),
    ],
)
def test_bad_tables_name_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "t")


def test_a_wrong_line_costs_its_own_id(tmp_path: Path) -> None:
    lines = [b"a 1", b"b \xe9", b"\xff 3", b"c", b"d 5", b"d 5", b"e 7", b"e 8", b"b 9", b"\xfe"]
    (tmp_path / "t").write_bytes(b"\n".join(lines))
    table, refused = read_usable(tmp_path / "t")
    assert table == {"a": "1", "d": "5"}  # "e" has two values, and which is right is not known
    problems = {
        "b": "t:2: the line is not UTF-8 (byte 0xe9); convert the file",
        "t:3": "t:3: the line is not UTF-8 (byte 0xff); convert the file",
        "c": "t:4: nothing follows the id 'c'",
        "t:6": "t:6: the id 'd' comes a second time",
        "e": "t:8: the id 'e' comes a second time, with another value",
        "t:9": "t:9: the id 'b' comes a second time",
        "t:10": "t:10: the line is not UTF-8 (byte 0xfe); convert the file",
    }
    assert refused == {name: f"{tmp_path}/{problem}" for name, problem in problems.items()}
    (tmp_path / "t").write_bytes(b"\n".join(lines[1:4]))
    with pytest.raises(ValueError, match=r"t:1: the line is not UTF-8 \(byte 0xe9\)"):
        read_usable(tmp_path / "t")
    (tmp_path / "t").write_text("w A\nw B\n")  # as of a lexicon
    assert list(read_rows(tmp_path / "t")) == [(1, "w", "A"), (2, "w", "B")]
    (tmp_path / "t").write_bytes(b"w A\nw \xe9\n")
    with pytest.raises(ValueError, match="t:2: the line is not UTF-8"):
        list(read_rows(tmp_path / "t"))


def test_tables_are_sorted_in_c_order_and_keep_inner_spaces(tmp_path: Path) -> None:
    write_table(tmp_path / "t", {"b": "x  y", "B": "1", "a": ""})
    assert (tmp_path / "t").read_text() == "B 1\na\nb x  y\n"
    assert read_table(tmp_path / "t", allow_empty_value=True) == {"B": "1", "a": "", "b": "x  y"}
    assert some(map(str, range(12)), 2) == "0, 1 and 10 more"


def test_a_directory_without_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such data directory"):
        DataDir.load(tmp_path / "none")
    (tmp_path / "text").write_text("a A\n")
    with pytest.raises(ValueError, match="utt2spk, wav.scp missing; found text"):
        DataDir.load(tmp_path)
    data_dir = tmp_path / "d"
    DataDir({"s-1": "a.wav"}, {"s-1": "A"}, {"s-1": "s"}).save(data_dir)
    assert (data_dir / "spk2utt").read_text() == "s s-1\n"
    (data_dir / "segments").touch()
    with pytest.raises(ValueError, match="segments are not supported"):
        DataDir.load(data_dir)


def test_ids_of_tables_that_differ_are_named(tmp_path: Path) -> None:
    DataDir({"s-1": "a.wav"}, {"s-1": "A", "s-2": "B"}, {"s-1": "s"}).save(tmp_path)
    with pytest.raises(ValueError, match="1 id.s. are in text but not in wav.scp: s-2"):
        DataDir.load(tmp_path)


def test_an_id_ends_at_spaces_or_tabs_and_nothing_else(tmp_path: Path) -> None:
    lines = ["a\t1", " b \t 2 3\t", "c\u00a0d\u30004  x\u2028y", "", " \t", "e"]
    rows = [(1, "a", "1"), (2, "b", "2 3"), (3, "c\u00a0d\u30004", "x\u2028y"), (6, "e", "")]
    for end, start in (("\n", ""), ("\r\n", "\ufeff")):
        (tmp_path / "t").write_bytes((start + "".join(line + end for line in lines)).encode())
        assert list(read_rows(tmp_path / "t")) == rows
        assert [line for _, line in read_lines(tmp_path / "t")] == lines


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none.scp: no such file"):
        read_table(tmp_path / "none.scp")


@given(st.dictionaries(IDS, VALUES, min_size=1))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "table"
    write_table(path, table)
    assert read_table(path, allow_empty_value=True) == table


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "file"
    write_bytes(path, b"old")

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="the disk is full: .*new/file"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_writers_at_once_leave_one_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, then another thread, writes the file while this one is about to."""
    path, replace = tmp_path / "file", os.replace

    def in_between(partial: Path, target: Path) -> None:
        monkeypatch.setattr("os.replace", replace)
        if (child := os.fork()) == 0:
            write_bytes(path, b"of another process")
            os._exit(0)
        os.waitpid(child, 0)
        assert path.read_bytes() == b"of another process"
        thread = Thread(target=write_bytes, args=(path, b"of another thread"))
        thread.start()
        thread.join()
        assert path.read_bytes() == b"of another thread"
        replace(partial, target)

    monkeypatch.setattr("os.replace", in_between)
    write_bytes(path, b"of this one")
    assert path.read_bytes() == b"of this one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path: Path) -> None:
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    dead, alive = (tmp_path / f".t.{HOST}-{pid}-1.partial" for pid in (child, os.getpid()))
    elsewhere = tmp_path / f".t.00000000-{child}-1.partial"
    for left in (dead, alive, elsewhere):
        left.write_bytes(b"half")
    write_bytes(tmp_path / "another", b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([alive, elsewhere, tmp_path / "another"])


def test_links_keep_their_place_and_devices_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("old")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")  # as /dev/stdout may be, and /dev/null
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(tmp_path / "pipe", b"to the reader")
    assert os.read(reader, 99) == b"to the reader"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(IsADirectoryError, match="directory: '[^.]*'$"):
        write_bytes(tmp_path, b"x")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no such option"), "ERROR: no such option\n"),
        (OSError(errno.ENOSPC, "full", "a"), "full: 'a'; the disk is full: free some space"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "Broken pipe"),
        (ImportError("pip install it"), "ERROR: pip install it\n"),
        (MemoryError(), "ERROR: the memory is too small: run fewer jobs"),
        (BrokenProcessPool("x"), "a process was killed"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, message: str
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("ERROR: ")
    assert message in said
    assert said.count("\n") == 1


def test_a_log_that_nobody_reads_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a-1 A B\n")
    words = ["-m", "espnet_layerskip.recipe.train_ngram", "--text", "text", "--output", "o.arpa"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert b"Traceback" not in done.stderr
    assert (tmp_path / "o.arpa").read_text().endswith("\\end\\\n")


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    def main() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_main(main)


def test_a_table_of_another_encoding_that_is_utf8_by_chance_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("a HELLO\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"text:1: the line holds zero bytes \(UTF-16\?\)"):
        read_table(tmp_path / "text")


def test_closed_streams_and_ctrl_c_end_a_program_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run_main(stop)
    assert (end.value.code, capsys.readouterr().err) == (130, "ERROR: interrupted\n")
    for name in ("stdin", "stdout"):
        monkeypatch.setattr(sys, name, None)
    run_main(lambda: print(sys.stdin.read()))  # what it prints is lost


@pytest.mark.parametrize("mode", ["wb", "ab"])
@pytest.mark.parametrize(("number", "name"), [(1, "/dev/stdout"), (2, "/dev/stderr"), (1, "out")])
def test_what_a_stream_goes_to_keeps_what_it_has(
    tmp_path: Path, mode: str, number: int, name: str
) -> None:
    code = f"""
import sys
from espnet_layerskip.files import write_text
print("first", file=(sys.stdout, sys.stderr)[{number} - 1])
write_text({name!r}, "second\\n")
print("third", file=(sys.stdout, sys.stderr)[{number} - 1])
"""
    (tmp_path / "out").write_text("before\n")
    with (tmp_path / "out").open(mode) as out:
        streams = {"stdout" if number == 1 else "stderr": out}
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, **streams)
    expected = "before\n" if mode == "ab" else ""
    assert (tmp_path / "out").read_text() == expected + "first\nsecond\nthird\n"


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    write_text(tmp_path / ("\u65e5" * 85), "text\n")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["text\n"]


@pytest.mark.parametrize("odd", ["x\ry", "\x1b[31m", "x\x7f", "x\x85y"])
def test_an_id_with_control_characters_is_a_wrong_line(tmp_path: Path, odd: str) -> None:
    (tmp_path / "t").write_bytes(f"a 1\n{odd} 2\nt:2 3\r\n".encode())
    table, refused = read_usable(tmp_path / "t")
    assert table == {"a": "1", "t:2": "3"}
    why = f"{tmp_path}/t:2: the id {odd!r} has control characters: rename it"
    assert refused == {"t:2_": why}  # another line is called "t:2"
    with pytest.raises(ValueError, match="t:2: the id .* has control characters"):
        read_table(tmp_path / "t")


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_text(path, "text\n")
    assert os.read(reader, 10) == b"text\n"
    assert path.is_fifo()
    os.close(reader)
