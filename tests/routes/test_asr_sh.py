"""ESPnet's own asr.sh with ``--python "python3 -m espnet_layerskip"``: the commands it runs.

They are those of stages 10 to 14 for ``--ngpu 0 --token_type char --use_lm false``, as ESPnet's
egs2/TEMPLATE/asr1/asr.sh makes them: ``${python}`` stands unquoted, so it becomes three words,
also inside the command that ``espnet2.bin.launch`` passes on to ``run.pl``.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from .conftest import Recipe, training, write_yaml

pytestmark = pytest.mark.slow

NAMES = """
python="python3 -m espnet_layerskip"
stats=exp/asr_stats_raw_char; exp=exp/asr_train_raw_char; logdir=${stats}/logdir
"""
COLLECT = """
mkdir -p ${logdir}
cp dump/raw/train/wav.scp ${logdir}/train.1.scp; cp dump/raw/dev/wav.scp ${logdir}/valid.1.scp
run.pl JOB=1:1 ${logdir}/stats.JOB.log \\
    ${python} -m espnet2.bin.asr_train --collect_stats true --use_preprocessor true \\
    --bpemodel none --token_type char --token_list data/token_list/char/tokens.txt \\
    --non_linguistic_symbols none --cleaner none --g2p none \\
    --train_data_path_and_name_and_type dump/raw/train/wav.scp,speech,sound \\
    --train_data_path_and_name_and_type dump/raw/train/text,text,text \\
    --valid_data_path_and_name_and_type dump/raw/dev/wav.scp,speech,sound \\
    --valid_data_path_and_name_and_type dump/raw/dev/text,text,text \\
    --train_shape_file ${logdir}/train.JOB.scp --valid_shape_file ${logdir}/valid.JOB.scp \\
    --output_dir ${logdir}/stats.JOB --config conf/train.yaml --frontend_conf fs=16k
"""
AGGREGATE = """
${python} -m espnet2.bin.aggregate_stats_dirs --input_dir ${logdir}/stats.1 --output_dir ${stats}
"""
TRAIN = """
for part in train valid; do
    awk -v N=30 '{ print $0 "," N }' <${stats}/${part}/text_shape >${stats}/${part}/text_shape.char
done
mkdir -p ${exp}
${python} -m espnet2.bin.launch --cmd "run.pl --name ${exp}/train.log" --log ${exp}/train.log \\
    --ngpu 0 --num_nodes 1 --init_file_prefix ${exp}/.dist_init_ \\
    --multiprocessing_distributed true -- \\
    ${python} -m espnet2.bin.asr_train --use_preprocessor true --bpemodel none \\
    --token_type char --token_list data/token_list/char/tokens.txt \\
    --non_linguistic_symbols none --cleaner none --g2p none \\
    --valid_data_path_and_name_and_type dump/raw/dev/wav.scp,speech,sound \\
    --valid_data_path_and_name_and_type dump/raw/dev/text,text,text \\
    --valid_shape_file ${stats}/valid/speech_shape \\
    --valid_shape_file ${stats}/valid/text_shape.char \\
    --resume true --init_param --ignore_init_mismatch false \\
    --fold_length 80000 --fold_length 150 --output_dir ${exp} \\
    --config conf/train.yaml --frontend_conf fs=16k \\
    --normalize=global_mvn --normalize_conf stats_file=${stats}/train/feats_stats.npz \\
    --train_data_path_and_name_and_type dump/raw/train/wav.scp,speech,sound \\
    --train_data_path_and_name_and_type dump/raw/train/text,text,text \\
    --train_shape_file ${stats}/train/speech_shape \\
    --train_shape_file ${stats}/train/text_shape.char
