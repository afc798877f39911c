"""ESPnet3 (in ESPnet 202611): the recipe egs3/an4/esp2_asr on the AN4 excerpt of ESPnet's wheel."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from .conftest import REPO

pytestmark = pytest.mark.slow
CONFIGS = {
    f"--{name}_config": f"conf/{name}.yaml"
    for name in ("training", "inference", "metrics", "publication")
}


def needed() -> str | None:
    """Return what is not installed; ESPnet3 trains with Lightning and infers with Dask."""
    names = ("espnet3", "egs3", "lightning", "dask", "distributed", "dask_jobqueue")
    return next((name for name in names if importlib.util.find_spec(name) is None), None)


def run(recipe: Path, launcher: list[str], *stages: str, **configs: str) -> None:
    """Run run.py in a process of its own, which may start others."""
    told = CONFIGS | {f"--{name}_config": path for name, path in configs.items()}
    options = [word for pair in told.items() for word in pair]
    env = {"AN4": "downloads/an4", "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, "run.py", "--stages", *stages, *options],
        cwd=recipe,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=1200,  # ESPnet imports slowly on a busy machine, and Dask's workers import it too
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe after create_dataset ... pack_model: a tiny model, two epochs."""
    if (missing := needed()) is not None:
        pytest.skip(f"ESPnet3 needs {missing}: pip install 'espnet[train]' on Python 3.12 or later")
    root = tmp_path_factory.mktemp("egs")
    (root / "egs2").symlink_to(REPO / "egs2")
    recipe = root / "egs3/an4/esp2_asr"
    shutil.copytree(REPO / "egs3/an4/esp2_asr", recipe)
    [wheel] = importlib.util.find_spec("egs3").submodule_search_locations
    with tarfile.open(Path(wheel) / "mini_an4/esp2_asr/downloads.tar.gz") as archive:
        archive.extractall(recipe, filter="data")
    config = yaml.safe_load((recipe / "conf/training.yaml").read_text())
    config["create_dataset"] |= {"ndev": 2, "num_train": 0, "num_test": 0}
    config["tokenizer"]["vocab_size"] = 20
    config["model"]["encoder_conf"] |= {
        "output_size": 16,
        "attention_heads": 2,
        "linear_units": 32,
        "num_blocks": 3,
        "interctc_layer_idx": [1],
        "gate_layer_idx": [1],
    }
    config["trainer"]["max_epochs"] = 2
    config["dataloader"]["train"]["iter_factory"]["batches"] = {"type": "unsorted", "batch_size": 2}
    (recipe / "conf/training.yaml").write_text(yaml.safe_dump(config))
    inference = (recipe / "conf/inference.yaml").read_text()
    (recipe / "conf/inference.yaml").write_text(inference.replace("3best", "1best"))
    for part, count in (("train", 3), ("valid", 2)):  # instead of collect_stats, which is slow
        shapes = recipe / "exp/stats" / part / "feats_shape"
        shapes.parent.mkdir(parents=True)
        shapes.write_text("".join(f"{i} 100,40\n" for i in range(count)))
    stages = ("create_dataset", "train_tokenizer", "train", "infer", "measure", "pack_model")
    run(recipe, [], *stages)
    return recipe


def test_training_is_ours(trained: Path) -> None:
    config = yaml.safe_load((trained / "exp/training/config.yaml").read_text())
    assert (config["encoder"], config["model"]) == ("layerskip_conformer", "layerskip")
    log = (trained / "exp/training/train.log").read_text()
    assert "loss_kd_blank_layer1" in log
    assert (trained / "exp/training/valid.loss.ave_1best.pth").is_file()


def test_inference_and_its_measures(trained: Path) -> None:
    found = trained / "exp/training/inference"
    assert len((found / "test/text.scp").read_text().splitlines()) == 2
    [wer] = json.loads((found / "metrics.json").read_text())[
        "espnet3.systems.esp2_asr.metrics.wer.WER"
    ].values()
    assert wer["WER"] >= 0.0


def test_the_launcher_registers_in_dasks_workers_too(trained: Path) -> None:
    """With ESPnet's own Speech2Text as ``_target_``, which names none of our modules."""
    config = yaml.safe_load((trained / "conf/inference.yaml").read_text())
    files = {k: config["model"][k] for k in ("asr_train_config", "asr_model_file")}
    target = "espnet2.bin.asr_inference.Speech2Text"
    config["model"] = {"_target_": target, **files, "beam_size": 1, "ctc_weight": 1.0}
    (trained / "conf/stock.yaml").write_text(yaml.safe_dump(config | {"batch_size": 1}))
    run(trained, ["-m", "espnet_layerskip"], "infer", inference="conf/stock.yaml")
    found = trained / "exp/training/stock/test/text.scp"
    assert len(found.read_text().splitlines()) == 2


def test_the_packed_model_runs_where_it_is_moved(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espnet3.publication import InferenceModel

    packed = shutil.move(trained / "exp/training/model_pack", tmp_path / "moved")
    monkeypatch.chdir(os.sep)
    with pytest.raises(ValueError, match="trust_user_code"):
        InferenceModel.from_packed(packed)  # it builds nothing of ours without being told to
    model = InferenceModel.from_packed(packed, trust_user_code=True, blank_threshold=0.3)
    assert model.model.asr_model.encoder.blank_threshold == 0.3
    noise = np.random.default_rng(0).standard_normal(9000).astype(np.float32) / 9
    assert isinstance(model(noise)["text"], str)
