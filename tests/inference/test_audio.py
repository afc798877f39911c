import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from espnet_layerskip.inference import audio, audio_joined
from espnet_layerskip.inference.audio import (
    AudioBlocks,
    AudioError,
    Utterance,
    check_path,
    read_audio,
    read_wav_scp,
    resample,
    resampled,
)
from espnet_layerskip.inference.audio_joined import is_joined


def test_wav_scp(tmp_path):
    scp = tmp_path / "wav.scp"
    scp.write_text("a  x y.wav \n\nb\tcat z |\nc\n")
    assert read_wav_scp(scp) == [
        Utterance("a", "x y.wav"),
        Utterance("b", "cat z |"),
        Utterance("c", ""),
    ]


def test_wav_scp_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match="none.scp: no such file"):
        read_wav_scp(tmp_path / "none.scp")
    scp = tmp_path / "wav.scp"
    scp.write_text("\n")
    with pytest.raises(ValueError, match="the file is empty"):
        read_wav_scp(scp)
    scp.write_bytes(b"a x\na y\nb \xe9\n\xe9 z\n")
    first, *wrong = read_wav_scp(scp)
    assert first == Utterance("a", "x")
    assert [utt.utt_id for utt in wrong] == ["wav.scp:2", "b", "wav.scp:4"]
    with pytest.raises(AudioError, match=r"wav.scp:2: the id 'a' comes a second time"):
        read_audio(wrong[0], 16000)
    scp.write_bytes(b"a x\na y\nwav.scp:2 z\nwav.scp:2_ z\nc\rd z\n")  # ids like names of lines
    names = ["a", "wav.scp:2__", "wav.scp:2", "wav.scp:2_", "wav.scp:5"]
    assert [utt.utt_id for utt in read_wav_scp(scp)] == names
    scp.write_bytes(b"b \xe9\n")
    with pytest.raises(ValueError, match=r"wav.scp:1: the line is not UTF-8"):
        read_wav_scp(scp)


def test_samples_are_those_of_the_file(tmp_path, waves):
    path = tmp_path / "a.wav"
    soundfile.write(path, waves[0], 16000, subtype="FLOAT")
    samples = read_audio(Utterance("a", str(path)), 16000)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, waves[0])


def test_pipes_are_not_run(tmp_path):
    canary = tmp_path / "canary"
    for pipe in (f"touch {canary} |", f"| touch {canary}"):
        with pytest.raises(AudioError, match="utterance a: .*touch .* is a pipe"):
            read_audio(Utterance("a", pipe), 16000)
    assert not canary.exists()


def test_bad_files_are_named(corpus):
    with pytest.raises(AudioError, match="utterance a: .*noise.wav: cannot be decoded"):
        read_audio(Utterance("a", str(corpus.noise)), 16000)
    with pytest.raises(AudioError, match="utterance b: gone.wav: no such audio file"):
        read_audio(Utterance("b", "gone.wav"), 16000)
    with pytest.raises(AudioError, match="utterance c: no path given: no such audio file"):
        read_audio(Utterance("c", ""), 16000)
    with pytest.raises(AudioError, match="utterance d: x+: cannot be decoded .*name too long"):
        read_audio(Utterance("d", "x" * 5000), 16000)


