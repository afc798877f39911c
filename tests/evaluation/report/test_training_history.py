import datetime

import numpy as np
import pytest
import torch

from espnet_layerskip.evaluation.report.training_history import load_history

LINE = (
    "[host] 2026-01-01 00:00:00,000 (trainer:394) INFO: {epoch}epoch results: [train] "
    "iter_time=0.007, loss_ctc={loss}, optim0_lr0=5.257e-05, time=1 minute and 29.27 seconds, "
    "total_count=2704, [valid] loss_att=nan, cer_ctc=0.121, time=3.69 seconds, total_count=112\n"
)


def checkpoint(epochs, **more):
    stats = {
        e: {
            "train": {
                "loss_ctc": np.float64(10.0 / e),
                "time": datetime.timedelta(seconds=1),
                "total_count": 5,
            },
            "valid": {"cer_ctc": np.float32(0.5), "loss_att": float("nan")},
        }
        for e in epochs
    }
    return {"model": {}, "reporter": {"stats": stats, "epoch": max(epochs)}, **more}


def test_reporter_state_has_every_epoch(tmp_path):
    torch.save(checkpoint(range(1, 5)), tmp_path / "checkpoint.pth")
    (tmp_path / "train.log").write_text(LINE.format(epoch=4, loss=99.0))
    history = load_history(tmp_path, 4)
    assert history.source == "checkpoint.pth"
    assert history.curves["train"]["loss_ctc"] == {1: 10.0, 2: 5.0, 3: 10.0 / 3, 4: 2.5}
    assert history.curves["valid"]["cer_ctc"] == dict.fromkeys(range(1, 5), 0.5)
    assert "loss_att" not in history.curves["valid"]  # NaN
    assert history.incomplete == ""


def test_logs_of_several_starts(tmp_path):
    """train.1.log is older than train.log; an epoch that both have is the newer start's."""
    (tmp_path / "train.1.log").write_text(
        LINE.format(epoch=1, loss=9.0) + LINE.format(epoch=2, loss=8.0)
    )
    (tmp_path / "train.log").write_text(
        LINE.format(epoch=2, loss=7.0) + LINE.format(epoch=3, loss=6.0)
    )
    history = load_history(tmp_path, 10)
    assert history.curves["train"]["loss_ctc"] == {1: 9.0, 2: 7.0, 3: 6.0}
    assert "stopped after epoch 3 of 10" in history.incomplete


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_damaged_checkpoint_leaves_the_log(tmp_path, content):
    (tmp_path / "checkpoint.pth").write_bytes(content)
    (tmp_path / "train.log").write_text(LINE.format(epoch=1, loss=9.0))
    assert load_history(tmp_path).last_epoch == 1


def test_checkpoint_with_code_in_it_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "evil"), "w"))

    torch.save(checkpoint([1], extra=Evil()), tmp_path / "checkpoint.pth")
    assert load_history(tmp_path).last_epoch == 0
    assert not (tmp_path / "evil").exists()


def test_another_experiment_stands_in_for_one_without_numbers(tmp_path):
    ours, empty, stock = (tmp_path / name for name in ("asr_retrofit", "asr_empty", "asr_stock"))
    for folder in (ours, empty, stock):
        folder.mkdir()
    (stock / "train.log").write_text(LINE.format(epoch=1, loss=9.0))
    history = load_history(ours, 4, [ours, empty, stock])
    assert history.curves["train"]["loss_ctc"] == {1: 9.0}
    assert history.source == "train.log of asr_stock, since asr_retrofit has none of its own"
    assert history.incomplete == "", "the other one's length is not known"
    (ours / "train.log").write_text(LINE.format(epoch=1, loss=8.0))
    assert load_history(ours, 4, [stock]).curves["train"]["loss_ctc"] == {1: 8.0}


def test_nothing_to_read(tmp_path):
    history = load_history(tmp_path, 5)
    assert history.last_epoch == 0
    assert history.incomplete == ""
