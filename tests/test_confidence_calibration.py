"""The temperature of confidences that the tool finds."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

TOOL = Path(__file__).parents[1] / "tools/confidence_calibration.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("confidence_calibration", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(folder, name, confidences, right):
    """Transcripts of one word each, and the reference that makes so many of them right."""
    lines = [
        {"utt_id": f"u{i}", "words": [{"word": "A", "confidence": p}]}
        for i, p in enumerate(confidences)
    ]
    lines.append({"utt_id": "none", "words": []})
    (folder / f"{name}.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = "".join(f"u{i} {'A' if hit else 'B'}\n" for i, hit in enumerate(right))
    (folder / name).write_text(f"{text}none C\n")
    return [str(folder / f"{name}.json"), str(folder / name)]


def test_the_temperature_that_made_them_too_sure_is_found(tool, tmp_path, capsys):
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 1.0, 4000)
    right = rng.random(4000) < true
    sure = tool.tempered(true, 0.5)  # logits are twice what they should be
    fit = write(tmp_path, "dev", sure[:3000], right[:3000])
    tool.main(["--fit", *fit, "--on", *write(tmp_path, "test", sure[3000:], right[3000:])])
    words, before, after = capsys.readouterr().out.splitlines()
    assert words.startswith("1000 words, ")
    assert float(words.split()[-1]) == pytest.approx(2.0, rel=0.1)
    errors = [float(line.split("ECE ")[1].split()[0]) for line in (before, after)]
    assert errors[0] > 8 > 5 > errors[1]
