"""A report made once from tiny random models, and synthetic traces for the figures."""

import numpy as np
import pytest

from espnet_layerskip.evaluation.report.traces import GateDecision, Trace


@pytest.fixture(scope="session")
def report(data_dir, exps, tmp_path_factory):
    """Folder of a report on "ours" against a stock experiment; the training has a log."""
    from espnet_layerskip.cli import main

    exp = exps["ours2"]
    (exp / "train.log").write_text(
        "INFO: 1epoch results: [train] loss_ctc=9.5, loss=9.0, [valid] loss=8.0, cer_ctc=0.9\n"
        "INFO: 2epoch results: [train] loss_ctc=7.5, loss=7.0, [valid] loss=7.5, cer_ctc=0.8\n"
    )
    output = tmp_path_factory.mktemp("report") / "out"
    status = main(
        [
            *("report", "--exp", str(exp), "--compare", f"stock twin={exps['stock']}"),
            *("--data", str(data_dir), "--output", str(output)),
        ]
    )
    assert status == 0
    return output


def make_trace(utt_id="u1", seconds=3.0, seed=0, gates=1, text_on="A B", text_off="A B", ref="A B"):
    """Return a made-up trace: p(blank) near 0 or 1, one token for every fourth frame."""
    rng = np.random.default_rng(seed)
    num_frames = int(seconds * 25)
    blank = rng.random(num_frames) < 0.6
    prob = np.where(blank, rng.beta(30, 1, num_frames), rng.beta(1, 30, num_frames))
    keep, seen, decisions = np.ones(num_frames, bool), np.ones(num_frames, bool), []
    for i in range(gates):
        keep = seen & ~(prob > 0.9)
        decisions.append(GateDecision(2 * (i + 1), prob.astype(np.float32), seen, keep))
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
        num_layers=8,
        threshold=0.9,
        num_repeats=0,
    )


@pytest.fixture
def trace_maker():
    """The function that makes a made-up trace."""
    return make_trace


@pytest.fixture
def traces():
    return [make_trace(f"u{i}", 2.0 + 0.2 * i, seed=i) for i in range(8)]
