"""Shifted copies of a data directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_layerskip.evaluation.inputs import load_test_set
from espnet_layerskip.evaluation.shift_names import read_shifts
from espnet_layerskip.evaluation.shifts import shifted
from espnet_layerskip.files import DataDir, read_table
from espnet_layerskip.recipe.shift_data import shift_data_dir

from .conftest import make_data_dir, write_noise


@pytest.mark.parametrize("name", ["babble5", "speed1.1"])
def test_it_is_the_copy_of_the_test_set_in_memory(tmp_path: Path, name: str) -> None:
    make_data_dir(tmp_path / "data", tmp_path / "audio", ["a-1", "a-2", "b-1"])
    [shift] = read_shifts(name)
    target = tmp_path / "copy"
    assert shift_data_dir(tmp_path / "data", target, shift)
    written, wanted = load_test_set(target), shifted(load_test_set(tmp_path / "data"), shift)
    for one, other in zip(written.speech, wanted.speech, strict=True):
        assert one.utt_id == other.utt_id
        np.testing.assert_allclose(one.samples, other.samples, atol=1 / 32768)
    assert (written.text, written.utt2spk) == (wanted.text, wanted.utt2spk)
    counts = read_table(target / "utt2num_samples")
    assert counts == {one.utt_id: str(len(one.samples)) for one in wanted.speech}


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    data = make_data_dir(tmp_path / "data", tmp_path / "audio", ["a-1", "a-2"])
    [shift] = read_shifts("noise10")

    def made(**options: int) -> bool:
        return shift_data_dir(tmp_path / "data", tmp_path / "copy", shift, **options)

    assert made()
    assert not made()
    first = soundfile.read(tmp_path / "copy/data/a-1.flac")[0]
    assert made(seed=1)
    assert not np.array_equal(first, soundfile.read(tmp_path / "copy/data/a-1.flac")[0])
    data.text["a-1"] = "OTHER"
    data.save(tmp_path / "data")
    assert made()
    assert DataDir.load(tmp_path / "copy").text["a-1"] == "OTHER"
    (tmp_path / "data/audio_checksums").write_text("a-1 12345678\n")  # stage 3 read other audio
    assert made()


def test_bad_audio_is_named(tmp_path: Path) -> None:
    data = make_data_dir(tmp_path / "data", tmp_path / "audio", ["a-1", "a-2"])
    Path(data.wav["a-1"]).write_bytes(b"this is no audio")
    write_noise(Path(data.wav["a-2"]))
    with pytest.raises(ValueError, match=r"1 of 2 utterance\(s\) cannot be used:\n.*a-1"):
        shift_data_dir(tmp_path / "data", tmp_path / "copy", read_shifts("clip")[0])
    assert not (tmp_path / "copy" / "wav.scp").exists()
