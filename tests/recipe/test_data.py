"""Tables, audio files, speed factors and token lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_layerskip.files import DataDir, read_table, some, write_table
from espnet_layerskip.recipe import audio, token_list
from espnet_layerskip.recipe.filter_data import filter_data_dir
from espnet_layerskip.recipe.format_wav_scp import format_data_dir
from espnet_layerskip.recipe.perturb_speed import parse_factors, perturb_data_dir
from espnet_layerskip.recipe.tokenizer import make_tokenizer

from .conftest import make_data_dir


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a 1\na 2\n", r"t:2: the id 'a' comes a second time"),
        ("a 1\nb\n", r"t:2: nothing follows the id 'b'"),
        ("\n", r"the file is empty"),
    ],
)
def test_bad_tables_name_the_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "t")


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
    make_data_dir(data_dir, tmp_path / "audio", ["s-1"])
    assert (data_dir / "spk2utt").read_text() == "s s-1\n"
    (data_dir / "segments").touch()
    with pytest.raises(ValueError, match="segments are not supported"):
        DataDir.load(data_dir)


@pytest.mark.parametrize(("text", "rate"), [("16k", 16000), ("8000", 8000), ("44.1k", 44100)])
def test_rates(text: str, rate: int) -> None:
    assert audio.parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "0", "-8k"])
def test_bad_rates(text: str) -> None:
    with pytest.raises(ValueError, match="a sampling rate such as 16k"):
        audio.parse_rate(text)


def test_audio_is_mono_resampled_and_written_back_exactly(tmp_path: Path) -> None:
    stereo = np.stack([np.full(800, 0.5), np.full(800, 0.25)], axis=1)
    soundfile.write(str(tmp_path / "s.wav"), stereo, 8000, subtype="PCM_16")
    x, rate = audio.read_audio(tmp_path / "s.wav")
    assert rate == 8000
    np.testing.assert_array_equal(x, np.full(800, 0.375, dtype=np.float32))
    assert len(audio.resample(x, 8000, 16000)) == 1600
    audio.write_audio(tmp_path / "o.flac", x, 8000)
    again, _ = audio.read_audio(tmp_path / "o.flac")
    np.testing.assert_array_equal(again, x)


def test_speed_changes_length_and_pitch() -> None:
    t = np.arange(16000) / 16000
    x = np.sin(2 * np.pi * 1000 * t).astype(np.float32)
    y = audio.change_speed(x, 1.25)
    assert len(y) == 12800
    peak = np.abs(np.fft.rfft(y[:12800])).argmax() * 16000 / 12800
    assert peak == pytest.approx(1250, abs=2)


@pytest.mark.parametrize(
    ("name", "message"),
    [("empty.wav", "holds no samples"), ("nan.wav", "not finite"), ("text.wav", "cannot be dec")],
)
def test_unusable_audio(tmp_path: Path, name: str, message: str) -> None:
    soundfile.write(str(tmp_path / "empty.wav"), np.zeros(0), 16000)
    soundfile.write(str(tmp_path / "nan.wav"), np.full(9, np.nan), 16000, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(ValueError, match=message):
        audio.read_audio(tmp_path / name)


def test_formatting_with_processes_is_the_same(tmp_path: Path) -> None:
    names = [f"s-{i}" for i in range(5)]
    make_data_dir(tmp_path / "d", tmp_path / "audio", names, ".flac")
    for nj in (1, 2):
        assert format_data_dir(tmp_path / "d", tmp_path / f"o{nj}", nj=nj) == []
    one, two = (DataDir.load(tmp_path / f"o{nj}") for nj in (1, 2))
    assert one.text == two.text
    for name in names:
        assert Path(one.wav[name]).read_bytes() == Path(two.wav[name]).read_bytes()
    with pytest.raises(ValueError, match="audio_format 'mp3': choose one of flac, wav"):
        format_data_dir(tmp_path / "d", tmp_path / "o", audio_format="mp3")


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
