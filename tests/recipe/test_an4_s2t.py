"""egs2/an4/s2t1: windows in OWSM's form, the configuration, the counted FLOPs, the page."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import sys
from types import ModuleType

import pytest
import torch

from espnet_layerskip._compat import EBranchformerCTCEncoder
from espnet_layerskip.evaluation.flops import counted
from espnet_layerskip.files import DataDir, read_table
from tests.support.s2t import SYMBOLS, s2t_task

from .conftest import REPO, write_noise

RECIPE = REPO / "egs2/an4/s2t1"


def local(name: str) -> ModuleType:
    """Import a program of the recipe; its name may be that of another one elsewhere."""
    spec = importlib.util.spec_from_file_location(f"s2t1_{name}", RECIPE / f"local/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_windows_are_filled_and_every_third_holds_one_utterance():
    groups = local("windows").groups
    lengths = {str(i): 3.0 for i in range(8)}
    assert groups(lengths, 7.0, 0) == [["0", "1"], ["2", "3"], ["4", "5"], ["6", "7"]]
    assert groups(lengths, 7.0) == [["0", "1"], ["2", "3"], ["4"], ["5", "6"], ["7"]]
    with pytest.raises(ValueError, match=r"utterance 0 has 3\.0 s, more than a window of 2 s"):
        groups(lengths, 2.0)


def test_windows_in_owsms_form(tmp_path):
    windows = local("windows")
    assert windows.SYMBOLS == SYMBOLS
    utts = {"s1-a": "YES", "s1-b": "NO GO", "s1-c": "ONE", "s2-a": "TWO"}
    for utt in utts:
        write_noise(tmp_path / f"{utt}.wav")
    wav = {utt: str(tmp_path / f"{utt}.wav") for utt in utts}
    samples = len(windows.read(wav["s1-a"])[0])
    DataDir(wav, utts, {utt: utt[:2] for utt in utts}).save(tmp_path / "in")
    seconds = 2.5 * samples / 16000
    assert windows.join(tmp_path / "in", tmp_path / "out", seconds, 0) == 3
    out = DataDir.load(tmp_path / "out")
    assert out.text == {
        "s1-a": "<eng><asr><notimestamps> YES NO GO",
        "s1-c": "<eng><asr><notimestamps> ONE",
        "s2-a": "<eng><asr><notimestamps> TWO",
    }
    previous = {"s1-a": "<na>", "s1-c": "YES NO GO", "s2-a": "<na>"}
    assert read_table(tmp_path / "out/text.prev") == previous
    assert read_table(tmp_path / "out/text.ctc")["s1-a"] == "YES NO GO"
    assert len(windows.read(out.wav["s1-a"])[0]) == 2 * samples


def test_the_configuration_builds_and_encodes():
    if "use_sdpa" not in inspect.signature(EBranchformerCTCEncoder).parameters:
        pytest.skip("ESPnet 202511 has no prefix behind input_layer: conv2d")
    argv = ["--config", str(RECIPE / "conf/train_s2t_ctc.yaml"), "--output_dir", "x"]
    parsed = vars(s2t_task().get_parser().parse_args([*argv, "--token_list", "x"]))
    tokens = ["<blank>", "<unk>", *SYMBOLS, "A", "<sos>", "<eos>", "<sop>"]
    args = argparse.Namespace(**{**parsed, "token_list": tokens, "normalize": None})
    model = s2t_task().build_model(args).eval()
    one = torch.ones(1, dtype=torch.long)
    with torch.no_grad():
        (out, inter), lens = model.encode(
            torch.randn(1, 8000), 8000 * one, 2 * one[None], one, torch.tensor([[4, 5]]), 2 * one
        )
    assert out.shape == (1, int(lens), 96)
    assert [k for k, _ in inter] == [2, 4, 6]
    assert len(model.ctc_asr_only) == len(inter) + 1
    updates = parsed["max_epoch"] * 1032 / parsed["batch_size"]  # windows of AN4
    assert abs(updates - parsed["scheduler_conf"]["max_steps"]) < 60


def test_flops_are_those_of_a_real_pass(monkeypatch):
    speed = local("speed")
    small = {"output_size": 16, "cgmlp_linear_units": 24, "linear_units": 24, "attention_heads": 2}
    monkeypatch.setattr(speed, "CONF", {**speed.CONF, **small})
    monkeypatch.setattr(speed, "VOCABULARY", 9)
    encoder, ctc = speed.build(share_layers=True, layers=27)
    kept = []
    for gates, ratio in (((), 1.0), ((12,), 0.3), ((12, 15), 0.15)):
        run = speed.case(encoder, ctc, 10, gates, ratio, "packed")
        trace = run().trace
        kept.append(1.0 if trace is None else 1 - trace.skip_ratio())
        assert speed.count(run) == counted(run)[1] > 0
    assert kept == pytest.approx([1.0, 0.3, 0.15], abs=0.02)


def test_the_page_without_seconds(tmp_path):
    page = local("results_page")
    row = {"audio_s": 10, "gates": "none", "kept": 1.0, "context": "-", "flops": 4e9, "seconds": {}}
    data = {
        "environment": local("speed").environment_record(),
        "layers": 27,
        "share_layers": True,
        "peak_gib": 2.0,
        "subsampling_flops": {"10": 1e9},
        "rows": [row, {**row, "gates": "12", "kept": 0.3, "flops": 2e9}],
        "command": "python local/speed.py --threads",
    }
    text = "\n".join(page.speed(data))
    assert "| 10 | 12 | 30 | - | 2 | 2.00 |" in text
    assert "seconds were not measured" in text
