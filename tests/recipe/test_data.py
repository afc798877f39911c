"""Audio files, speed factors and token lists."""

from __future__ import annotations

import errno
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_layerskip.evaluation.shift_names import read_shifts
from espnet_layerskip.files import DataDir, write_table
from espnet_layerskip.recipe import audio, token_list
from espnet_layerskip.recipe.filter_data import filter_data_dir
from espnet_layerskip.recipe.format_wav_scp import format_data_dir
from espnet_layerskip.recipe.perturb_speed import parse_factors, perturb_data_dir
from espnet_layerskip.recipe.shift_data import shift_data_dir
from espnet_layerskip.recipe.tokenizer import make_tokenizer

from .conftest import make_data_dir, write_noise


@pytest.mark.parametrize(("text", "rate"), [("16k", 16000), ("8000", 8000), ("44.1k", 44100)])
def test_rates(text: str, rate: int) -> None:
    assert audio.parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "0", "-8k", "16"])
def test_bad_rates(text: str) -> None:
    with pytest.raises(ValueError, match="a sampling rate such as 16k"):
        audio.parse_rate(text)


def test_audio_is_mono_resampled_and_written_back_exactly(tmp_path: Path) -> None:
    stereo = np.stack([np.full(800, 0.5), np.full(800, 0.25)], axis=1)
    soundfile.write(str(tmp_path / "s.wav"), stereo, 8000, subtype="PCM_16")
    assert audio.convert("s", str(tmp_path / "s.wav"), tmp_path / "o.flac") == (800, "")
    x, rate = soundfile.read(tmp_path / "o.flac")
    assert rate == 8000
    np.testing.assert_array_equal(x, np.full(800, 0.375))
    assert audio.convert("s", str(tmp_path / "s.wav"), tmp_path / "r.wav", 16000) == (1600, "")
    assert soundfile.info(tmp_path / "r.wav").samplerate == 16000


@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_blocks_are_written_as_the_whole(tmp_path: Path, suffix: str) -> None:
    x = np.random.default_rng(0).uniform(-1.2, 1.2, 50000).astype(np.float32)
    assert audio.write_audio(tmp_path / f"a.{suffix}", np.split(x, [1, 700, 20000]), 16000) == 50000
    assert audio.write_audio(tmp_path / f"b.{suffix}", [x], 16000) == 50000
    pcm = np.clip(np.rint(x * 32768.0), -32768, 32767).astype(np.int16)
    soundfile.write(tmp_path / f"c.{suffix}", pcm, 16000, subtype="PCM_16")
    a, b, c = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "abc")
    assert a == b == c