def test_a_file_without_a_header_is_named(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    with pytest.raises(AudioError, match="utterance a: .*a.raw: cannot be decoded as audio"):
        read_audio(Utterance("a", str(tmp_path / "a.raw")), 16000)


@pytest.mark.parametrize("suffix", ["au", "snd", "vox", "gsm"])
def test_no_format_is_guessed_by_the_name(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"no audio" * 500)
    with pytest.raises(AudioError, match=r"cannot be decoded .*It has no header that is known"):
        read_audio(Utterance("a", str(path)), 16000, resample=True)


def test_rate_and_channels(tmp_path):
    path = tmp_path / "stereo.wav"
    t = np.arange(8000) / 8000
    left = 0.5 * np.sin(2 * np.pi * 200 * t)
    soundfile.write(path, np.stack([left, 0 * left], 1), 8000, subtype="FLOAT")
    utt = Utterance("a", str(path))
    with pytest.raises(AudioError, match="stereo.wav has 2 channels"):
        read_audio(utt, 8000)
    with pytest.raises(AudioError, match="has 8000 Hz, but the model was trained on 16000 Hz"):
        read_audio(utt, 16000, mix=True)
    assert AudioBlocks(utt, None, mix=True).sample_rate == 8000
    samples = read_audio(utt, 16000, mix=True, resample=True)
    assert samples.shape == (16000,)
    expected = 0.25 * np.sin(2 * np.pi * 200 * np.arange(16000) / 16000)
    np.testing.assert_allclose(samples[1000:-1000], expected[1000:-1000], atol=1e-4)


def test_blocks_are_the_file_and_can_be_read_again(corpus, waves, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK_SECONDS", 1)
    blocks = AudioBlocks(Utterance("a", str(corpus.files[2])), 16000)
    assert blocks.seconds == pytest.approx(1.3)
    for _ in range(2):
        assert [len(block) for block in blocks] == [16000, 4800]
        np.testing.assert_array_equal(np.concatenate(list(blocks)), waves[2])


def test_a_file_that_breaks_off_is_named(tmp_path, waves, monkeypatch):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.tile(waves[0], 20), 16000)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    with pytest.raises(AudioError, match="utterance a: .*a.flac: cannot be decoded as audio"):
        read_audio(Utterance("a", str(path)), 16000)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF", "NIST", "W64", "AU"])
def test_what_is_there_of_a_truncated_file_is_read_with_a_warning(tmp_path, waves, caplog, kind):
    path = tmp_path / f"a.{kind.lower()}"
    whole = np.tile(waves[0], 20)  # 18 s
    soundfile.write(path, whole, 16000, format=kind)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    blocks = AudioBlocks(Utterance("a", str(path)), 16000)
    got = blocks.read()
    assert 0.4 * len(whole) < len(got) < 0.6 * len(whole)
    np.testing.assert_allclose(got, whole[: len(got)], atol=1e-4)
    blocks.read()
    [said] = [record.getMessage() for record in caplog.records]
    missing = (len(whole) - len(got)) / 16000
    assert f"utterance a: {path}: its header says 18.00 s, but {missing:.2f} s of it" in said


def test_a_length_that_the_writer_did_not_know_is_no_truncation(tmp_path, caplog):
    utt = wav_header(tmp_path / "a.wav")
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = b"\xff\xff\xff\x7f"  # as sox writes to a pipe
    (tmp_path / "a.wav").write_bytes(content)
    assert len(read_audio(utt, 16000)) == 2000
    soundfile.write(tmp_path / "a.aiff", np.zeros(2000), 16000)
    content = (tmp_path / "a.aiff").read_bytes()
    place = content.index(b"SSND") + 4
    content = content[:place] + b"\x7f\0\0\x08" + content[place + 4 :]
    (tmp_path / "a.aiff").write_bytes(content)
    assert len(read_audio(Utterance("a", str(tmp_path / "a.aiff")), 16000)) == 2000
    assert not caplog.records


def test_channels_of_opposite_phase_are_not_averaged_to_silence(tmp_path, caplog):
    tone = 0.5 * np.sin(np.arange(16000) / 10)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([0.9 * tone, -tone], 1), 16000, subtype="FLOAT")
    got = read_audio(Utterance("a", str(path)), 16000, mix=True)
    np.testing.assert_allclose(got, -tone, atol=1e-6)
    assert "(opposite phase): only channel 2 is used" in caplog.text
    caplog.clear()
    half = np.concatenate([0.3 * tone, tone, tone])  # of which only the last third cancels
    other = np.concatenate([0.3 * tone, 0.9 * tone, -0.9 * tone])
    soundfile.write(path, np.stack([half, other], 1), 16000, subtype="FLOAT")
    got = read_audio(Utterance("a", str(path)), 16000, mix=True)
    np.testing.assert_allclose(got, half, atol=1e-6)
    assert "only channel 1 is used" in caplog.text
    soundfile.write(path, np.stack([tone, 0 * tone], 1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(
        read_audio(Utterance("a", str(path)), 16000, mix=True), tone / 2, atol=1e-6
    )


def test_a_header_counts_and_not_the_name(tmp_path, waves):
    soundfile.write(tmp_path / "a.raw", waves[0], 16000, format="WAV", subtype="FLOAT")
    np.testing.assert_array_equal(
        read_audio(Utterance("a", str(tmp_path / "a.raw")), 16000), waves[0]
    )


def test_pipes_are_run_where_they_are_allowed(corpus, waves):
    utt = Utterance("a", f"cat {corpus.files[0]} |")
    blocks = AudioBlocks(utt, 16000, pipes=True)
    for _ in range(2):
        np.testing.assert_array_equal(blocks.read(), waves[0])
    for command, message in (
        ("echo out of order >&2; exit 3 |", "ended with status 3: out of order"),
        ("true |", "Format not recognised"),
        ("| cat", "is a pipe to write to"),
    ):
        with pytest.raises(AudioError, match=message):
            AudioBlocks(Utterance("a", command), 16000, pipes=True)


@pytest.mark.parametrize(
    ("path", "message"),
    [("/dev/null", "is no regular file"), (".", "is a directory"), ("a\0b", "null byte")],
)
def test_what_is_no_file_is_not_opened(path, message):
    with pytest.raises(AudioError, match=message):
        check_path(Utterance("a", path))


def test_a_value_that_is_not_finite_is_named_wherever_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK_SECONDS", 1)
    for value in (np.nan, np.inf, 1e300):
        x = np.zeros((40000, 2))
        x[35000, 1] = value
        soundfile.write(tmp_path / "a.wav", x, 16000, subtype="DOUBLE")
        blocks = iter(AudioBlocks(Utterance("a", str(tmp_path / "a.wav")), 16000, mix=True))
        assert len(next(blocks)) == len(next(blocks)) == 16000
        with pytest.raises(AudioError, match="utterance a: .*a.wav holds values that are not fin"):
            next(blocks)


def test_a_file_without_samples_is_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16000)
    with pytest.raises(AudioError, match="utterance a: .*a.wav holds no samples"):
        read_audio(Utterance("a", str(tmp_path / "a.wav")), 16000)


def wav_header(path, channels=1, rate=16000, size=4000):
    """Write a WAV file of zeros whose header may say anything."""
    align = 2 * channels
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * align % 2**32, align, 16)
    data = struct.pack("<4sI", b"data", size) + bytes(size)
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(fmt + data), b"WAVE") + fmt + data)
    return Utterance("a", str(path))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"rate": 1}, "utterance a: .*a.wav claims 1 Hz: rates of 1000 to 768000 Hz are read"),
        ({"rate": 2**31 - 1}, "claims 2147483647 Hz: rates of 1000 to 768000 Hz are read"),
        ({"channels": 1000}, "claims 1000 channels: 256 are the most"),
    ],
)
def test_a_header_that_no_recording_has_is_refused(tmp_path, header, message):
    utt = wav_header(tmp_path / "a.wav", **header)
    with pytest.raises(AudioError, match=message):
        AudioBlocks(utt, 16000, resample=True, mix=True)


