import numpy as np
import pytest
import soundfile

from espnet_layerskip.evaluation.inputs import (
    Speech,
    join_utterances,
    load_tables,
    load_test_set,
    spread_over_durations,
)

RATE = 100


def utterance(name, seconds):
    seed = sum(name.encode())
    speech = np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE))
    return Speech(name, speech.astype(np.float32), RATE)


@pytest.fixture
def corpus():
    spoken = {"a1": 1.0, "a2": 1.5, "a3": 0.8, "a4": 4.0, "b1": 3.0, "b2": 0.5, "b3": 2.4}
    utterances = [utterance(k, v) for k, v in spoken.items()]
    return utterances, {k: k[0] for k in spoken}


def test_joins_whole_utterances_of_one_speaker(corpus):
    utterances, speakers = corpus
    got = join_utterances(utterances, speakers, seconds=3.0, count=3)
    # speakers take turns, each with its best first; a4 (4 s) is too long to count
    assert [u.utt_id for u in got] == ["b1", "a1+a2+a3", "b2+b3"]
    parts = {u.utt_id: u.samples for u in utterances}
    assert np.array_equal(got[1].samples, np.concatenate([parts["a1"], parts["a2"], parts["a3"]]))
    turned = join_utterances(utterances[::-1], speakers, seconds=3.0, count=3)
    assert [u.utt_id for u in turned] == [u.utt_id for u in got], "the order says nothing"


def test_says_how_many_there_are(corpus):
    utterances, speakers = corpus
    with pytest.raises(ValueError, match=r"4 different inputs of about 3 s.*only has 3"):
        join_utterances(utterances, speakers, 3.0, 4)
    with pytest.raises(ValueError, match="only has 0"):
        join_utterances(utterances, speakers, 60.0, 1)


def test_takes_more_where_there_are_more(corpus):
    def names(count, at_most=None):
        return [u.utt_id for u in join_utterances(*corpus, 3.0, count, at_most)]

    three = names(3)
    assert len(three) == 3
    assert names(1, at_most=2) == names(2, at_most=1) == three[:2]
    assert names(2, at_most=99) == three


def copy_of(data_dir, directory):
    for name in ("wav.scp", "text", "utt2spk"):
        (directory / name).write_text((data_dir / name).read_text())
    return directory


def test_reads_a_data_folder(data_dir):
    data = load_test_set(data_dir, 16000)
    assert [s.utt_id for s in data.speech] == [f"s{i // 4}-u{i}" for i in range(8)]
    assert data.seconds == 4.0
    assert data.speech[0].samples.dtype == np.float32
    assert data.text["s0-u0"] == "AB CD"
    joined = join_utterances(data.speech, data.utt2spk, 1.0, 3)
    assert [u.utt_id for u in joined] == ["s0-u0+s0-u1", "s1-u4+s1-u5", "s0-u2+s0-u3"]


def test_one_bad_entry_costs_that_entry(data_dir, tmp_path, caplog):
    directory = copy_of(data_dir, tmp_path)
    (tmp_path / "noise").write_bytes(bytes(100))
    soundfile.write(tmp_path / "nan.wav", np.full(9, np.nan), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "low.wav", np.zeros(8000), 8000)
    paths = [tmp_path / "noise", tmp_path / "nan.wav", "x |", "x" * 300, tmp_path / "low.wav"]
    lines = (directory / "wav.scp").read_text().splitlines()
    bad = [f"s0-u{i} {path}" for i, path in zip((0, 1, 2, 3), paths, strict=False)]
    (directory / "wav.scp").write_text("\n".join([*bad, f"s1-u4 {paths[4]}", *lines[5:]]) + "\n")
    (directory / "text").write_text(
        (directory / "text").read_text().replace("s1-u6 AB CD", "s1-u6")
    )
    data = load_test_set(directory)
    names = ["s1-u5", "s1-u7"]
    assert [s.utt_id for s in data.speech] == list(data.text) == list(data.utt2spk) == names
    assert data.describe()["refused"] == data.refused
    reasons = {
        "s0-u0": "cannot be decoded as audio",
        "s0-u1": "not finite",
        "s0-u2": "is a pipe",
        "s0-u3": "File name too long",
        "s1-u4": "8000 Hz, and most have 16000 Hz",
        "s1-u6": "the transcript of s1-u6 is empty",
    }
    assert set(data.refused) == set(reasons)
    for name, reason in reasons.items():
        assert reason in data.refused[name]
        assert f"refused: {data.refused[name]}" in caplog.messages
    assert "8 read = 2 used + 6 refused" in caplog.messages
    assert "refused" not in load_test_set(data_dir).describe()