def test_speed_changes_length_and_pitch(tmp_path: Path) -> None:
    t = np.arange(16000) / 16000
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * t), 16000)
    done = audio.convert("a", str(tmp_path / "a.wav"), tmp_path / "b.wav", speed=1.25)
    assert done == (12800, "")
    y, rate = soundfile.read(tmp_path / "b.wav")
    assert rate == 16000
    peak = np.abs(np.fft.rfft(y)).argmax() * 16000 / 12800
    assert peak == pytest.approx(1250, abs=2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty.wav", "holds no samples"),
        ("nan.wav", "not finite"),
        ("text.wav", "cannot be decoded"),
        ("gone.wav", "no such audio file"),
    ],
)
def test_unusable_audio(tmp_path: Path, name: str, message: str) -> None:
    soundfile.write(str(tmp_path / "empty.wav"), np.zeros(0), 16000)
    soundfile.write(str(tmp_path / "nan.wav"), np.full(9, np.nan), 16000, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("hello")
    samples, problem = audio.convert("u-1", str(tmp_path / name), tmp_path / "out.flac")
    assert samples == 0
    assert problem.startswith(f"utterance u-1: {tmp_path / name}")
    assert message in problem
    assert not (tmp_path / "out.flac").exists()


def test_a_full_disk_is_no_fault_of_the_utterance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_noise(tmp_path / "a.wav")

    def fail(path: Path, content: bytes) -> None:
        raise OSError(number, "the reason", str(path))

    monkeypatch.setattr(audio, "write_bytes", fail)
    number = errno.ENAMETOOLONG
    _, problem = audio.convert("u-1", str(tmp_path / "a.wav"), tmp_path / "b.wav")
    assert problem.startswith("utterance u-1: [Errno 36] the reason")
    for other in (errno.ENOSPC, errno.EACCES, errno.ENOTDIR):
        number = other
        with pytest.raises(OSError, match="the reason"):
            audio.convert("u-1", str(tmp_path / "a.wav"), tmp_path / "b.wav")


def test_names_that_espnet_would_cut_are_refused(tmp_path: Path) -> None:
    make_data_dir(tmp_path / "d", tmp_path / "audio", ["s-1", "s-2\u00a0x"])
    with pytest.raises(ValueError, match=r"1 of 2 utterance.*\n.*'s-2\\xa0x'.* white space"):
        format_data_dir(tmp_path / "d", tmp_path / "o")


@pytest.mark.parametrize(
    ("table", "message"),
    [("s-1 8000\ns-2 many\n", r"utt2num_samples:2: .* not 'many'"), ("s-1 8000\n", "of s-2: run")],
)
def test_counts_that_are_none_are_named(tmp_path: Path, table: str, message: str) -> None:
    make_data_dir(tmp_path / "d", tmp_path / "audio", ["s-1", "s-2"])
    (tmp_path / "d/utt2num_samples").write_text(table)
    with pytest.raises(ValueError, match=message):
        filter_data_dir(tmp_path / "d", tmp_path / "o", rate=16000, min_seconds=0, max_seconds=9)


def test_formatting_with_processes_is_the_same(tmp_path: Path) -> None:
    names = [f"s-{i}" for i in range(5)]
    make_data_dir(tmp_path / "d", tmp_path / "audio", names, ".flac")
    for nj in (1, 2):
        assert format_data_dir(tmp_path / "d", tmp_path / f"o{nj}", nj=nj) == []
    one, two = (DataDir.load(tmp_path / f"o{nj}") for nj in (1, 2))
    assert one.text == two.text
    for name in names:
        assert Path(one.wav[name]).read_bytes() == Path(two.wav[name]).read_bytes()
    sums = (tmp_path / "o1/audio_checksums").read_text()
    assert sums == (tmp_path / "o2/audio_checksums").read_text()
    write_noise(tmp_path / "audio/s-3.flac", seed=99)
    format_data_dir(tmp_path / "d", tmp_path / "o1")
    changed = (tmp_path / "o1/audio_checksums").read_text().splitlines()
    assert [a == b for a, b in zip(sums.splitlines(), changed, strict=True)].index(False) == 3
    with pytest.raises(ValueError, match="audio_format 'mp3': choose one of flac, wav"):
        format_data_dir(tmp_path / "d", tmp_path / "o", audio_format="mp3")


def test_several_spaces_become_one(tmp_path: Path) -> None:
    """Each would be a token of its own with token_type char."""
    data = make_data_dir(tmp_path / "d", tmp_path / "audio", ["s-0"])
    data.text["s-0"] = "A  B \t C"
    data.save(tmp_path / "d")
    format_data_dir(tmp_path / "d", tmp_path / "o")
    assert DataDir.load(tmp_path / "o").text == {"s-0": "A B C"}


def test_entries_that_are_no_files_are_refused(tmp_path: Path) -> None:
    data = make_data_dir(tmp_path / "d", tmp_path / "audio", ["s-0", "s-1"])
    for entry, message in (("cat x |", r"d/wav.scp holds 1 pipe"), ("a.ark:17", "in archives")):
        data.wav["s-1"] = entry
        data.save(tmp_path / "d")
        with pytest.raises(ValueError, match=f"{message}.*'{re.escape(entry)}'.*s-1"):
            format_data_dir(tmp_path / "d", tmp_path / "o")


@pytest.mark.parametrize(
    ("factors", "message"),
    [("", "give factors"), ("0.9 x", "'x' is not"), ("9", "'9' is not"), ("1 1.0", "twice")],
)
def test_bad_factors(factors: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_factors(factors)


def test_perturbation_leaves_out_only_what_is_broken(tmp_path: Path) -> None:
    data = make_data_dir(tmp_path / "d", tmp_path / "audio", ["s-1", "s-2"])
    Path(data.wav["s-2"]).write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 of 2 utterance.*\n.*s-2"):
        perturb_data_dir(tmp_path / "d", tmp_path / "sp", "0.9 1.0")
    out = perturb_data_dir(tmp_path / "d", tmp_path / "sp", "0.9 1.0", skip_broken=True)
    assert set(out.wav) == {"s-1", "s-2", "sp0.9-s-1"}  # stage 3 says what it is with s-2


def test_filtering_everything_is_an_error(tmp_path: Path) -> None:
    make_data_dir(tmp_path / "d", tmp_path / "audio", ["s-1"])
    format_data_dir(tmp_path / "d", tmp_path / "org")
    limits = {"rate": 16000, "min_seconds": 1.0, "max_seconds": 2.0}
    with pytest.raises(ValueError, match=r"no utterance is left; e\.g\. s-1: 0\.30 s"):
        filter_data_dir(tmp_path / "org", tmp_path / "out", **limits)
    with pytest.raises(ValueError, match="must be below"):
        filter_data_dir(tmp_path / "org", tmp_path / "out", **limits | {"max_seconds": 0.5})


def test_tokens_by_falling_count_then_as_they_come() -> None:
    assert token_list.count_tokens(["B A", "AC"], "char") == ["A", "B", "<space>", "C"]
    assert token_list.count_tokens(["x y", "y"], "word") == ["y", "x"]


def test_white_space_that_is_no_token_is_refused_by_utterance() -> None:
    table = {"u1": "ONE\u00a0TWO", "u2": "TWO THREE", "u3": "\u3000\u0085", "u4": "A\u200bB"}
    with pytest.raises(ValueError, match=r"text: .*: u1 \(U\+00A0\), u3 \(U\+0085\), u3 \(U\+3000"):
        token_list.check_white_space(table, "text")
    token_list.check_white_space({"u2": table["u2"], "u4": table["u4"]}, "text")


def test_unknown_token_types_list_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose one of char, bpe, word"):
        make_tokenizer("phn")
    with pytest.raises(ValueError, match="stage 5 makes it"):
        make_tokenizer("bpe", bpemodel=str(tmp_path / "bpe.model"))


@pytest.mark.slow
@pytest.mark.parametrize("token_type", ["char", "word"])
def test_the_token_list_is_espnets(tmp_path: Path, token_type: str) -> None:
    tokenize_text = pytest.importorskip("espnet2.bin.tokenize_text")
    texts = {"a": "THE CAT SAT", "b": "ON THE MAT", "c": "A <noise> B"}
    write_table(tmp_path / "text", texts)
    (tmp_path / "nlsyms").write_text("<noise>\n")
    options = ["--token_type", token_type, "--field", "2-", "--write_vocabulary", "true"]
    options += ["--input", str(tmp_path / "text"), "--output", str(tmp_path / "tokens")]
    options += ["--non_linguistic_symbols", str(tmp_path / "nlsyms")]
    tokenize_text.main(options)
    expected = (tmp_path / "tokens").read_text().split("\n")[:-1]
    nlsyms = str(tmp_path / "nlsyms")
    assert token_list.count_tokens(texts.values(), token_type, nlsyms) == expected


def test_samples_of_another_scale_are_refused_and_a_loud_peak_is_not(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 8000)
    soundfile.write(tmp_path / "a.wav", noise * 32768, 8000, subtype="FLOAT")
    _, problem = audio.convert("u-1", str(tmp_path / "a.wav"), tmp_path / "b.flac")
    assert problem.startswith(f"utterance u-1: {tmp_path}/a.wav: 100 % of the samples are beyond")
    assert not (tmp_path / "b.flac").exists()
    noise[::1000] = 9.0
    soundfile.write(tmp_path / "a.wav", noise, 8000, subtype="FLOAT")
    assert audio.convert("u-1", str(tmp_path / "a.wav"), tmp_path / "b.flac") == (8000, "")


def test_a_directory_is_not_made_of_itself(tmp_path: Path) -> None:
    make_data_dir(tmp_path / "data", tmp_path / "audio", ["s0-u0", "s0-u1"])
    (tmp_path / "link").symlink_to("data")
    before = (tmp_path / "data/wav.scp").read_bytes()
    for make in (
        format_data_dir,
        partial(perturb_data_dir, factors="0.9 1.0"),
        partial(shift_data_dir, shift=read_shifts(["noise10"])[0]),
        partial(filter_data_dir, rate=16000, min_seconds=0.1, max_seconds=20.0),
    ):
        with pytest.raises(ValueError, match="link would be written over what it is made of"):
            make(tmp_path / "data", tmp_path / "link")
    assert (tmp_path / "data/wav.scp").read_bytes() == before