def test_a_block_is_bounded_whatever_the_header_says(tmp_path):
    utt = wav_header(tmp_path / "a.wav", channels=256, rate=768000, size=512 * 40000)
    sizes = [len(block) for block in AudioBlocks(utt, None, mix=True)]
    assert sum(sizes) == 40000
    assert max(sizes) * 256 <= audio.BLOCK_VALUES


RATES = [(8000, 16000), (44100, 16000), (48000, 16000), (22050, 8000), (16000, 11025)]
RATES += [(11127, 16000), (16000, 11127), (7919, 16000), (1000, 16000), (767999, 16000)]
RATES += [(0.9, 1.0), (1.1, 1.0), (17600, 16000), (15999, 16000), (16000, 16000)]


@given(st.sampled_from(RATES), st.lists(st.integers(0, 3000), max_size=5), st.integers(0, 10**6))
def test_resampling_in_blocks_is_resampling_the_whole(rates, lengths, seed):
    rng = np.random.default_rng(seed)
    blocks = [rng.standard_normal(n).astype(np.float32) for n in lengths]
    whole = np.concatenate([np.zeros(0, np.float32), *blocks])
    got = np.concatenate([np.zeros(0, np.float32), *resampled(iter(blocks), *rates)])
    np.testing.assert_array_equal(got, resample(whole, *rates))
    expected = soxr.resample(whole, *rates, quality="HQ") if whole.size else whole
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == np.float32


