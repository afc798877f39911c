"""Transcripts as text lines, JSON, subtitles (SRT, WebVTT), CTM and tables."""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Iterator, Sequence

from espnet_layerskip.decoding.hypothesis import Word
from espnet_layerskip.inference.times import ctm_lines
from espnet_layerskip.inference.transcriber import Transcript

SUBTITLES = ("srt", "vtt")
"""They have no place for the name of an utterance: one a document."""

# Of a subtitle: two lines of so many characters, so many seconds; a longer pause begins another.
LINE, LINES = 42, 2
LONGEST, PAUSE = 7.0, 1.0


def heading(name: str) -> str:
    """Return what stands before the first utterance."""
    return {"vtt": "WEBVTT\n\n", "tsv": "utt_id\tstart\tend\tconfidence\tword\n"}.get(name, "")


def render(name: str, found: Transcript) -> str:
    """Return one utterance in a format, with the line ends.

    Args:
        name: One of FORMATS of the verb.
        found: The transcript; with words for all but text.
    """
    if name == "text":
        return f"{found.utt_id} {found.text}".rstrip() + "\n"
    if name == "json":
        return _json(found)
    if name == "ctm":
        return "".join(f"{line}\n" for line in ctm_lines(found.utt_id, found.words, True))
    if name == "tsv":
        rows = (
            (found.utt_id, f"{w.start:.3f}", f"{w.end:.3f}", _number(w.confidence), w.text)
            for w in found.words
        )
        return "".join("\t".join(row) + "\n" for row in rows)
    return "".join(_cues(name, found.words))


def _json(found: Transcript) -> str:
    """Return one object in one line."""
    content = {
        "utt_id": found.utt_id,
        "text": found.text,
        "confidence": None if found.confidence is None else round(found.confidence, 4),
        "seconds": round(found.seconds, 3),
        "words": [
            {
                "word": word.text,
                "start": round(word.start, 3),
                "end": round(word.end, 3),
                "confidence": None if word.confidence is None else round(word.confidence, 4),
            }
            for word in found.words
        ],
    }
    line = json.dumps(content, ensure_ascii=False)
    if any("\ud800" <= c <= "\udfff" for c in line):  # of a name that is not UTF-8
        line = json.dumps(content)
    return line + "\n"


def _number(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.4f}"


def _cues(name: str, words: Sequence[Word]) -> Iterator[str]:
    """Yield subtitles."""
    arrow = "{} --> {}"
    for number, cue in enumerate(group_words(words), 1):
        text = textwrap.fill(" ".join(word.text for word in cue), LINE, break_long_words=False)
        start, end = (_clock(name, seconds) for seconds in (cue[0].start, cue[-1].end))
        text = html.escape(text, quote=False) if name == "vtt" else text
        yield f"{number}\n{arrow.format(start, end)}\n{text}\n\n"


def group_words(words: Sequence[Word]) -> list[list[Word]]:
    """Cut words into subtitles of two lines and seven seconds at most, at pauses of a second.

    >>> cues = group_words([Word("a", 0, 1), Word("b", 1, 2), Word("c", 4, 5)])
    >>> [[word.text for word in cue] for cue in cues]
    [['a', 'b'], ['c']]
    """
    cues: list[list[Word]] = []
    for word in words:
        cue = cues[-1] if cues else []
        lines = textwrap.wrap(" ".join(w.text for w in [*cue, word]), LINE, break_long_words=False)
        if (
            not cue
            or len(lines) > LINES
            or word.end - cue[0].start > LONGEST
            or word.start - cue[-1].end > PAUSE
        ):
            cues.append([])
        cues[-1].append(word)
    return cues


def _clock(name: str, seconds: float) -> str:
    """Return hours, minutes, seconds and milliseconds, as SRT or WebVTT has them."""
    total = round(1000 * seconds)
    comma = "," if name == "srt" else "."
    hours, minutes = total // 3_600_000, total // 60_000 % 60
    return f"{hours:02}:{minutes:02}:{total // 1000 % 60:02}{comma}{total % 1000:03}"
