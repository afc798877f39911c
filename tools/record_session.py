#!/usr/bin/env python3
"""Record the README's quick commands in a terminal: a film (asciinema v2) and a picture (SVG).

    python tools/record_session.py --model egs2/an4/asr1/pretrained/an4_layerskip.zip \\
        --audio a.wav b.flac talk.wav --output docs/session

runs them in a pseudo-terminal of 132 columns, in a folder of their own, and writes
``docs/session.cast`` and ``docs/session.svg``. ``--model`` is a path below the repository; the
three audio files, of any names, become a.wav, b.flac and talk.wav. Times in the film are those of
this machine. What names a place on this machine is refused.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import soundfile

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, ROWS = 132, 30
TYPING = 0.03  # seconds for a letter of a command
AUDIO = ("a.wav", "b.flac", "talk.wav")
COMMANDS = """\
espnet-layerskip transcribe --model {model} a.wav b.flac
espnet-layerskip transcribe --model {model} --format srt talk.wav
espnet-layerskip transcribe --modle {model} a.wav
espnet-layerskip export --model {model} --output asr.onnx
espnet-layerskip transcribe --model asr.onnx a.wav b.flac
"""
PLACE = re.compile(r"(?<![\w.])/(?:home|root|work|Users|usr|tmp|opt|mnt|var)/\S*")
ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b[^\[]")

Event = tuple[float, str]
"""Seconds since the start, and what the terminal was sent then."""

SIZE, ACROSS, DOWN, EDGE = 14, 8.4, 19, 16  # of the picture: type, a character, a line, the margin
STYLE = """
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#1f2328;
white-space:pre} .paper{fill:#f6f8fa;stroke:#d1d9e0} .typed{font-weight:bold;fill:#0550ae}
@media (prefers-color-scheme:dark){text{fill:#e6edf3} .paper{fill:#0d1117;stroke:#3d444d}
.typed{fill:#79c0ff}}"""


def record(commands: Sequence[str], folder: Path) -> list[Event]:
    """Run commands one after the other in a pseudo-terminal; return what it was sent.

    Args:
        commands: For the shell; a status that is not 0 does not end it.
        folder: To run in.

    Raises:
        ValueError: If the output names a place on this machine.
    """
    events: list[Event] = []
    began = time.monotonic()
    for command in commands:
        for typed in ("$ ", *command, "\r\n"):
            events.append((time.monotonic() - began, typed))
            time.sleep(TYPING if len(typed) == 1 else 0.0)
        said = b""
        for when, part in _run(command, folder):
            said += part
            text = said.decode(errors="ignore")  # a letter may be cut in two
            said = said[len(text.encode()) :]
            events.append((when - began, text))
    whole = "".join(text for _, text in events)
    if found := PLACE.search(whole):
        raise ValueError(f"the output names a place on this machine: {found[0]}")
    return events


def _run(command: str, folder: Path) -> list[tuple[float, bytes]]:
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    ours = {"PATH": path, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    sizes = {"COLUMNS", "LINES", "ESPNET_LAYERSKIP_DEBUG"}
    env = {name: value for name, value in os.environ.items() if name not in sizes} | ours
    found = []
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=there,
        stderr=there,
        start_new_session=True,
    ):
        os.close(there)
        while True:
            try:
                part = os.read(here, 65536)
            except OSError:  # on Linux it is closed so when the last program has ended
                part = b""
            if not part:
                break
            found.append((time.monotonic(), part))
    os.close(here)
    return found


def screen(text: str) -> list[str]:
    """Return the lines that a terminal shows in the end of what it was sent.

    >>> screen("50 %\\r100 %\\r\\nab\\x1b[31mc\\x1b[0m\\r\\x1b[Kd")
    ['100 %', 'd']
    """
    lines: list[list[str]] = [[]]
    row = column = place = 0
    while place < len(text):
        if found := ESCAPE.match(text, place):
            place = found.end()
            if found[2] == "K":
                del lines[row][column:]
            elif found[2] == "A":
                row = max(0, row - int(found[1] or 1))
            continue
        letter = text[place]
        place += 1
        if letter == "\r":
            column = 0
        elif letter == "\n" or (letter.isprintable() and column == COLUMNS):
            row, column = row + 1, 0
            lines += [[] for _ in range(row + 1 - len(lines))]
        if letter.isprintable():
            line = lines[row]
            line += " " * (column + 1 - len(line))
            line[column] = letter
            column += 1
    shown = ["".join(line).rstrip() for line in lines]
    while shown and not shown[-1]:
        shown.pop()
    return shown


def cast(events: Sequence[Event], title: str) -> str:
    """Return the film as asciinema v2 has it; a player shortens long waits to two seconds."""
    head: dict[str, Any] = {"version": 2, "width": COLUMNS, "height": ROWS, "title": title}
    rows = [[round(when, 3), "o", text] for when, text in events]
    lines = [head | {"idle_time_limit": 2, "env": {"TERM": "xterm-256color"}}, *rows]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def picture(lines: Sequence[str], title: str) -> str:
    """Return the lines as SVG, light or dark as the reader's screen; commands are told apart."""
    width = round(max(len(line) for line in lines) * ACROSS + 2 * EDGE)
    height = len(lines) * DOWN + 2 * EDGE
    texts = []
    typed = False
    for number, line in enumerate(lines):
        typed = line.startswith("$ ") or (typed and len(lines[number - 1]) == COLUMNS)
        kind = ' class="typed"' if typed else ""
        place = f'x="{EDGE}" y="{EDGE + SIZE + number * DOWN}"'
        grid = f'textLength="{len(line) * ACROSS:.1f}" lengthAdjust="spacingAndGlyphs"'
        if line:
            texts.append(f'<text{kind} {place} {grid} xml:space="preserve">{escape(line)}</text>\n')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
        f'<rect class="paper" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>\n'
        f"{''.join(texts)}</svg>\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Record and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="egs2/an4/asr1/pretrained/an4_layerskip.zip")
    parser.add_argument("--audio", nargs=3, type=Path, required=True, metavar="FILE")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/session")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "egs2").symlink_to(ROOT / "egs2")
        for name, file in zip(AUDIO, args.audio, strict=True):
            soundfile.write(Path(folder) / name, *soundfile.read(file))
        events = record(COMMANDS.format(model=args.model).splitlines(), Path(folder))
    title = "espnet-layerskip: the first commands of the README"
    args.output.with_suffix(".cast").write_text(cast(events, title), encoding="utf-8")
    lines = screen("".join(text for _, text in events))
    args.output.with_suffix(".svg").write_text(picture(lines, title), encoding="utf-8")


if __name__ == "__main__":
    main()
