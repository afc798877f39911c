"""What long files cost."""

import json

import pytest
import soundfile

import long_audio
from espnet_layerskip.evaluation.inputs import load_test_set


def test_files_hold_whole_utterances_in_order(data_dir, tmp_path):
    data = load_test_set(data_dir, 16000)
    each = long_audio.write_files(data, 0, tmp_path)
    assert list(each.values()) == [data.text[u.utt_id] for u in data.speech]
    pairs = long_audio.write_files(data, 1.5 * min(u.seconds for u in data.speech), tmp_path)
    assert " ".join(pairs.values()) == " ".join(each.values())
    assert len(pairs) < len(each)
    [(name, text)] = long_audio.write_files(data, 2.5 * data.seconds, tmp_path).items()
    assert text.startswith(" ".join([*each.values()] * 2))
    assert 2.5 * data.seconds <= soundfile.info(tmp_path / f"{name}.wav").duration
    assert (tmp_path / "wav.scp").read_text() == f"{name} {tmp_path / name}.wav\n"


@pytest.mark.slow
def test_long_audio(data_dir, exps, tmp_path, capsys, monkeypatch):
    """A process for the second length; what another one took is made up."""
    run, asked = long_audio._transcribe, []
    took = {"audio_seconds": 4.0, "ms_per_second": 10.0, "memory_mb": 99.0, "wer": 50.0}

    def one(exp, folder, refs, options):
        asked.append((folder.name, len(refs), list(options)))
        real = folder.name != "0"
        return run(exp, folder, refs, options) if real else took | {"deleted": 0.0}

    monkeypatch.setattr(long_audio, "_transcribe", one)
    command = [
        *("--exp", str(exps["ours"]), "--data", str(data_dir), "--output", str(tmp_path)),
        *("--seconds", "0", "40", "--repeats", "1", "--segment-size", "5"),
    ]
    long_audio.main(command)
    report = json.loads((tmp_path / "long_audio.json").read_text())
    each, long = report["rows"]
    assert asked == [
        (n, r["files"], ["--segment-size", "5"])
        for n, r in zip(["0", "40"], report["rows"], strict=True)
    ]
    assert (each["files"], each["raw_ms_per_second"]) == (8, [10.0])
    assert each["relative"] == 10.0 / long["ms_per_second"]
    assert (each["seconds"], long["seconds"], long["files"], long["relative"]) == (0, 40, 1, 1.0)
    assert long["audio_seconds"] >= 40 > each["audio_seconds"]
    assert 100 < long["memory_mb"] < 10000
    assert long["wer"] > 0
    assert (tmp_path / "long_audio.md").read_text() == long_audio.long_audio_page(report)
    assert f"| one utterance | {each['files']} |" in capsys.readouterr().out


def test_bad_input(data_dir, exps, tmp_path):
    for seconds, repeats in (([], 1), ([0], 1), ([-1, 10], 1), ([10], 0)):
        with pytest.raises(ValueError, match="lengths in seconds"):
            long_audio.measure_long_audio(exps["ours"], data_dir, seconds, repeats)
    with pytest.raises(ValueError, match="no_such: no such file or directory, nor is it a tag"):
        long_audio.measure_long_audio(tmp_path / "no_such", data_dir, [1], 1)
