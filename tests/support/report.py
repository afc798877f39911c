"""A report made once from tiny random models; made-up traces and points for figures and page."""

import fcntl
import os

import numpy as np
import pytest

LONG_NAME = "asr_train_asr_layerskip_e_branchformer_raw_en_bpe500_sp_seed12"


@pytest.fixture(scope="session")
def report(data_dir, exps, tmp_path_factory):
    """Folder of a report on "ours" against a stock experiment; the training has a log.

    The first process of the tests that needs it makes it, for all of them.
    """
    base = tmp_path_factory.getbasetemp()
    output = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared_report"
    with open(output.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made := output.with_suffix(".made")).exists():
            make_report(data_dir, exps, output)
            made.touch()
    return output


def make_report(data_dir, exps, output):
    """Write the report."""
    from espnet_layerskip.cli import main

    exp = exps["ours2"]
    (exp / "train.log").write_text(
        "INFO: 1epoch results: [train] loss_ctc=9.5, loss=9.0, [valid] loss=8.0, cer_ctc=0.9\n"
        "INFO: 2epoch results: [train] loss_ctc=7.5, loss=7.0, [valid] loss=7.5, cer_ctc=0.8\n"
    )
    status = main(
        [
            *("report", "--exp", str(exp), "--compare", f"stock twin={exps['stock']}"),
            *("--data", str(data_dir), "--output", str(output)),
        ]
    )
    assert status == 0


def make_trace(utt_id="u1", seconds=3.0, seed=0, gates=1, text_on="A B", text_off="A B", ref="A B"):
    """Return a made-up trace: p(blank) near 0 or 1, one token for every fourth frame."""
    from espnet_layerskip.evaluation.report.traces import GateDecision, Trace

    rng = np.random.default_rng(seed)
    num_frames = int(seconds * 25)
    blank = rng.random(num_frames) < 0.6
    prob = np.where(blank, rng.beta(30, 1, num_frames), rng.beta(1, 30, num_frames))
    keep, seen, decisions = np.ones(num_frames, bool), np.ones(num_frames, bool), []
    for i in range(gates):
        keep = seen & ~(prob > 0.9)
        decisions.append(GateDecision(2 * (i + 1), 0.9, prob.astype(np.float32), seen, keep))
        seen = keep
    depth = np.where(keep, 8, 2 * gates)
    flipped = rng.random(num_frames) < 0.02
    return Trace(
        utt_id=utt_id,
        seconds=seconds,
        frame_seconds=0.04,
        hop_seconds=0.01,
        ref=ref,
        num_ref_tokens=max(1, num_frames // 4),
        text_on=text_on,
        text_off=text_off,
        gates=decisions,
        depth=depth,
        final_blank_prob=np.where(flipped, 1 - prob, prob).astype(np.float32),
        final_is_blank=blank ^ flipped,
        spikes=[(f, "EWM"[f % 3], 0.9) for f in range(0, num_frames, 4)],
        spikes_off=[(f, "EWM"[f % 3], 0.8) for f in range(0, num_frames, 4)],
        num_layers=8,
        num_repeats=0,
    )


@pytest.fixture
def trace_maker():
    """The function that makes a made-up trace."""
    return make_trace


@pytest.fixture
def traces():
    return [make_trace(f"u{i}", 2.0 + 0.2 * i, seed=i) for i in range(8)]


def make_point(name, kind, wer=10.0, gflops=1.0, own=True, settings=None, skip_ratio=0.4):
    """Return a made-up row; its status is "ok"."""
    from espnet_layerskip.evaluation.report.sweep import (
        EXIT_KIND,
        OFF_KIND,
        OFF_NAME,
        STOCK_KIND,
        Point,
    )
    from espnet_layerskip.evaluation.scoring import Interval
    from espnet_layerskip.method.settings import SkipSettings

    return Point(
        name=name,
        kind=kind,
        own=own,
        settings=settings or SkipSettings(1.0, (0, 0), "full"),
        wer=Interval(wer, wer - 2.5, wer + 2.5),
        change=Interval(wer - 10.0, wer - 11.0, wer - 9.0),
        gflops=gflops,
        time_ms=Interval(4 * gflops, 3.9 * gflops, 4.5 * gflops),
        skip_ratio=skip_ratio,
        record={
            "name": name,
            "off": None if kind in (OFF_KIND, STOCK_KIND) else OFF_NAME,
            "stops": kind == EXIT_KIND,
            "wer": [wer],
            "cer": [wer / 2],
            "skip_ratio": skip_ratio,
            "ceiling": skip_ratio / 2,
            "encoder_time_per_second": {"median_ms": 4 * gflops},
            "status": "ok",
        },
    )


@pytest.fixture
def points():
    from espnet_layerskip.evaluation.report import sweep
    from espnet_layerskip.method.settings import SkipSettings

    swept = [
        make_point(
            f"threshold {t:g}, extension {e},{e}",
            sweep.SWEEP_KIND,
            10.0 + 0.1 * i,
            0.9 + 0.03 * e + 0.01 * i,
            settings=SkipSettings(t, (e, e), "full"),
        )
        for e in range(3)
        for i, t in enumerate((0.5, 0.8, 0.95, 0.99))
    ]
    on = SkipSettings(0.9, (0, 0), "full")
    return [
        make_point(sweep.OFF_NAME, sweep.OFF_KIND, skip_ratio=0.0),
        make_point(sweep.ON_NAME, sweep.ON_KIND, 10.1, 0.91, settings=on),
        make_point("stopped at layer 4", sweep.EXIT_KIND, 14.0, 0.6),
        *swept,
        make_point("stock twin", sweep.STOCK_KIND, 9.6, 1.02, own=False),
        make_point(f"{LONG_NAME}, skipping on", sweep.ON_KIND, 9.9, 0.8, own=False),
    ]
