from pathlib import Path

import pytest
import yaml

from espnet_layerskip.evaluation.seen_data import what_it_did


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe directory with an experiment, its training and its validation set."""
    for part in ("train", "dev"):
        rows = "".join(f"{part}{i} downloads/{part}{i}.wav\n" for i in range(4))
        write(tmp_path / f"dump/raw/{part}/wav.scp", rows)
        write(tmp_path / f"exp/stats/{part}/speech_shape", rows.replace("downloads", "9,"))
        for i in range(4):
            write(tmp_path / f"downloads/{part}{i}.wav", "")
    config = {}
    for part, name in (("train", "train"), ("valid", "dev")):
        config[f"{part}_shape_file"] = [f"exp/stats/{name}/speech_shape"]
        tables = [[f"dump/raw/{name}/wav.scp", "speech", "sound"]]
        config[f"{part}_data_path_and_name_and_type"] = tables
    write(tmp_path / "exp/asr_x/config.yaml", yaml.safe_dump(config))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def look(recipe, rows, name="mine"):
    write(recipe / f"data/{name}/wav.scp", rows)
    return what_it_did(recipe / "exp/asr_x/config.yaml", recipe / f"data/{name}")


def test_a_copy_a_part_and_renamed_utterances_are_recognised(recipe):
    did, unknown = look(recipe, "dev1 copies/dev1.flac\nother copies/other.flac\n")
    assert did == {
        "chose the checkpoint": "1 of its 2 utterances are in exp/stats/dev/speech_shape"
    }
    assert unknown == []
    renamed, _ = look(recipe, "a downloads/dev0.wav\nb downloads/dev3.wav\n")
    assert renamed == {"chose the checkpoint": "2 of its 2 utterances are in dump/raw/dev/wav.scp"}
    both, _ = look(recipe, "train2 x.wav\ndev0 y.wav\n")
    assert sorted(both) == ["chose the checkpoint", "trained the model"]
    assert look(recipe, "dev9 downloads/dev9.wav\n") == ({}, [])


def test_what_is_not_there_is_not_known(recipe):
    (recipe / "exp/stats/dev/speech_shape").unlink()
    assert list(look(recipe, "dev1 x.wav\n")[0]) == ["chose the checkpoint"], "the other table"
    (recipe / "dump/raw/dev/wav.scp").write_bytes(b"\xff\xfe")
    did, unknown = look(recipe, "dev1 x.wav\n")
    assert did == {}
    assert unknown == ["exp/stats/dev/speech_shape", "dump/raw/dev/wav.scp"]
    (recipe / "exp/asr_x/config.yaml").write_text("seed: 1\n")
    assert look(recipe, "dev1 x.wav\n") == ({}, ["valid_data_path_and_name_and_type"])