"""
DECODE = """
log=${exp}/inference/test/logdir; mkdir -p ${log}; cp dump/raw/test/wav.scp ${log}/keys.1.scp
run.pl --gpu 0 JOB=1:1 ${log}/asr_inference.JOB.log \\
    ${python} -m espnet2.bin.asr_inference --batch_size 1 --ngpu 0 \\
    --data_path_and_name_and_type dump/raw/test/wav.scp,speech,sound \\
    --key_file ${log}/keys.JOB.scp --asr_train_config ${exp}/config.yaml \\
    --asr_model_file ${exp}/valid.loss.ave.pth --output_dir ${log}/output.JOB \\
    --config conf/decode.yaml
"""
TOKENIZE = """
<dump/raw/test/text ${python} -m espnet2.bin.tokenize_text -f 2- --input - --output - \\
    --token_type char --non_linguistic_symbols none --remove_non_linguistic_symbols true \\
    --cleaner none
"""
PACK = """
echo "# RESULTS" > ${exp}/RESULTS.md; mkdir -p ${exp}/images
${python} -m espnet2.bin.pack asr --asr_train_config ${exp}/config.yaml \\
    --asr_model_file ${exp}/valid.loss.ave.pth --option ${stats}/train/feats_stats.npz \\
    --option ${exp}/RESULTS.md --option ${exp}/RESULTS.md --option ${exp}/images \\
    --outpath ${exp}/packed.zip
"""


@pytest.fixture(scope="module")
def done(recipe: Recipe) -> Recipe:
    """The recipe after stages 10, 11, 12 and 14."""
    write_yaml(recipe.root / "conf/train.yaml", training(use_matplotlib=True))
    decode = {"beam_size": 2, "ctc_weight": 1.0, "maxlenratio": 0.5}
    write_yaml(recipe.root / "conf/decode.yaml", decode)
    for script in (COLLECT, AGGREGATE, TRAIN, DECODE, PACK):
        recipe.run(NAMES + script)
    return recipe


def test_stages_10_and_11_train_our_model(done: Recipe) -> None:
    exp = done.root / "exp/asr_train_raw_char"
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert (config["encoder"], config["model"]) == ("layerskip_conformer", "layerskip")
    assert config["encoder_conf"]["gate_layer_idx"] == [1]
    assert config["normalize_conf"]["stats_file"].endswith("feats_stats.npz")
    state = torch.load(exp / "checkpoint.pth", weights_only=False)
    losses = [epoch["train"]["loss"] for epoch in state["reporter"]["stats"].values()]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)


def test_children_of_stage_11_would_know_our_classes(done: Recipe) -> None:
    """Of a training on several GPUs: they get the task's ``main_worker`` by its name."""
    import pickle

    from espnet_layerskip.training.task import LayerSkipASRTask

    assert b"espnet_layerskip.training.task" in pickle.dumps(LayerSkipASRTask.main_worker)
    stages = [log.read_text() for log in done.root.glob("fork*.log")]
    [trained] = [log for log in stages if "1/1epoch started" in log]
    assert "espnet_layerskip/bin/asr_train.py" in trained


def test_stage_12_decodes_every_utterance(done: Recipe) -> None:
    log = done.root / "exp/asr_train_raw_char/inference/test/logdir"
    text = (log / "output.1/1best_recog/text").read_text().splitlines()
    assert [line.split()[0] for line in text] == ["s0-test0", "s1-test1"]


def test_stage_13_tokenizes(done: Recipe) -> None:
    [call] = done.shell(NAMES + TOKENIZE)
    said = done.fork(call, stdin=done.root / "dump/raw/test/text").wait()
    assert {"Y E S", "N O"} <= set(said.splitlines())


def test_stage_14_packs_a_model_that_we_read_elsewhere(
    done: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espnet_layerskip import Speech2Text

    packed = done.root / "exp/asr_train_raw_char/packed.zip"
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
    assert "exp/asr_stats_raw_char/train/feats_stats.npz" in names
    monkeypatch.chdir(tmp_path)
    found = Speech2Text.from_pretrained(packed, decoder_type="greedy")
    wave = torch.randn(16000).numpy()
    assert isinstance(found(wave)[0][0], str)
