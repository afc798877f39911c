"""tools/export_check.py: both runtimes agree on a small model, and a changed one is noticed."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "export_check.py"


@pytest.fixture
def tool(monkeypatch):
    spec = importlib.util.spec_from_file_location("export_check", SCRIPT)
    found = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, found)
    spec.loader.exec_module(found)
    return found


@pytest.mark.numerics
def test_table(tool, exps, data_dir, capsys):
    options = ["--precision", "float32", "--settings", "threshold=0.52"]
    tool.main(["--model", str(exps["ours"]), "--data", str(data_dir), *options])
    head, _, row = capsys.readouterr().out.splitlines()
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert 0 < int(cells["frames kept %"]) < 100
    assert cells["same frames"] == "8 of 8"
    assert cells["same transcripts"] == "8 of 8 / 8 of 8"
    assert all(float(d) < 1e-4 for d in cells["largest difference, on / off"].split(" / "))


def test_other_frames_and_texts_are_counted(tool, experiment, data, tmp_path):
    from espnet_layerskip.evaluation.onnx import OnnxSystem
    from espnet_layerskip.evaluation.systems import System
    from espnet_layerskip.export.write import export_model
    from espnet_layerskip.method.settings import OFF, SkipSettings

    few = SkipSettings(blank_threshold=0.52)
    export_model(System(experiment, few).speech2text, tmp_path / "few", longest=2.0)
    agreement = tool.Agreement()
    agreement.add(data.speech[0], System(experiment, OFF), OnnxSystem(tmp_path / "few", False))
    assert agreement.same_frames == 0
    assert agreement.kept == agreement.frames > 0
