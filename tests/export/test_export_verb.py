"""The verb that exports, and ``transcribe`` on what it wrote, without PyTorch and ESPnet."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import espnet_layerskip
from espnet_layerskip.cli import main
from espnet_layerskip.export import Speech2Text
from espnet_layerskip.export.folder import DESCRIPTION, read_description
from espnet_layerskip.files import DataDir
from espnet_layerskip.inference.audio import Utterance, read_audio
from espnet_layerskip.inference.speech2text import load_model

ROOT = Path(espnet_layerskip.__file__).parents[1]
AN4 = ROOT / "egs2" / "an4" / "asr1"

# Runs transcribe, and says which of the heavy packages were imported.
WITHOUT = """
import sys
for name in ("torch", "espnet2", "espnet", "librosa", "onnx", "soxr"):
    sys.modules[name] = None  # an import raises
from espnet_layerskip.cli import main
status = main(["transcribe", *sys.argv[1:]])
print(sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "torchaudio",
      "espnet2", "espnet") and sys.modules[name] is not None), file=sys.stderr)
sys.exit(status)
"""


def export(model, output, *args):
    return main(["export", "--model", str(model), "--output", str(output), *args])


def transcribe(*args):
    return main(["transcribe", *map(str, args)])


def test_an_output_that_cannot_be_made_is_refused_at_once(models, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert export(models["skip"], tmp_path / "file" / "asr.onnx") == 2
    assert "error: --output" in capsys.readouterr().err


def test_export_and_transcribe(models, corpus, capsys, tmp_path):
    output = tmp_path / "new" / "asr.onnx"
    assert export(models["skip"], output) == 0
    assert '"gates": [1, 2]' in capsys.readouterr().out
    assert [p.name for p in output.parent.iterdir()] == ["asr.onnx"]  # nothing is left over
    for args in ([], ["--batch-size", "3"], ["--decoder", "prefix_beam", "--beam-size", "4"]):
        found = [
            transcribe("--model", model, "--wav-scp", corpus.bad, "--stats", stats, *args)
            for model, stats in ((models["skip"], tmp_path / "a"), (output, tmp_path / "b"))
        ]
        assert found == [1, 1]  # some of the files are damaged
        out = capsys.readouterr().out.splitlines()
        assert len(out) == 6
        assert out[:3] == out[3:]
        expected, got = (json.loads((tmp_path / name).read_text()) for name in ("a", "b"))
        assert got.keys() == expected.keys()
        for name in ("skip_ratio", "failed", "utterances", "audio_seconds"):
            assert got[name] == expected[name]


@pytest.mark.slow
def test_without_pytorch_and_espnet(models, exported, corpus, capsys, tmp_path):
    args = ["--wav-scp", corpus.good, "--times", tmp_path / "ctm"]
    assert transcribe("--model", models["skip"], *args) == 0
    expected, ctm = capsys.readouterr().out, (tmp_path / "ctm").read_text()
    for decoder in ("greedy", "prefix_beam"):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT, "--model", exported, "--decoder", decoder, *args],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[-1] == "[]"
        if decoder == "greedy":
            assert done.stdout == expected
            assert (tmp_path / "ctm").read_text() == ctm


def test_nothing_is_overwritten(models, tmp_path, capsys):
    output = tmp_path / "asr.onnx"
    assert export(models["stock"], output) == 0
    assert not read_description(output).gates
    before = (output / DESCRIPTION).read_text()
    assert export(models["skip"], output) == 2
    assert (
        "is there: choose another --output, or replace it with --force" in capsys.readouterr().err
    )
    assert (output / DESCRIPTION).read_text() == before
    assert export(models["skip"], output, "--force") == 0
    assert read_description(output).gates == [1, 2]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    assert export(models["skip"], tmp_path / "mine", "--force") == 2
    assert "is no exported model" in capsys.readouterr().err
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_a_model_without_gates(models, tmp_path, waves):
    output = tmp_path / "asr.onnx"
    assert export(models["stock"], output) == 0
    eager = load_model(models["stock"], decoder_type="greedy")
    found = Speech2Text(output, blank_threshold="off").recognize(waves)
    assert [f.nbest[0][:3] for f in found] == [e.nbest[0][:3] for e in eager.recognize(waves)]
    for option in ({"blank_threshold": 0.5}, {"spike_extension": "1,1"}):
        with pytest.raises(ValueError, match=r"=\S+ needs gates, and the model has none"):
            Speech2Text(output, **option)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--longest", "0"], "--longest must be from 1 to 3600"),
        (["--longest", "1"], "longest must be at least 1.024 s for this model, but got 1 s"),
        (["--model-file", "none.pth"], "no checkpoint none.pth"),
    ],
)
def test_bad_calls(models, tmp_path, capsys, args, message):
    assert export(models["skip"], tmp_path / "a.onnx", *args) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_transcribe_says_what_is_not_an_export(tmp_path, corpus, capsys):
    assert transcribe("--model", tmp_path / "none.onnx", corpus.files[0]) == 2
    assert "is not an exported model" in capsys.readouterr().err


@pytest.mark.slow
def test_int8(models, tmp_path, waves):
    output = tmp_path / "asr.onnx"
    assert export(models["skip"], output, "--precision", "int8") == 0
    assert read_description(output).precision == "int8"
    assert Speech2Text(output).recognize(waves)[0].skips.num_frames > 0


@pytest.mark.slow
@pytest.mark.numerics
def test_the_shipped_model(tmp_path):
    """The same frames kept, the same transcripts; on AN4's test set where that is there."""
    archive = AN4 / "pretrained" / "an4_layerskip.zip"
    if not archive.is_file():
        pytest.skip("the shipped model is not in this tree")
    output = tmp_path / "an4.onnx"
    assert export(archive, output) == 0
    eager = load_model(archive, decoder_type="greedy", blank_threshold="auto")
    theirs = Speech2Text(output)
    waves = an4_test() or [
        0.1 * np.random.default_rng(n).normal(size=n).astype(np.float32) for n in (9000, 30000)
    ]
    for wave in waves:
        expected, found = eager.recognize([wave])[0], theirs.recognize([wave])[0]
        assert found.skips == expected.skips
        assert found.nbest[0][:3] == expected.nbest[0][:3]
        assert found.nbest[0][3].token_frames == expected.nbest[0][3].token_frames


def an4_test():
    data = AN4 / "dump" / "raw" / "test"
    if not (data / "wav.scp").is_file():
        return []
    paths = DataDir.load(data).wav.items()
    return [read_audio(Utterance(name, str(AN4 / path)), 16000) for name, path in paths]
