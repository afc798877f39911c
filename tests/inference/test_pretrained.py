import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from espnet_layerskip.inference.pretrained import MODEL_FILES, find_model
from espnet_layerskip.inference.speech2text import Speech2Text, load_model
from espnet_layerskip.verbs.transcribe_inputs import check_model


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, exp_maker) -> Path:
    """A recipe directory whose experiment names its statistics relative to it."""
    root = tmp_path_factory.mktemp("recipe")
    stats = root / "exp/stats/feats_stats.npz"
    stats.parent.mkdir(parents=True)
    np.savez(stats, count=10, sum=np.zeros(20), sum_square=np.full(20, 10.0))
    exp = exp_maker(root / "exp/asr", "skip", str(stats))
    config = yaml.safe_load((exp / "config.yaml").read_text())
    config["normalize_conf"]["stats_file"] = "exp/stats/feats_stats.npz"
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    return root


@pytest.fixture(scope="module")
def packed(recipe, tmp_path_factory) -> Path:
    """That experiment, packed by ESPnet from inside the recipe directory."""
    from espnet2.main_funcs.pack_funcs import pack

    out = tmp_path_factory.mktemp("packed") / "model.zip"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(recipe)
        pack(
            files={"asr_model_file": "exp/asr/valid.loss.ave.pth"},
            yaml_files={"asr_train_config": "exp/asr/config.yaml"},
            option=["exp/stats/feats_stats.npz"],
            outpath=out,
        )
    return out


def test_relative_paths_of_an_experiment_are_found_from_anywhere(
    recipe, waves, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    from_dir = load_model(recipe / "exp/asr", decoder_type="greedy")
    assert from_dir.asr_model.normalize.stats_file == recipe / "exp/stats/feats_stats.npz"
    assert from_dir(waves[0])[0][0] is not None


def test_errors_name_what_the_user_gave(packed, tmp_path):
    """Not the folder that it was unpacked into, which is gone by then."""
    with zipfile.ZipFile(packed) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}

    def broken(suffix, content):
        path = tmp_path / f"bro ken{suffix}.zip"
        with zipfile.ZipFile(path, "w") as zf:
            for name, data in members.items():
                zf.writestr(name, content if name.endswith(suffix) else data)
        return path

    for suffix, content in (
        (".ave.pth", b"PK"),
        ("config.yaml", b"encoder: ["),
        ("meta.yaml", b"["),
        ("config.yaml", b"encoder: none\n"),
    ):
        path = broken(suffix, content)
        with pytest.raises(ValueError, match=re.escape(str(path))) as error:
            load_model(path, decoder_type="greedy")
        assert "espnet_layerskip_" not in str(error.value).replace(str(path), "")


def test_statistics_of_another_recipe_are_not_picked_up(recipe, tmp_path, monkeypatch):
    other = tmp_path / "exp/stats/feats_stats.npz"
    other.parent.mkdir(parents=True)
    np.savez(other, count=10, sum=np.ones(20), sum_square=np.full(20, 99.0))
    monkeypatch.chdir(tmp_path)
    files = find_model(recipe / "exp/asr")
    config = yaml.safe_load(files.train_config.read_text())
    assert config["normalize_conf"]["stats_file"] == str(recipe / "exp/stats/feats_stats.npz")


