"""Rows of a benchmark that run an exported model."""

import sys

import pytest
import torch

from espnet_layerskip.evaluation.contenders import (
    FULL,
    ON,
    ONNX_FULL,
    ONNX_ON,
    make_forms,
    make_onnx,
)
from espnet_layerskip.evaluation.measure import binders
from espnet_layerskip.evaluation.onnx import OnnxSystem
from espnet_layerskip.evaluation.rows import KEEP
from espnet_layerskip.evaluation.timing import num_threads


@pytest.fixture(scope="module")
def exported(experiment, tmp_path_factory):
    pytest.importorskip("onnx", reason="needs onnx (extra onnx)")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra onnx)")
    return make_onnx(experiment, KEEP, tmp_path_factory.mktemp("onnx") / "asr.onnx", 5.0)


@pytest.fixture(scope="module")
def eager(experiment):
    return make_forms(experiment, KEEP, {})


@pytest.mark.parametrize(("name", "same"), [(ONNX_ON, ON), (ONNX_FULL, FULL)])
def test_both_runtimes_do_the_same(name, same, exported, eager, data, tmp_path):
    onnx, ours, speech = exported[name].system, eager[same].system, data.speech[:2]
    bind = binders(tmp_path)
    assert onnx.skips_of(speech) == ours.skips_of(speech)
    assert (onnx.skips_of(speech).num_skipped > 0) == (name == ONNX_ON)
    assert bind["e2e"](onnx, speech)() == bind["e2e"](ours, speech)()
    assert onnx.transcribe(speech[0])[0] == ours.transcribe(speech[0])[0]
    log_probs, encoded = bind["model"](ours, speech)()
    for i, part in enumerate(bind["model"](onnx, speech)()):
        ran = (
            torch.from_numpy(part.log_probs)[part.keep_mask] if name == ONNX_ON else part.log_probs
        )
        mask = encoded.keep_mask[i, : len(part.log_probs)] if name == ONNX_ON else slice(len(ran))
        torch.testing.assert_close(
            torch.as_tensor(ran), log_probs[i, : len(part.log_probs)][mask], atol=1e-4, rtol=0.0
        )


def test_how_they_are_judged_and_described(exported):
    on, off = exported[ONNX_ON], exported[ONNX_FULL]
    assert (on.full_depth, on.reference) == (ONNX_FULL, ONNX_FULL)
    assert (off.full_depth, off.reference) == ("", FULL)
    assert on.system.describe().startswith("onnxruntime ")
    assert off.system.describe().endswith("threshold=1")


def test_it_runs_with_the_threads_of_pytorch_and_leaves_the_processor_as_it_was(exported, data):
    system = OnnxSystem(exported[ONNX_ON].system.folder, full_depth=False)
    tiny = torch.tensor([1e-39])
    for threads in (1, 2):
        with num_threads(threads):
            system.transcribe(data.speech[0])
            options = system.speech2text._session.get_session_options()
            assert options.intra_op_num_threads == threads
    assert (tiny * 0.5).item() > 0.0


def test_without_the_package_the_rows_say_so(experiment, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    rows = make_onnx(experiment, KEEP, tmp_path / "asr.onnx", 5.0)
    assert all("espnet_layerskip[onnx]" in row.system for row in rows.values())
