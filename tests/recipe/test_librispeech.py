"""LibriSpeech: its layout, what is missing, and the recipe on a tree of noise, Slurm included."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import torch
import yaml

import estimate
import librispeech
from espnet_layerskip.files import DataDir, read_table
from espnet_layerskip.recipe.download import fetch_archive

from .conftest import REPO, write_noise

RECIPE = REPO / "egs2/librispeech_100/asr1"
TEXTS = ["CHAPTER ONE", "THE QUICK BROWN FOX", "JUMPS OVER A LAZY DOG", "WITH SOME MORE HASTE"]
READERS = {
    "train-clean-100": {"19": 4, "26": 2},
    "dev-clean": {"84": 2},
    "dev-other": {"116": 2},
    "test-clean": {"61": 3},
    "test-other": {"367": 2},
}


def make_librispeech(root: Path, seconds: float = 0.1) -> Path:
    """Write PART/SPEAKER/CHAPTER/*.flac and a .trans.txt a chapter; return the root."""
    for part, readers in READERS.items():
        for reader, count in readers.items():
            chapter = root / part / reader / "198"
            names = [f"{reader}-198-{i:04}" for i in range(count)]
            for i, name in enumerate(names):
                write_noise(chapter / f"{name}.flac", seconds, seed=i)
            lines = [f"{name} {TEXTS[i % len(TEXTS)]}\n" for i, name in enumerate(names)]
            (chapter / f"{reader}-198.trans.txt").write_text("".join(lines))
    return root


@pytest.mark.parametrize("inside", ["", "LibriSpeech"])
def test_the_sets_are_espnets(tmp_path: Path, inside: str) -> None:
    make_librispeech(tmp_path / "corpus" / inside)
    librispeech.prepare(tmp_path / "corpus", tmp_path / "data", check_counts=False)
    train = DataDir.load(tmp_path / "data/train_clean_100")
    assert len(train.wav) == 6
    assert train.text["19-198-0001"] == "THE QUICK BROWN FOX"
    assert train.utt2spk["26-198-0001"] == "26"
    assert all(Path(path).is_file() for path in train.wav.values())
    dev = DataDir.load(tmp_path / "data/dev")
    both = [DataDir.load(tmp_path / f"data/dev_{kind}") for kind in ("clean", "other")]
    assert dev.wav == both[0].wav | both[1].wav
    assert len(dev.wav) == 4
    assert {p.name for p in (tmp_path / "data").iterdir()} == {
        "train_clean_100",
        *("dev", "dev_clean", "dev_other", "test_clean", "test_other"),
    }


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"looked for train-clean-100 .* found no such directory"):
        librispeech.prepare(tmp_path / "nowhere", tmp_path / "data")
    root = make_librispeech(tmp_path / "LibriSpeech")
    with pytest.raises(ValueError, match=r"6 utterances; LibriSpeech has 28539"):
        librispeech.prepare(tmp_path, tmp_path / "data")
    chapter = root / "test-other/367/198"
    (chapter / "367-198-0001.flac").unlink()
    with pytest.raises(ValueError, match=r"1 \.flac file\(s\) missing: 367-198-0001"):
        librispeech.read_part(root / "test-other")
    table = chapter / "367-198.trans.txt"
    table.write_text("367-198-0001 A\n")
    with pytest.raises(ValueError, match=r"missing: 367-198-0001"):
        librispeech.read_part(root / "test-other")
    shutil.copy(chapter / "367-198-0000.flac", chapter / "367-198-0001.flac")
    with pytest.raises(ValueError, match=r"1 without a transcript: 367-198-0000"):
        librispeech.read_part(root / "test-other")
    table.write_text("367-198-0001 A\n367-198-0001 B\n")
    with pytest.raises(ValueError, match=r"trans.txt:2: the utterance '367-198-0001' comes a sec"):
        librispeech.read_part(root / "test-other")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"there is no SPEAKER/CHAPTER"):
        librispeech.read_part(tmp_path / "empty")


def test_a_download_is_verified_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_librispeech(tmp_path / "LibriSpeech")
    server = tmp_path / "server"
    server.mkdir()
    parts = {}
    for part in READERS:
        with tarfile.open(server / f"{part}.tar.gz", "w:gz") as tar:
            tar.add(tmp_path / "LibriSpeech" / part, arcname=f"LibriSpeech/{part}")
        content = (server / f"{part}.tar.gz").read_bytes()
        parts[part] = (sum(READERS[part].values()), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(librispeech, "PARTS", parts)
    root = librispeech.download(server.as_uri(), tmp_path / "downloads")
    assert len(librispeech.prepare(root, tmp_path / "data")["dev"].wav) == 4
    with pytest.raises(ValueError, match=r"dev-clean.tar.gz.part: its SHA-256 is .* remove it"):
        fetch_archive(f"{server.as_uri()}/dev-clean.tar.gz", tmp_path / "other", "0" * 64)
    with pytest.raises(ValueError, match=r"cannot be downloaded .*--librispeech_root"):
        librispeech.download("http://127.0.0.1:9", tmp_path / "other")


def test_configs_are_of_espnets_size() -> None:
    for name in ("conformer", "layerskip", "e_branchformer", "layerskip_e_branchformer"):
        config = yaml.safe_load((RECIPE / f"conf/train_asr_{name}.yaml").read_text())
        sizes = {k: config["encoder_conf"][k] for k in ("num_blocks", "output_size")}
        assert sizes == {"num_blocks": 12, "output_size": 256}, name


TINY = (
    "--encoder_conf output_size=16 --encoder_conf attention_heads=2 --encoder_conf num_blocks=4 "
    "--encoder_conf linear_units=32 --encoder_conf cnn_module_kernel=7 "
    "--encoder_conf interctc_layer_idx=[1,2] --encoder_conf gate_layer_idx=[2] "
    "--frontend_conf n_mels=20 --specaug none --batch_type unsorted --batch_size 6 "
    "--accum_grad 1 --max_epoch 1 --num_workers 0 --use_amp false --keep_nbest_models 1 "
    "--use_matplotlib false"
)
SRUN = """#!/usr/bin/env bash
# Stands for Slurm: notes its options, and loses the node of the first decoding job once.
echo "$*" >> "${FAKE_SLURM}/calls"
while [[ $1 == -* ]]; do if [[ $1 == --*=* ]]; then shift; else shift 2; fi; done
if [[ "$*" == *asr_inference* ]] && mkdir "${FAKE_SLURM}/lost" 2> /dev/null; then exit 137; fi
exec "$@"
"""


@pytest.mark.slow
def test_the_stages_on_a_small_tree(tmp_path: Path, python: str) -> None:
    """Stages 1-5 and 10-13, the last two once more through Slurm's form of cmd.sh."""
    root = make_librispeech(tmp_path / "corpus/LibriSpeech", seconds=1.0).parent
    recipe = tmp_path / "egs2/librispeech_100/asr1"
    recipe.mkdir(parents=True)
    for name in ("run.sh", "asr.sh", "cmd.sh", "path.sh", "utils", "local", "conf"):
        (recipe / name).symlink_to((RECIPE / name).resolve())
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin/srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)

    def run(*options: str, **env: str) -> None:
        command = ["./run.sh", "--python", python, "--ngpu", "0", "--nj", "1"]
        command += ["--librispeech_root", str(root), "--check_counts", "false", "--nbpe", "30"]
        command += ["--speed_perturb_factors", "0.9 1.0", "--test_sets", "test_clean"]
        command += ["--asr_tag", "tiny", "--asr_args", TINY, *options]
        done = subprocess.run(
            command,
            cwd=recipe,
            env=os.environ | {"OMP_NUM_THREADS": "1", "FAKE_SLURM": str(tmp_path)} | env,
            capture_output=True,
            text=True,
            timeout=1200,  # ESPnet imports slowly on a busy machine
            check=False,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]

    run("--stop_stage", "13", "--inference_nj", "1", "--inference_tag", "one")
    exp = recipe / "exp/asr_tiny"
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert config["encoder"] == "layerskip_conformer"
    assert (
        config["token_list"]
        == (recipe / "data/en_token_list/bpe_unigram30/tokens.txt").read_text().split("\n")[:-1]
    )
    assert len(read_table(recipe / "dump/raw/train_clean_100_sp/wav.scp")) == 12
    assert "|one/test_clean|3|" in (exp / "RESULTS.md").read_text()

    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    options = ["--stage", "12", "--stop_stage", "13", "--inference_nj", "2"]
    run(*options, "--inference_tag", "two", PATH=path, cmd_backend="slurm")
    for name in ("text", "token_int", "skip_stats"):
        found = [(exp / tag / "test_clean" / name).read_bytes() for tag in ("one", "two")]
        assert found[0] == found[1], name
    calls = [
        line for line in (tmp_path / "calls").read_text().splitlines() if "asr_inference" in line
    ]
    assert len(calls) == 3, "two jobs, of which one lost its node"
    assert all(call.startswith("--export=ALL --ntasks=1 -p cpu ") for call in calls)


def test_an_update_is_measured() -> None:
    torch.manual_seed(0)
    model = estimate.build(REPO / "egs2/an4/asr1/conf/train_asr_conformer_debug.yaml", 20)
    cost = [estimate.update(model, utterances, 0.5) for utterances in (1, 4)]
    assert all(seconds > 0 and kept > 0 for seconds, kept in cost)
    growth = 4 * cost[1][1] / cost[0][1]
    assert 1.3 < growth < 4.1, "in proportion to the audio, but for the table of positions"
    assert all(parameter.grad is None for parameter in model.parameters())
