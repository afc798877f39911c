"""The page of what skipping costs on shifted copies."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import shift_page
from espnet_layerskip.evaluation.inputs import load_test_set
from espnet_layerskip.evaluation.shift_names import read_shifts
from espnet_layerskip.files import DataDir
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.settings import SkipSettings

from .conftest import make_data_dir


def test_only_utterances_of_known_words(tmp_path: Path) -> None:
    make_data_dir(tmp_path / "data", tmp_path / "audio", ["a-1", "a-2", "b-1", "b-2"])
    known = shift_page.known_words(tmp_path / "data", {"YES", "GO", "HOME"}, tmp_path / "kept")
    assert DataDir.load(known).text == {"a-1": "YES", "b-1": "GO HOME"}
    assert len(load_test_set(known).speech) == 2


def test_a_table_for_each_setting_and_a_row_for_each_condition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting loses every second utterance in noise, and none elsewhere."""
    make_data_dir(tmp_path / "data", tmp_path / "audio", [f"s{i}-{i}" for i in range(10)])
    monkeypatch.chdir(tmp_path)
    clean = {one.utt_id: one.samples for one in load_test_set("data").speech}

    def decode(group, data, progress):
        noisy = any((one.samples != clean[one.utt_id]).any() for one in data.speech)
        out = []
        for system in group:
            lost = len(data.text) // 2 if noisy and not system.settings.full_depth else 0
            hyps = {u: "XX" if i < lost else t for i, (u, t) in enumerate(data.text.items())}
            skipped = SkipCount(10, 0 if system.settings.full_depth else 5, 30, 40)
            out.append(SimpleNamespace(hyps=hyps, skipped=skipped, encoder_flops=1))
        return out

    settings = SkipSettings(0.9, (1, 1), "full", (1,), 1.0, 0.02, None, 0)
    encoder = SimpleNamespace(gate_layer_idx=[1], settings=settings)
    experiment = SimpleNamespace(
        encoder=encoder,
        checkpoint="x.pth",
        speech2text=SimpleNamespace(sample_rate=16000),
        model=SimpleNamespace(token_list=["YES"]),
    )
    monkeypatch.setattr(shift_page, "load_experiment", lambda exp: experiment)
    engine = sys.modules["espnet_layerskip.evaluation.calibrate"]
    monkeypatch.setattr(engine, "System", lambda ex, how: SimpleNamespace(settings=how))
    monkeypatch.setattr(engine, "one_pass_groups", lambda systems: [systems])
    monkeypatch.setattr(engine, "decode", decode)
    words = ["shift_page.py", "--exp", "x", "--data", "dev=data", "--shifts", "noise5", "--output"]
    words += ["S.md", "--setting", "as it is", "stored", "--setting", "other", "threshold=0.5"]
    monkeypatch.setattr(sys, "argv", words)
    shift_page.main()
    page = (tmp_path / "S.md").read_text(encoding="utf-8")
    assert "- command: `python shift_page.py --exp x --data dev=data" in page
    first, second = page.split("\n## ")[1:]
    assert first.startswith("as it is\n\n`threshold=0.9 extension=1,1 context=full gates=1`")
    assert "`threshold=0.5 extension=1,1" in second
    [noise] = [line for line in first.splitlines() if line.startswith("| dev, noise5 |")]
    assert noise.startswith("| dev, noise5 | 10 | 0.0 | 50.0 |")
    assert noise.endswith("| 50 % | no |")
    assert [one.name for one in read_shifts("noise5")] == ["noise5"]