def test_a_wrong_line_costs_its_utterance_in_all_tables(data_dir, tmp_path, caplog):
    directory = copy_of(data_dir, tmp_path)
    changes = {
        "wav.scp": [(b"s0-u0 ", b"s0-u0 \xe9")],
        "text": [(b"s0-u1 ", b"s0-u\xe91 "), (b"s0-u2 AB CD", b"s0-u2 AB CD\ns0-u2 AB")],
        "utt2spk": [(b"s0-u3 s0", b"s0-u3")],
    }
    for name, pairs in changes.items():
        content = (directory / name).read_bytes()
        for old, new in pairs:
            assert old in content
            content = content.replace(old, new)
        (directory / name).write_bytes(content)
    data = load_test_set(directory)
    names = [f"s1-u{i}" for i in (4, 5, 6, 7)]
    assert [s.utt_id for s in data.speech] == list(data.text) == list(data.utt2spk) == names
    reasons = {
        "s0-u0": "wav.scp:1: the line is not UTF-8 (byte 0xe9)",
        "s0-u1": "s0-u1: its line of text cannot be found: ",
        "s0-u2": "text:4: the id 's0-u2' comes a second time, with another value",
        "s0-u3": "utt2spk:4: nothing follows the id 's0-u3'",
    }
    assert set(data.refused) == set(reasons)
    for name, reason in reasons.items():
        assert reason in data.refused[name]
        assert f"refused: {data.refused[name]}" in caplog.messages
    assert "text:2: the line is not UTF-8" in data.refused["s0-u1"]
    assert "8 read = 4 used + 4 refused" in caplog.messages
    tables = load_tables(directory / "wav.scp", directory / "text", 16000)[0]
    assert (tables.text, tables.refused) == (data.text, data.refused)
    with (directory / "wav.scp").open("a") as table:
        table.write("s2-u8 x\ns2-u9 x\ns2-u10 x\n")  # more than the lines of text that are wrong
    with pytest.raises(ValueError, match="4 id.s. are in wav.scp but not in text: s0-u1, s2-u10"):
        load_test_set(directory)


def test_wrong_rate_and_missing_text(data_dir, tmp_path):
    with pytest.raises(ValueError, match="s0-u0: .*16000 Hz.*8000 Hz"):
        load_test_set(data_dir, 8000)
    directory = copy_of(data_dir, tmp_path)
    (directory / "text").unlink()
    with pytest.raises(ValueError, match="text missing"):
        load_test_set(directory, 16000)


def test_part_of_the_data_is_spread_over_the_durations():
    speech = [Speech(f"u{i}", np.zeros(n), 1) for i, n in enumerate((5, 1, 4, 2, 3, 6))]
    assert [len(s.samples) for s in spread_over_durations(speech, 3)] == [2, 4, 6]
    assert [len(s.samples) for s in spread_over_durations(speech, 1)] == [4]
    assert spread_over_durations(speech, 9) == speech
    assert spread_over_durations(speech, None) == speech


def test_relative_audio_is_found_above_the_data(data_dir, tmp_path, monkeypatch):
    """As in ESPnet's dump directories: relative to the recipe's folder, wherever one stands."""
    recipe = tmp_path / "recipe"
    (recipe / "dump/raw/test").mkdir(parents=True)
    (recipe / "wav").symlink_to(data_dir)
    for name in ("wav.scp", "text", "utt2spk"):
        text = (data_dir / name).read_text().replace(f"{data_dir}/", "wav/")
        (recipe / "dump/raw/test" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert len(load_test_set("recipe/dump/raw/test", 16000).speech) == 8


def test_tables_say_where_their_speakers_are_from(data_dir, tmp_path):
    directory = copy_of(data_dir, tmp_path)
    wav_scp, text, utt2spk = (directory / name for name in ("wav.scp", "text", "utt2spk"))
    utt2spk.write_text(utt2spk.read_text() + "other-u9 other\n")  # more than are needed
    data, source = load_tables(wav_scp, text, 16000)
    assert (len(data.speech), source) == (8, "utt2spk beside the text")
    utt2spk.unlink()
    data, source = load_tables(wav_scp, text, 16000)
    assert source == 'names up to their first "-"'
    assert set(data.utt2spk.values()) == {"s0", "s1"}
    for table in (wav_scp, text):
        table.write_text(table.read_text().replace("s0-u3 ", "s0u3 "))
    data, source = load_tables(wav_scp, text, 16000)
    assert source == "not known, all taken for one"
    assert len(set(data.utt2spk.values())) == 1


def test_tables_that_do_not_fit(data_dir, tmp_path):
    directory = copy_of(data_dir, tmp_path)
    text = directory / "text"
    text.write_text(text.read_text().replace("s0-u1 AB CD\n", ""))
    with pytest.raises(ValueError, match=r"wav.scp, .*text: 1 id.* not in text: s0-u1"):
        load_tables(directory / "wav.scp", text, 16000)
    with pytest.raises(ValueError, match="none.scp: no such file"):
        load_tables(directory / "none.scp", text, 16000)
