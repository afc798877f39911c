"""A training that was stopped leaves whole files and goes on."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typeguard import TypeCheckError

from espnet_layerskip.__main__ import main
from espnet_layerskip.training import resume, task
from espnet_layerskip.training.resume import (
    check_tokens,
    mend,
    own_config,
    tidy,
    told_plainly,
    whole_files,
)


def write_checkpoint(exp: Path, epoch: int = 3) -> dict[str, torch.Tensor]:
    model = {"w": torch.arange(4.0)}
    torch.save({"model": model, "reporter": {"stats": {}, "epoch": epoch}}, exp / "checkpoint.pth")
    return model


class Stopped:
    """Cannot be pickled: stands for a process that is stopped while it writes."""

    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


def test_a_save_that_is_stopped_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    with whole_files():
        torch.save({"a": 1}, file)
        with pytest.raises(KeyboardInterrupt):
            torch.save({"a": 2, "b": Stopped()}, file)
    assert torch.load(file) == {"a": 1}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has this device")
def test_a_full_disk_is_said_and_the_old_file_stays(tmp_path: Path) -> None:
    """PyTorch itself says "unexpected pos 576 vs 534"."""
    file = tmp_path / "checkpoint.pth"
    with whole_files():
        torch.save({"a": 1}, file)
        partial = tmp_path / f"checkpoint.pth.{os.getpid()}.partial"
        partial.symlink_to("/dev/full")
        with pytest.raises(OSError, match=r"No space left on device: .*checkpoint.pth"):
            torch.save({"a": torch.zeros(1000)}, file)
    assert torch.load(file) == {"a": 1}
    assert os.listdir(tmp_path) == ["checkpoint.pth"]


def test_pytorchs_own_words_do_not_hide_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where some of the file still has space, closing it says nothing."""

    def save(obj: Any, file: Any) -> None:
        file.file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        with file.file, pytest.raises(OSError, match="No space"):
            file.write(b"x")
        raise RuntimeError("unexpected pos 64 vs 0")

    message = "No space left on device: .*checkpoint.pth"
    with whole_files(), monkeypatch.context() as patch:
        patch.setattr(resume, "_SAVE", save)
        with pytest.raises(OSError, match=message):
            torch.save({}, tmp_path / "checkpoint.pth")
    assert not os.listdir(tmp_path)


def test_what_was_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pth.123.partial").write_bytes(b"half")
    (tmp_path / "checkpoint.pth").write_bytes(b"whole")
    tidy(tmp_path)
    assert os.listdir(tmp_path) == ["checkpoint.pth"]
    tidy(tmp_path / "not there")


@pytest.mark.parametrize(
    ("module", "safe"), [("espnet2.bin.lm_train", True), ("espnet2.bin.tokenize_text", False)]
)
def test_the_launcher_trains_language_models_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, safe: bool
) -> None:
    for name in ("register_in_children", "register_when_imported"):
        monkeypatch.setattr(f"espnet_layerskip.registry.{name}", lambda: None)
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", "x")
    monkeypatch.setattr(sys, "argv", [])
    saves: list[Any] = []
    monkeypatch.setattr(runpy, "run_module", lambda *_, **__: saves.append(torch.save))
    write_checkpoint(tmp_path)
    save = torch.save
    assert main(["-m", module, "--output_dir", str(tmp_path), "--resume", "true"]) == 0
    assert (saves[0] is not save) is safe
    assert (tmp_path / "3epoch.pth").exists() is safe
    assert torch.save is save


def test_torch_save_is_as_before_afterwards(tmp_path: Path) -> None:
    save = torch.save
    with whole_files():
        assert torch.save is not save
        with (tmp_path / "x").open("wb") as out:
            torch.save([1], out)
    assert torch.save is save
    assert torch.load(tmp_path / "x") == [1]


def test_parameters_of_the_last_epoch_are_taken_from_the_checkpoint(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path)
    mend(tmp_path)
    torch.testing.assert_close(torch.load(tmp_path / "3epoch.pth"), model)
    torch.save({"w": torch.zeros(4)}, tmp_path / "3epoch.pth")
    mend(tmp_path)
    assert torch.load(tmp_path / "3epoch.pth")["w"].sum() == 0, "what is there is left alone"


def test_nothing_to_mend_before_the_first_epoch(tmp_path: Path) -> None:
    mend(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"cut", None])
