import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from espnet_layerskip.evaluation.report.collect import (
    check_experiment,
    choose,
    find_data,
    typical,
)

REPO = Path(__file__).parents[3]
GATED = {"encoder": "layerskip_conformer", "encoder_conf": {"gate_layer_idx": [4]}}


def experiment(directory, config, files=("valid.cer_ctc.ave.pth",)):
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    for name in files:
        (directory / name).touch()
    return directory


def test_a_gated_experiment_is_taken(tmp_path):
    assert check_experiment(experiment(tmp_path / "exp", GATED))["encoder_conf"]


@pytest.mark.parametrize(
    ("config", "files", "message"),
    [
        ({"encoder": "conformer"}, (), "encoder: conformer without a gate.*--compare"),
        (["a"], (), "a mapping is needed"),
        ("a: [", (), "config.yaml is not a YAML file of plain values"),
        (
            GATED,
            ("checkpoint.pth", "3epoch.pth"),
            "training was interrupted.*stage 11.*--model-file 3epoch.pth",
        ),
    ],
)
def test_what_cannot_be_reported_on(tmp_path, config, files, message):
    exp = experiment(tmp_path / "exp", config, files)
    if isinstance(config, str):
        (exp / "config.yaml").write_text(config)
    with pytest.raises(ValueError, match=message):
        check_experiment(exp)


def test_a_packed_model_is_taken():
    packed = REPO / "egs2/an4/asr1/pretrained/an4_layerskip.zip"
    assert check_experiment(packed)["encoder_conf"]["gate_layer_idx"] == [3]
    with pytest.raises(ValueError, match="no checkpoint 3epoch.pth"):
        check_experiment(packed, "3epoch.pth")


def test_no_experiment(tmp_path):
    with pytest.raises(ValueError, match="no .*config.yaml; train it first"):
        check_experiment(tmp_path)


def test_an_interrupted_training_with_a_named_checkpoint(tmp_path):
    exp = experiment(tmp_path / "exp", GATED, ("checkpoint.pth", "3epoch.pth"))
    assert check_experiment(exp, "3epoch.pth")


def test_test_set_of_the_recipe(tmp_path, monkeypatch):
    config = {"valid_data_path_and_name_and_type": [["dump/raw/dev/wav.scp", "speech", "sound"]]}
    exp = tmp_path / "recipe" / "exp" / "asr"
    exp.mkdir(parents=True)
    with pytest.raises(ValueError, match="looked for dump/raw/test.*--data DIR"):
        find_data(exp, config)
    test_set = tmp_path / "recipe" / "dump/raw/test"
    test_set.mkdir(parents=True)
    (test_set / "wav.scp").touch()
    assert find_data(exp, config).samefile(test_set)
    with pytest.raises(ValueError, match="--data DIR"):
        find_data(exp, {})


def test_utterances_to_look_at(trace_maker):
    def trace(utt_id, text_on, skipped):
        made = trace_maker(utt_id, text_on=text_on)
        keep = np.arange(made.num_frames) >= skipped
        gate = dataclasses.replace(made.gates[0], keep_mask=keep)
        return dataclasses.replace(made, gates=[gate])

    same = [trace(f"same{n}", "A B", n) for n in (5, 10, 20)]
    found = choose(same, [])
    assert [t.utt_id for t, _ in found] == ["same10", "same5", "same20"]
    typical, *rest = [why for _, why in found]
    assert (
        "medians of duration (3.0 s), frames skipped (13 %) and tokens per second (6.0)" in typical
    )
    assert rest == ["The fewest frames skipped.", "The most frames skipped."]
    damaged = [*same, trace("damaged", "A", 30), trace("worse", "", 7)]
    assert [(t.utt_id, why.split(":")[0]) for t, why in choose(damaged, [])] == [
        ("worse", "Skipping damaged its text."),
        ("same10", "A typical utterance"),
        ("same5", "The fewest frames skipped."),
        ("damaged", "The most frames skipped."),
    ]
    asked = choose(same, ["same20", "same5", "same20"])
    assert [t.utt_id for t, _ in asked] == ["same20", "same5"]
    assert [t.utt_id for t, _ in choose(same[:1], [])] == ["same5"]


def test_a_typical_utterance_is_typical_in_each_way(trace_maker):
    """The median share of skipped frames alone would take one of odd length."""

    def trace(utt_id, seconds, skipped):
        made = trace_maker(utt_id, seconds)
        keep = np.arange(made.num_frames) >= skipped * made.num_frames
        return dataclasses.replace(
            made, gates=[dataclasses.replace(made.gates[0], keep_mask=keep)], num_ref_tokens=6
        )

    lengths = {"a": 1.0, "b": 2.0, "d": 3.0, "c": 4.0, "e": 9.0}
    shares = {"a": 0.2, "b": 0.3, "e": 0.4, "d": 0.44, "c": 0.8}
    chosen, _ = typical([trace(name, lengths[name], shares[name]) for name in lengths])
    assert chosen.utt_id == "d"
    assert sorted(shares, key=shares.get)[2] == "e"
