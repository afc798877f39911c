"""A training that was stopped leaves whole files and goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from espnet_layerskip.training.resume import mend, whole_files


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


def test_threads_that_train_leave_torch_save_as_it_was(tmp_path: Path) -> None:
    save, both, done = torch.save, threading.Barrier(2), threading.Event()

    def first() -> None:
        with whole_files():
            both.wait()
            both.wait()
        done.set()

    thread = threading.Thread(target=first)
    thread.start()
    both.wait()
    with whole_files():
        both.wait()
        done.wait(10)
        with pytest.raises(KeyboardInterrupt):  # the other one's end is not this one's
            torch.save({"b": Stopped()}, tmp_path / "checkpoint.pth")
        assert not (tmp_path / "checkpoint.pth").exists()
    thread.join()
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