def test_a_damaged_checkpoint_is_said_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    write_checkpoint(tmp_path)
    file = tmp_path / "checkpoint.pth"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ValueError, match="checkpoint.pth cannot be read .* first epoch: rm -r "):
        mend(tmp_path)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            RuntimeError("Error(s) in loading state_dict for M:\n\tsize mismatch for ctc: 7"),
            "exp/checkpoint.pth .* of another model: size mismatch for ctc: 7; train it into",
        ),
        (TypeError("__init__() got an unexpected keyword argument 'foo'"), r"'foo' \(optim_conf\)"),
        (AssertionError("decoder should not be None"), "another: decoder should not be None"),
        (AssertionError(), "another: raise fault"),
        (TypeError("'<' not supported"), r"text .* model_conf: kd_blank_weight: '1e-1'; '<' not"),
        (TypeCheckError("lr is not a float"), "model_conf: kd_blank_weight: '1e-1'; lr is not"),
    ],
)
def test_other_options_do_not_spoil_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, message: str
) -> None:
    """ESPnet writes config.yaml, then looks whether it can go on."""
    as_text = "1e-1" in message
    exp = tmp_path / "exp"
    exp.mkdir()
    write_checkpoint(exp)
    (exp / "config.yaml").write_text("old")

    def worker(cls: Any, args: argparse.Namespace) -> None:
        (exp / "config.yaml").write_text("new")
        raise fault

    monkeypatch.setattr(task.ASRTask, "main_worker", classmethod(worker))
    args = argparse.Namespace(
        ngpu=0,
        resume=True,
        output_dir=str(exp),
        optim_conf={"foo": 1},
        model_conf={"kd_blank_weight": "1e-1", "ctc_type": "builtin"} if as_text else {},
    )
    with pytest.raises(ValueError, match=message):
        task.LayerSkipASRTask.main_worker(args)
    assert (exp / "config.yaml").read_text() == "old"


def test_the_config_of_what_was_trained_stays(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "config.yaml").write_text("old")

    @told_plainly(argparse.Namespace())
    @own_config(str(tmp_path))
    def train() -> None:
        (tmp_path / "config.yaml").write_text("new")
        write_checkpoint(tmp_path, 4)
        os.utime(tmp_path / "checkpoint.pth", (1, 1))
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        train()
    assert (tmp_path / "config.yaml").read_text() == "new"


@pytest.mark.parametrize(("rank", "text"), [(0, "old"), (1, "new")])
def test_the_config_stays_where_nothing_was_left_to_train(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    rank: int,
    text: str,
) -> None:
    """Another process than the first does not touch it: it may have read the new one."""
    write_checkpoint(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text("old")
    monkeypatch.setattr(
        task.ASRTask, "main_worker", classmethod(lambda cls, args: config.write_text("new"))
    )
    monkeypatch.setenv("RANK", str(rank))
    args = argparse.Namespace(ngpu=0, resume=False, output_dir=str(tmp_path), distributed=True)
    task.LayerSkipASRTask.main_worker(args)
    assert config.read_text() == text
    assert ("nothing was trained" in caplog.text) == (rank == 0)


@pytest.mark.parametrize(
    ("encoder_conf", "model_conf", "warned"),
    [
        ({"gate_layer_idx": [2]}, {}, True),
        ({"gate_layer_idx": [2]}, {"interctc_weight": 0.0, "kd_blank_weight": 0}, True),
        ({"gate_layer_idx": [2]}, {"interctc_weight": 0.3}, False),
        ({"gate_layer_idx": [2]}, {"kd_label_weight": 0.1}, False),
        ({}, {}, False),
    ],
)
def test_gates_that_nothing_trains_are_said(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    encoder_conf: dict[str, Any],
    model_conf: dict[str, Any],
    warned: bool,
) -> None:
    monkeypatch.setattr(task.ASRTask, "main_worker", classmethod(lambda cls, args: None))
    args = argparse.Namespace(
        ngpu=0, resume=False, output_dir=None, encoder_conf=encoder_conf, model_conf=model_conf
    )
    task.LayerSkipASRTask.main_worker(args)
    assert ("nothing trains the CTC head at the gates" in caplog.text) == warned


@pytest.mark.parametrize("as_file", [True, False])
def test_other_tokens_of_the_same_number_are_refused(tmp_path: Path, as_file: bool) -> None:
    tokens = ["<blank>", "<unk>", "A", "B", "<sos/eos>"]

    def listed(names: list[str]) -> Any:
        if not as_file:
            return names
        (tmp_path / "tokens.txt").write_text("\n".join(names) + "\n")
        return str(tmp_path / "tokens.txt")

    check_tokens(tmp_path, listed(tokens[::-1]))  # nothing is there yet
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"token_list": tokens}))
    check_tokens(tmp_path, listed(tokens[::-1]))  # nor was anything trained
    write_checkpoint(tmp_path)
    check_tokens(tmp_path, listed(tokens))
    swapped = ["<blank>", "<unk>", "B", "A", "<sos/eos>"]
    with pytest.raises(ValueError, match="token 2 is 'B', was 'A'"):
        check_tokens(tmp_path, listed(swapped))


def test_an_assertion_within_an_epoch_is_no_matter_of_options() -> None:
    def train_one_epoch() -> None:
        raise AssertionError("loss of one utterance")

    with pytest.raises(AssertionError, match="loss of"), told_plainly(argparse.Namespace()):
        train_one_epoch()
