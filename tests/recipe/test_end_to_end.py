"""Stages 10-14 with ESPnet itself: statistics, training, going on, decoding, scores, archive."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import yaml

from espnet_layerskip.files import DataDir, read_table

from .conftest import RunRecipe, write_noise

pytestmark = pytest.mark.slow  # ESPnet's imports alone take seconds in every process

CONFIG = {
    "encoder": "layerskip_conformer",
    "encoder_conf": {
        "output_size": 16,
        "attention_heads": 2,
        "linear_units": 16,
        "num_blocks": 2,
        "cnn_module_kernel": 7,
        "rel_pos_type": "latest",
        "gate_layer_idx": [1],
    },
    "model": "layerskip",
    "model_conf": {"ctc_weight": 1.0, "interctc_weight": 0.3},
    "frontend_conf": {"n_fft": 256, "hop_length": 160, "n_mels": 20},
    "optim": "adam",
    "batch_type": "unsorted",
    "batch_size": 3,
    "max_epoch": 1,
    "num_workers": 0,
    "keep_nbest_models": 1,
    "use_matplotlib": False,
    "best_model_criterion": [["valid", "cer_ctc", "min"]],
}


def test_from_statistics_to_results(run_recipe: RunRecipe, recipe_dir: Path) -> None:
    for dset in ("train", "dev", "test"):
        for i, path in enumerate(DataDir.load(recipe_dir / "data" / dset).wav.values()):
            write_noise(Path(path), seconds=1.0, seed=i)
    (recipe_dir / "my conf").mkdir()
    (recipe_dir / "my conf/tiny.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    options = ["--asr_config", "my conf/tiny.yaml", "--ngpu", "0", "--inference_nj", "1"]
    options += ["--dumpdir", "my dump", "--expdir", "my exp"]  # spaces, as people's paths have
    options += ["--inference_args", "--decoder_type greedy", "--inference_tag", "greedy"]
    done = run_recipe("--stage", "3", "--stop_stage", "14", *options, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1epoch results: [train]" in done.stdout

    stats = recipe_dir / "my exp/asr_stats_raw_char"
    num_tokens = len((recipe_dir / "data/token_list/char/tokens.txt").read_text().splitlines())
    assert read_table(stats / "train/text_shape.char")["s0-train0"] == f"3,{num_tokens}"
    assert read_table(stats / "train/speech_shape")["s0-train0"] == "16000"

    exp = recipe_dir / "my exp/asr_tiny_raw_char"
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert config["frontend_conf"] == {"fs": "16k", **CONFIG["frontend_conf"]}
    assert set(read_table(exp / "greedy/test/text", allow_empty_value=True)) == set(
        DataDir.load(recipe_dir / "data/test").wav
    )
    assert set(read_table(exp / "greedy/test/skip_stats")) == {"s0-test0", "s0-test2", "s1-test1"}
    assert "|greedy/test|3|4|" in (exp / "RESULTS.md").read_text()
    with zipfile.ZipFile(exp / "asr_tiny_raw_char_valid.cer_ctc.ave.zip") as packed:
        names = packed.namelist()
    assert "meta.yaml" in names
    assert "my exp/asr_tiny_raw_char/config.yaml" in names
    assert "my exp/asr_stats_raw_char/train/feats_stats.npz" in names
    assert "data/token_list/char/tokens.txt" in names

    more = run_recipe(
        *("--stage", "11", "--stop_stage", "11", "--asr_exp", "my exp/asr_tiny_raw_char", *options),
        *("--asr_args", "--max_epoch 2"),
        OMP_NUM_THREADS="1",
    )
    assert more.returncode == 0, more.stdout + more.stderr
    assert "2epoch results: [train]" in more.stdout
    assert "1epoch results: [train]" not in more.stdout, "training goes on from the checkpoint"
    assert (exp / "train.1.log").is_file()