@pytest.mark.parametrize("rate", [8000, 11127, 22050, 44100, 48000, 96000])
def test_a_tone_keeps_pitch_and_level_at_another_rate(rate):
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    got = resample(tone, rate, 16000)
    assert got.shape == (16000,)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    np.testing.assert_allclose(got[800:-800], expected[800:-800], atol=1e-4)


def test_memory_is_bounded_at_any_rate(tmp_path):
    """Two minutes of a rate that shares no divisor with the model's: less than 60 MB."""
    x = np.zeros(120 * 11127, np.int16)
    soundfile.write(tmp_path / "a.wav", x, 11127)
    code = f"""
import resource
from espnet_layerskip.inference.audio import AudioBlocks, Utterance

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

before = peak()
blocks = AudioBlocks(Utterance("a", {str(tmp_path / "a.wav")!r}), 16000, resample=True)
print(sum(map(len, blocks)), peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    samples, megabytes = map(int, done.stdout.split()[-2:])
    assert samples == 120 * 16000
    assert megabytes < 60


@pytest.mark.skipif("OGG" not in soundfile.available_formats(), reason="libsndfile has no Ogg")
@pytest.mark.parametrize("suffix", ["ogg", "mp3", "flac"])
def test_files_that_are_several_joined_are_said(tmp_path, caplog, suffix):
    first, joined = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    soundfile.write(first, 0.3 * np.sin(np.arange(16000) / 9), 16000)
    samples = read_audio(Utterance("a", str(first)), 16000)
    assert not caplog.records
    joined.write_bytes(2 * first.read_bytes())
    assert len(read_audio(Utterance("b", str(joined)), 16000)) == len(samples)
    assert "it is several files joined, and only the first of 1.00 s is read" in caplog.text
    tagged = b"ID3\x04\0\0\0\0\1\0" + bytes(128)  # a tag of 128 bytes
    joined.write_bytes(tagged + first.read_bytes())
    assert not is_joined(str(joined))
    joined.write_bytes(2 * (tagged + first.read_bytes()))
    assert is_joined(str(joined)) == (suffix in ("mp3", "flac"))


def test_a_second_flac_stream_is_found_wherever_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_joined, "BLOCK", 64)
    for place in range(64, 128):
        (tmp_path / "a").write_bytes(b"fLaC".ljust(place) + b"fLaC\x80\0\0\x22")
        assert is_joined(str(tmp_path / "a"))


def test_an_ogg_stream_with_a_hole_or_without_an_end_is_said(tmp_path, monkeypatch, caplog):
    noise = np.random.default_rng(0).normal(0, 0.1, 12 * 16000).astype(np.float32)
    soundfile.write(tmp_path / "a.ogg", noise, 16000)
    pages = [b"OggS" + page for page in (tmp_path / "a.ogg").read_bytes().split(b"OggS")[1:]]
    (tmp_path / "hole.ogg").write_bytes(b"".join(pages[:4] + pages[6:]))
    (tmp_path / "cut.ogg").write_bytes(b"".join(pages[:-2]))
    whole, hole, cut = (
        read_audio(Utterance(name, str(tmp_path / f"{name}.ogg")), 16000)
        for name in ("a", "hole", "cut")
    )
    monkeypatch.setattr(audio, "BLOCK_SECONDS", 4)
    blocks = read_audio(Utterance("blocks", str(tmp_path / "hole.ogg")), 16000)
    assert len(cut) < len(whole) == len(noise)
    assert len(hole) < len(whole)
    np.testing.assert_array_equal(blocks, hole)  # nothing comes twice
    messages = [record.getMessage() for record in caplog.records]
    assert "utterance hole" in messages[0]
    assert f"{(len(whole) - len(hole)) / 16000:.2f} s of it are missing" in messages[0]
    assert f"no end after {len(cut) / 16000:.2f} s, it may be cut off" in messages[1]
