import numpy as np
import pytest
import soundfile

from espnet_layerskip.evaluation import trial_data
from espnet_layerskip.evaluation.trial_data import load_trial_data

RATE = 16000


def write(directory, seconds, text=None, rate=RATE, channels=1):
    """Write utterances u0, u1, ... of these lengths."""
    directory.mkdir(exist_ok=True)
    lines = []
    for i, length in enumerate(seconds):
        path = directory / f"u{i}.wav"
        shape = (int(length * rate), channels)
        soundfile.write(path, np.full(shape, 0.1, np.float32), rate)
        lines.append(f"u{i} {path}\n")
    (directory / "wav.scp").write_text("".join(lines))
    if text is not None:
        (directory / "text").write_text("".join(f"{u} {t}\n" for u, t in text.items()))
    return directory


def names(data):
    return [s.utt_id for s in data.test.speech]


def test_so_many_utterances_over_all_durations(tmp_path):
    directory = write(tmp_path / "d", [0.1 * (i + 1) for i in range(9)])
    data = load_trial_data(directory, RATE, max_utts=3)
    assert names(data) == ["u1", "u4", "u7"]
    assert (data.total, data.labelled, data.notes) == (9, False, ())
    assert data.describe() == ("3 of 9 utterances, 2 s of audio (0.2 to 0.8 s each, median 0.5 s)")


def test_as_many_as_asked_for_of_a_large_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(trial_data, "LOOKED_AT", 2)
    directory = write(tmp_path / "d", [0.1] * 5)
    assert len(names(load_trial_data(directory, RATE))) == 2
    assert len(names(load_trial_data(directory, RATE, max_utts=4))) == 4


def test_about_so_much_audio_where_no_number_is_asked_for(tmp_path, monkeypatch):
    directory = write(tmp_path / "d", [0.5] * 10)
    assert len(names(load_trial_data(directory, RATE))) == 10
    monkeypatch.setattr(trial_data, "SECONDS", 2.0)
    data = load_trial_data(directory, RATE)
    assert data.test.seconds == pytest.approx(2.0)


def test_transcripts_say_what_is_used(tmp_path):
    directory = write(tmp_path / "d", [0.1] * 3, {"u0": "A B", "u1": "", "u2": "C", "x": "D"})
    data = load_trial_data(directory, RATE)
    assert names(data) == ["u0", "u2"]
    assert data.test.text == {"u0": "A B", "u2": "C"}
    assert data.labelled
    assert data.notes == ("1 utterances have no transcript and are left out",)


def test_a_transcript_of_two_paths_is_left_out(tmp_path):
    directory = write(tmp_path / "d", [0.1] * 2, {"u0": "A B", "u1": "B"})
    with (directory / "wav.scp").open("a") as table:
        table.write("u1 other.wav\n")
    data = load_trial_data(directory, RATE)
    assert names(data) == ["u0"]
    assert data.unusable == 1


def test_wrong_lines_are_left_out_and_said(tmp_path):
    directory = write(tmp_path / "d", [0.1] * 3, {"u0": "A B", "u1": "B", "u2": "C"})
    for name in ("wav.scp", "text"):
        content = (directory / name).read_bytes()
        lost = {"wav.scp": b"u0 ", "text": b"u2 "}[name]
        (directory / name).write_bytes(content.replace(lost, b"u\xff "))
    data = load_trial_data(directory, RATE)
    assert names(data) == ["u1"]
    assert (data.total, data.unusable) == (3, 2)
    wrong, unlabelled = data.notes
    assert wrong.startswith(f"2 lines of the tables cannot be used ({directory}/wav.scp:1: the")
    assert unlabelled == "1 utterances have no transcript and are left out"


def test_what_cannot_be_used_is_left_out_and_said(tmp_path, monkeypatch):
    directory = write(tmp_path / "d", [0.1, 0.2, 0.9], rate=8000, channels=2)
    with (directory / "wav.scp").open("a") as table:
        table.write("gone nowhere.wav\npiped sox x |\n")
    monkeypatch.setattr(trial_data, "LONGEST", 0.5)
    data = load_trial_data(directory, RATE)
    assert names(data) == ["u0", "u1"]
    assert [s.rate for s in data.test.speech] == [RATE, RATE]
    assert len(data.test.speech[0].samples) == 0.1 * RATE
    long, unread = data.notes
    assert long == "1 utterances of more than 0.5 s left out"
    assert unread.startswith("2 utterances cannot be read and are left out (utterance gone")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "wav.scp .* is needed, but there is nothing in it"),
        ({"text": "a B\n"}, "is needed, but there is text"),
        ({"wav.scp": "a gone.wav\n"}, "none of 1 utterances can be used .*no such audio file"),
        ({"wav.scp": "a x.wav\n", "text": "b B\n"}, "no transcript of any utterance .*b there, a"),
        ({"wav.scp": "a x.wav\n", "text": "a\n"}, "all transcripts are empty"),
        ({"wav.scp": "a x.wav\n", "segments": "a a 0 1\n"}, "segments are not supported"),
    ],
)
def test_bad_input_is_named(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_trial_data(tmp_path, RATE)


def test_a_directory_in_the_place_of_the_transcripts(tmp_path):
    """It is a mistake, not a set without transcripts."""
    write(tmp_path, [1.0])
    (tmp_path / "text").mkdir()
    with pytest.raises(ValueError, match="text is a directory, a file 'utt_id words' is needed"):
        load_trial_data(tmp_path, RATE)


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="no directory"):
        load_trial_data(tmp_path / "gone", RATE)
