"""The command ``espnet`` and ``espnet.load`` (ESPnet 202611) on our packed model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from .conftest import REPO, Forked

pytestmark = pytest.mark.slow
MODEL = REPO / "egs2/an4/asr1/pretrained/an4_layerskip.zip"


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A second of noise."""
    if importlib.util.find_spec("espnet2.bin.cli") is None:
        pytest.skip("this ESPnet has no command espnet")
    noise = np.random.default_rng(0).standard_normal(16000)
    soundfile.write(tmp_path / "a.wav", 0.01 * noise, 16000)
    return tmp_path / "a.wav"


def espnet(audio: Path, *words: str) -> Forked:
    """Start ``espnet WORDS`` by our launcher; models are unpacked into the test's folder."""
    args = ["-m", "espnet2.bin.cli", *words]
    return Forked(args, audio.parent, env={"HOME": str(audio.parent)})


def test_align(audio: Path) -> None:
    words = ("align", "a.wav", "--text", "YES", "--model", str(MODEL), "--device", "cpu")
    line = espnet(audio, *words).wait().splitlines()[-1].split("\t")
    assert len(line) == 4
    assert 0.0 <= float(line[0]) <= float(line[1]) <= 1.0
    assert line[3] == "YES"


def test_transcribe_takes_models_of_the_other_task_only(audio: Path) -> None:
    words = ("transcribe", "a.wav", "--model", str(MODEL), "--device", "cpu")
    said = espnet(audio, *words).wait(check=False)
    assert "asr_train_config" in said  # use `espnet-layerskip transcribe`


def test_load(audio: Path) -> None:
    code = (
        "import espnet, soundfile\n"
        f"model = espnet.load({str(MODEL)!r}, task='asr', ctc_weight=1.0, device='cpu')\n"
        "print(type(model.asr_model.encoder).__name__, model.beam_search.weights['ctc'])\n"
        "print('text:', model(soundfile.read('a.wav', dtype='float32')[0])[0][0])\n"
    )
    said = Forked(["-c", code], audio.parent, env={"HOME": str(audio.parent)}).wait()
    assert "LayerSkipConformerEncoder 1.0" in said
    assert "text:" in said