def test_zip_gives_what_the_directory_gives(recipe, packed, waves, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from_dir = load_model(recipe / "exp/asr", decoder_type="greedy")
    from_zip = load_model(packed, decoder_type="greedy")
    tagged = Speech2Text.from_pretrained(packed, decoder_type="greedy")
    expected = from_dir(waves[2])
    assert from_zip(waves[2]) == expected
    assert tagged(waves[2]) == expected
    stats_file = from_zip.asr_model.normalize.stats_file
    assert not Path(stats_file).is_relative_to(recipe)
    assert Path(stats_file).is_file()  # as long as the model lives
    with pytest.raises(ValueError, match="no checkpoint other.pth in .*valid.loss.ave.pth"):
        find_model(packed, "other.pth")
    moved = shutil.copy(packed, tmp_path / "another name.bin")
    assert load_model(moved, decoder_type="greedy")(waves[2]) == expected
    with zipfile.ZipFile(packed) as zf:
        zf.extractall(tmp_path / "un packed")
    unpacked = load_model(tmp_path / "un packed", decoder_type="greedy")
    assert unpacked(waves[2]) == expected
    assert Path(unpacked.asr_model.normalize.stats_file).is_relative_to(tmp_path / "un packed")
    (tmp_path / "un packed").rename(tmp_path / "renamed")
    assert load_model(tmp_path / "renamed/exp/asr", decoder_type="greedy")(waves[2]) == expected
    for model in (tmp_path / "renamed", tmp_path / "renamed/exp/asr"):
        check_model(str(model), None)  # of transcribe
    (tmp_path / "renamed/exp/asr/config.yaml").unlink()
    with pytest.raises(ValueError, match=r"meta.yaml names asr_train_config: .*config.yaml, not"):
        check_model(str(tmp_path / "renamed"), None)


def test_missing_statistics_are_named(recipe, tmp_path):
    shutil.copytree(recipe / "exp/asr", tmp_path / "asr")
    with pytest.raises(ValueError, match="stats_file: exp/stats/feats_stats.npz, which is neither"):
        find_model(tmp_path / "asr")


def test_order_of_the_checkpoints(models, tmp_path):
    shutil.copy(models["skip"] / "config.yaml", tmp_path)
    for name in ("2epoch.pth", "3epoch.pth"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"valid.cer_ctc.ave.pth.*it holds .*3epoch.pth"):
        find_model(tmp_path)
    for pattern in reversed(MODEL_FILES):
        name = pattern.replace("*best", "2best").replace("*", "x")
        (tmp_path / name).touch()
        if pattern != "valid.*.ave_*best.pth":  # then the next pattern has it
            assert find_model(tmp_path).model_file.name == name
    assert find_model(tmp_path, "3epoch.pth").model_file == tmp_path / "3epoch.pth"
    with pytest.raises(ValueError, match="no checkpoint 9epoch.pth"):
        find_model(tmp_path, "9epoch.pth")


def test_averages_that_name_their_number_and_files_of_lightning(models, tmp_path):
    shutil.copy(models["skip"] / "config.yaml", tmp_path)
    (tmp_path / "epoch3_step9_valid.loss.ckpt").touch()
    assert find_model(tmp_path).model_file.name == "epoch3_step9_valid.loss.ckpt"
    (tmp_path / "epoch4_step12_valid.loss.ckpt").touch()
    with pytest.raises(ValueError, match=r"or a single .ckpt.*epoch3.*epoch4"):
        find_model(tmp_path)
    for name in ("last.ckpt", "valid.loss.ave_2best.pth", "valid.loss.ave_10best.pth"):
        (tmp_path / name).touch()
        assert find_model(tmp_path).model_file.name == name
    (tmp_path / "valid.loss.ave_9best.pth").touch()
    assert find_model(tmp_path).model_file.name == "valid.loss.ave_10best.pth"


def test_what_espnet_packs_of_a_link(models, tmp_path):
    """Its pack follows valid.cer_ctc.ave.pth to 1epoch.pth, where that is all there is."""
    shutil.copy(models["skip"] / "config.yaml", tmp_path)
    (tmp_path / "1epoch.pth").touch()
    assert find_model(tmp_path).model_file.name == "1epoch.pth"
    (tmp_path / "checkpoint.pth").touch()  # a training that goes on
    with pytest.raises(
        ValueError, match=r"or a single .ckpt or \*epoch.pth: name one .*1epoch.pth"
    ):
        find_model(tmp_path)


def test_what_is_no_model(tmp_path, corpus):
    with pytest.raises(ValueError, match="has no config.yaml: it holds no .pth"):
        find_model(tmp_path)
    for path in (tmp_path / "none", corpus.noise):
        with pytest.raises(ValueError, match="neither an experiment directory .* nor a zip"):
            find_model(path)


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
def test_archives_cannot_write_outside(tmp_path, name):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as zf:
        zf.writestr("meta.yaml", "{}")
        zf.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(ValueError, match="would be written outside: refused"):
        find_model(archive)


def test_archives_without_a_model(tmp_path):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as zf:
        zf.writestr("a.txt", "x")
    with pytest.raises(ValueError, match=r"no meta\.yaml: make it with espnet2\.bin\.pack"):
        find_model(archive)
    with zipfile.ZipFile(archive, "w") as zf:
        zf.writestr("meta.yaml", "yaml_files: {asr_train_config: ../../etc/passwd}\nfiles: {}")
    with pytest.raises(ValueError, match="names asr_train_config: .*, not in it"):
        find_model(archive)


META = "yaml_files: {asr_train_config: config.yaml}\nfiles: {asr_model_file: a.pth}"


def make_archive(path: Path, **members: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zf:
        zf.writestr("meta.yaml", META)
        zf.writestr("a.pth", b"")
        for name, content in members.items():
            zf.writestr(name.replace("__", "."), content)
    return path


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("encoder: !!python/object/apply:os.system [touch CANARY]", "is not a YAML file of plain"),
        ("- encoder", "config.yaml: a mapping is needed, not list"),
        ("encoder: [", "is not a YAML file of plain values"),
        (
            "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
            + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)),
            "more than 1000000 values: refused",
        ),
    ],
)
def test_configurations_are_plain_values(tmp_path, monkeypatch, config, message):
    monkeypatch.chdir(tmp_path)
    archive = make_archive(tmp_path / "model.zip", config__yaml=config)
    with pytest.raises(ValueError, match=message):
        find_model(archive)
    assert not (tmp_path / "CANARY").exists()


