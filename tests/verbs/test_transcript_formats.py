"""What transcripts look like in each format."""

import dataclasses
import io
import json
from itertools import pairwise

import pytest

from espnet_layerskip.decoding.hypothesis import Word
from espnet_layerskip.inference.audio import Utterance
from espnet_layerskip.inference.times import ctm_lines, spread_words
from espnet_layerskip.inference.transcriber import Transcript
from espnet_layerskip.verbs.transcript_formats import group_words, heading, render
from espnet_layerskip.verbs.transcript_writers import check_folder, folder_writer

WORDS = (Word("A<B", 0.04, 0.5, 0.987654), Word("C", 3661.5, 3661.9996))
FOUND = Transcript("u", "A<B C", WORDS, 0.5, 3662.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text", "u A<B C\n"),
        ("ctm", "u 1 0.04 0.46 A<B 0.9877\nu 1 3661.50 0.50 C\n"),
        (
            "tsv",
            "utt_id\tstart\tend\tconfidence\tword\nu\t0.040\t0.500\t0.9877\tA<B\n"
            "u\t3661.500\t3662.000\t\tC\n",
        ),
        (
            "srt",
            "1\n00:00:00,040 --> 00:00:00,500\nA<B\n\n2\n01:01:01,500 --> 01:01:02,000\nC\n\n",
        ),
        (
            "vtt",
            "WEBVTT\n\n1\n00:00:00.040 --> 00:00:00.500\nA&lt;B\n\n"
            "2\n01:01:01.500 --> 01:01:02.000\nC\n\n",
        ),
    ],
)
def test_formats(name, expected):
    assert heading(name) + render(name, FOUND) == expected


def test_each_transcript_is_a_file_of_its_own(tmp_path):
    out = io.StringIO()
    for name, suffix in {"text": "txt", "vtt": "vtt", "tsv": "tsv"}.items():
        write = folder_writer(tmp_path, name, out)
        for utt_id in ("u", "s/\udcff"):
            write(dataclasses.replace(FOUND, utt_id=utt_id))
        text = (tmp_path / f"u.{suffix}").read_text()
        assert text == ("A<B C\n" if name == "text" else heading(name) + render(name, FOUND))
        assert (tmp_path / f"s_\udcff.{suffix}").is_file()
    assert out.getvalue().splitlines()[::2] == [f"{tmp_path}/u.{s}" for s in ("txt", "vtt", "tsv")]
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="--output-dir .*file cannot be made"):
        check_folder("--output-dir", tmp_path / "file", [], "srt")
    two = [Utterance("a/b", "x"), Utterance("a_b", "y")]
    with pytest.raises(ValueError, match="a/b and a_b would both be a_b.srt"):
        check_folder("--output-dir", tmp_path, two, "srt")


def test_json_is_one_line_whatever_the_name():
    for name in ("u", "ü", "\udcff"):
        line = render("json", Transcript(name, "A", WORDS[:1], 0.98765, 1.0))
        line.encode()
        assert line.count("\n") == 1
        found = json.loads(line)
        assert found["utt_id"] == name
        assert found["words"] == [{"word": "A<B", "start": 0.04, "end": 0.5, "confidence": 0.9877}]
    empty = json.loads(render("json", Transcript("u")))
    assert (empty["text"], empty["words"], empty["confidence"]) == ("", [], None)


def test_nothing_said_gives_no_subtitle():
    assert [render(name, Transcript("u")) for name in ("srt", "ctm", "text")] == ["", "", "u\n"]


def test_subtitles_are_two_lines_and_seven_seconds_at_most():
    words = [Word("w" * 9, 0.2 * i, 0.2 * i + 0.2) for i in range(100)]
    cues = group_words(words)
    assert [word for cue in cues for word in cue] == words
    for cue in cues:
        assert len(" ".join(word.text for word in cue)) <= 2 * 42
    slow = group_words([Word("w", i, i + 1) for i in range(20)])
    assert max(cue[-1].end - cue[0].start for cue in slow) == 7.0


def test_words_of_a_ctm_do_not_overlap_by_rounding():
    ends = [0.0, 0.004, 0.0249, 0.037, 0.0549, 0.11, 0.115]
    words = [Word("w", a, b) for a, b in pairwise(ends) if b - a > 0.01]
    rows = [line.split() for line in ctm_lines("u", words)]
    for before, after in pairwise(rows):
        assert round(float(before[2]) + float(before[3]), 2) <= float(after[2])
    assert all(float(row[3]) > 0 for row in rows)


def test_words_reach_to_the_next_one_and_no_further_than_the_audio():
    words = [Word("A", 0.1, 0.14), Word("B", 0.2, 0.24), Word("C", 5.0, 5.04), Word("D", 6, 6.04)]
    spread = spread_words(words, 6.1)
    assert [(w.start, w.end) for w in spread] == [(0.1, 0.2), (0.2, 0.54), (5.0, 5.34), (6, 6.1)]
    assert spread_words([Word("E", 6, 6.5)], 6.1)[0].end == 6.5
    assert spread_words([], 1.0) == []