def test_archives_do_not_fill_the_disk(tmp_path):
    bomb = make_archive(tmp_path / "model.zip", config__yaml="{}", more=bytes(120_000_000))
    with pytest.raises(ValueError, match=r"bytes would become 120\d+: refused"):
        find_model(bomb)


def test_archives_have_a_bounded_number_of_members(tmp_path, monkeypatch):
    monkeypatch.setattr("espnet_layerskip.inference.pretrained.MAX_MEMBERS", 3)
    archive = make_archive(tmp_path / "model.zip", config__yaml="{}", more="")
    with pytest.raises(ValueError, match="has more than 3 members: refused"):
        find_model(archive)


def test_links_in_archives_are_not_followed(tmp_path):
    (tmp_path / "secret").write_text("encoder: conformer")
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as zf:
        zf.writestr("meta.yaml", META)
        zf.writestr("a.pth", b"")
        link = zipfile.ZipInfo("config.yaml")
        link.external_attr = 0o120777 << 16
        zf.writestr(link, str(tmp_path / "secret"))
    with pytest.raises(ValueError, match="a mapping is needed, not str"):
        find_model(archive)


def test_damaged_archives_are_named(tmp_path):
    archive = make_archive(tmp_path / "model.zip", config__yaml="encoder: conformer")
    content = archive.read_bytes()
    damaged = content.replace(b"config.yaml", b"CONFIG.yaml", 1)
    archive.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"model.zip cannot be unpacked into .*: .*CONFIG"):
        find_model(archive)
    archive.write_bytes(content[:50] + content[90:])  # the directory at its end points elsewhere
    with pytest.raises(ValueError, match=r"model.zip cannot be unpacked"):
        find_model(archive)
    both = make_archive(archive, a="a file", **{"a/b": "and a directory"})
    with pytest.raises(ValueError, match=r"model.zip cannot be unpacked .*: .*Not a directory"):
        find_model(both)


def test_checkpoints_that_do_not_fit_are_named(models, tmp_path):
    shutil.copytree(models["skip"], tmp_path / "exp")
    model_file = tmp_path / "exp/valid.loss.ave.pth"
    state = torch.load(model_file, weights_only=True)
    torch.save({k: v for k, v in state.items() if "embed" not in k}, model_file)
    with pytest.raises(ValueError, match=r"missing: encoder\.embed"):
        load_model(tmp_path / "exp")
    grown = {
        k: torch.cat([v, v[:1]]) if k.startswith("ctc.ctc_lo") else v for k, v in state.items()
    }
    torch.save(grown, model_file)
    with pytest.raises(ValueError, match=r"ctc\.ctc_lo\.weight is \(10, 16\).*the vocabulary"):
        load_model(tmp_path / "exp")


class Malicious:
    """Unpickling an object of this class creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_checkpoints_are_never_unpickled(models, tmp_path):
    shutil.copytree(models["skip"], tmp_path / "exp")
    canary = tmp_path / "canary"
    torch.save({"a": Malicious(canary)}, tmp_path / "exp/valid.loss.ave.pth")
    with pytest.raises(ValueError, match="cannot be read as a file of tensors"):
        load_model(tmp_path / "exp")
    with pytest.raises(ValueError, match="cannot be read as a file of tensors"):
        Speech2Text(
            models["skip"] / "config.yaml", lm_file=str(tmp_path / "exp/valid.loss.ave.pth")
        )
    assert not canary.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_conf": ...}, "AttributeError"),
        ({"encoder_conf": {"outputsize": 3}}, "TypeError"),
        ({"frontend_conf": {"fs": 0}}, "ZeroDivisionError"),
        ({"token_list": ["<blank>", "a", "a", "<sos/eos>"]}, "duplicated"),
        ({"token_type": "bpe", "bpemodel": None}, "has token_type: bpe and no bpemodel"),
    ],
)
def test_a_configuration_that_is_none_is_named(models, tmp_path, change, message):
    exp = shutil.copytree(models["skip"], tmp_path / "asr")
    config = yaml.safe_load((exp / "config.yaml").read_text()) | change
    config = {key: value for key, value in config.items() if value is not ...}
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=message) as error:
        load_model(exp, decoder_type="greedy")
    assert str(error.value).split(":")[0].endswith(("config.yaml", "asr"))
