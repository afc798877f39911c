import argparse
import functools
import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
import yaml

from espnet_layerskip.cli import main
from espnet_layerskip.evaluation import retrofit as judge
from espnet_layerskip.evaluation import retrofit_model, retrofit_teacher
from espnet_layerskip.evaluation.retrofit_model import CHECKPOINT
from espnet_layerskip.files import write_text
from espnet_layerskip.inference.calibration import Calibration, read_calibration
from espnet_layerskip.inference.speech2text import load_model
from espnet_layerskip.method.settings import OFF, SkipSettings
from espnet_layerskip.parallel import map_chunks
from espnet_layerskip.training import retrofit as training
from espnet_layerskip.training.task import LayerSkipASRTask
from espnet_layerskip.verbs.command_line import held
from espnet_layerskip.verbs.retrofit import begin, default_rate
from tests.support.chunk_functions import die_once
from tests.support.experiments import make_experiment

REPO = Path(__file__).resolve().parents[2]
ANYTHING = ("--max-disagreement", 900, "--max-wer-increase", 900)


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A stock experiment with intermediate CTC at layer 2 of 4."""
    exp = make_experiment(tmp_path_factory.mktemp("exp") / "stock", gated=False)
    return with_interctc(exp, [2])


def with_interctc(exp, layers):
    config = yaml.safe_load((exp / "config.yaml").read_text())
    config["encoder_conf"]["interctc_layer_idx"] = layers
    config["model_conf"]["interctc_weight"] = 0.3
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    return exp


@pytest.fixture
def quick(monkeypatch):
    """ESPnet's packing takes seconds, and so does the whole grid: one test runs them."""

    def pack(directory, files):
        (directory / "model.zip").write_bytes(b"zip")
        return directory / "model.zip"

    monkeypatch.setattr(retrofit_model, "pack", pack)
    grid = [OFF, SkipSettings(0.5, (1, 1)), SkipSettings(0.9, (1, 1))]
    monkeypatch.setattr(
        judge, "settings_to_try", lambda found: [one.resolved(found.encoder) for one in grid]
    )


def retrofit(model, data, output, *args):
    options = ["--model", model, "--data", data, "--output", output, "--num-threads", 1, *args]
    return main(["retrofit", *map(str, options)])


def tables(directory, **changed):
    """A data directory with other tables; None = it is not there."""
    target = Path(tempfile.mkdtemp(dir=directory.parent))
    for name in ("wav.scp", "text", "utt2spk"):
        shutil.copyfile(directory / name, target / name)
    for name, content in changed.items():
        path = target / name.replace("wav", "wav.scp")
        path.unlink() if content is None else path.write_text(content)
    return target


def test_without_transcripts(stock, data_dir, tmp_path, capsys, quick):
    data, output = tables(data_dir, text=None), tmp_path / "exp" / "retrofit"
    assert retrofit(stock, data, output, "--labels", "none", "--epochs", 1, *ANYTHING) == 0
    printed = capsys.readouterr()
    assert "update 1 of 1" in printed.err
    for line in (
        "**Kept**",
        "| stock model, full depth | 0.00 |",
        "without transcripts",
        "stock weights, these gates",
        "learnt from the model alone",
    ):
        assert line.replace("learnt", "it learnt") in printed.out or line in printed.out
    names = {path.name for path in output.iterdir()}
    assert names == {
        *(CHECKPOINT, "config.yaml", "calibration.json", "retrofit.json", "retrofit.md"),
        "model.zip",
    }
    found = read_calibration(output / "calibration.json")
    assert "of 900 % against the stock model at full depth" in found.describe()
    before = torch.load(stock / "valid.cer_ctc.ave.pth", weights_only=True)
    after = torch.load(output / CHECKPOINT, weights_only=True)
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert all(name.startswith(("encoder.encoders.2.", "encoder.encoders.3.")) for name in changed)
    model = load_model(output, decoder_type="greedy", blank_threshold="auto")
    assert model.calibration == found
    assert model.asr_model.encoder.gate_layer_idx == [2]

    assert retrofit(stock, data, output, "--labels", "none", "--epochs", 1, *ANYTHING) == 0
    assert "done already" in capsys.readouterr().err
    again = ("--labels", "none", "--epochs", 0, *ANYTHING)
    assert retrofit(stock, data, output, *again) == 2
    assert "holds a retrofit that differs in epochs: name another" in capsys.readouterr().err
    assert retrofit(stock, data, output, *again, "--force") == 0
    after = torch.load(output / CHECKPOINT, weights_only=True)
    assert all(value.equal(after[name]) for name, value in before.items())
    assert "a short training" in capsys.readouterr().out


def test_a_worse_model_is_kept_apart(stock, data_dir, tmp_path, capsys, quick, monkeypatch):
    monkeypatch.setattr(judge, "choose", lambda tried, full, point: (full, "nothing"))
    output = tmp_path / "retrofit"
    call = (stock, data_dir, output, "--epochs", 0, "--dev", data_dir, "--labels", "none")
    assert retrofit(*call) == 4
    printed = capsys.readouterr().out
    assert "**Rejected**: no setting keeps the budget. Nearest: " in printed
    assert "WARNING: no setting is shown to keep at most 5 % of the words other than" in printed
    assert f"written: {output}/rejected" in printed
    assert [path.name for path in output.iterdir()] == ["rejected"]
    model = load_model(output / "rejected", decoder_type="greedy", blank_threshold="auto")
    assert model.asr_model.encoder.settings.full_depth
    assert retrofit(*call) == 4
    assert "done already" in capsys.readouterr().err


def test_a_gate_without_a_trained_head_gets_one(stock, data_dir, tmp_path, quick, capsys):
    output = tmp_path / "retrofit"
    options = ("--gates", "1,2", "--epochs", 1, *ANYTHING)
    assert retrofit(stock, data_dir, output, *options, "--dev", data_dir) == 0
    state = torch.load(output / CHECKPOINT, weights_only=True)
    final = state["ctc.ctc_lo.weight"]
    assert state["ctc.interctc_lo.2.weight"].equal(final)
    assert not state["ctc.interctc_lo.1.weight"].equal(final)
    assert "layers [1] had no trained CTC" in capsys.readouterr().out
    model = load_model(output, decoder_type="greedy")
    assert model.asr_model.encoder.gate_layer_idx == [1, 2]


def test_a_hybrid_model_keeps_its_decoder(stock, data_dir, tmp_path, quick):
    exp = shutil.copytree(stock, tmp_path / "hybrid")
    config = yaml.safe_load((exp / "config.yaml").read_text())
    config["model_conf"]["ctc_weight"] = 0.3
    config |= {
        "decoder": "transformer",
        "decoder_conf": {"attention_heads": 2, "linear_units": 16, "num_blocks": 1},
    }
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    model = LayerSkipASRTask.build_model(argparse.Namespace(**config))
    model.load_state_dict(
        torch.load(exp / "valid.cer_ctc.ave.pth", weights_only=True), strict=False
    )
    torch.save(model.state_dict(), exp / "valid.cer_ctc.ave.pth")
    output = tmp_path / "retrofit"
    options = ("--labels", "none", "--epochs", 1, *ANYTHING)
    assert retrofit(exp, data_dir, output, *options) == 0
    found = json.loads((output / "retrofit.json").read_text())
    assert found["training"]["loss_state"] > 0.0
    after = torch.load(output / CHECKPOINT, weights_only=True)
    decoder = {n: p for n, p in model.state_dict().items() if n.startswith("decoder.")}
    assert decoder
    assert all(value.equal(after[name]) for name, value in decoder.items())


def test_the_configuration_names_no_place_of_this_machine(
    stock, data_dir, tmp_path, quick, monkeypatch
):
    shutil.copytree(stock, tmp_path / "exp/stock")
    shutil.copytree(data_dir, tmp_path / "dump/train")
    config = yaml.safe_load((stock / "config.yaml").read_text())
    config["train_data_path_and_name_and_type"] = [["dump/train/wav.scp", "speech", "sound"]]
    (tmp_path / "exp/stock/config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    assert retrofit("exp/stock", "dump/train", "exp/gated", "--epochs", 0, *ANYTHING) == 0
    made = (tmp_path / "exp/gated/config.yaml").read_text()
    assert "- dump/train/wav.scp" in made
    assert str(tmp_path) not in made


def test_the_rate_is_taken_from_the_training():
    def rate(**conf):
        return default_rate(argparse.Namespace(**conf))

    assert rate(optim_conf={"lr": 0.001}) == 0.0005
    assert rate(optim_conf={"lr": "2.0"}) == 0.001
    assert rate(optim_conf=None) == rate() == 3e-4


def test_an_interrupted_run_goes_on(stock, data_dir, tmp_path, quick, capsys, monkeypatch):
    monkeypatch.setattr(training, "SAVE_SECONDS", 0.0)
    rate = training.Schedule.rate
    monkeypatch.setattr(training.Schedule, "rate", stop_at(3, rate))
    output = tmp_path / "retrofit"
    options = ("--epochs", 4, "--dev", data_dir, *ANYTHING)
    with pytest.raises(KeyboardInterrupt):
        retrofit(stock, data_dir, output, *options)
    assert [path.name for path in output.iterdir()] == ["work"]
    assert retrofit(stock, data_dir, output, *options, "--seed", 1) == 2
    assert "is of a training that differs in seed" in capsys.readouterr().err
    monkeypatch.setattr(training.Schedule, "rate", rate)
    assert retrofit(stock, data_dir, output, *options) == 0
    assert "going on after update 3" in capsys.readouterr().err
    assert not (output / "work").exists()


@pytest.mark.slow
def test_a_teacher_in_other_processes_gives_the_same_weights(
    stock, data_dir, tmp_path, quick, monkeypatch, caplog
):
    """Also if one of them is killed after its first lesson."""
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    options = ("--epochs", 3, "--dev", data_dir, "--batch-seconds", 0.5, *ANYTHING)
    assert retrofit(stock, data_dir, tmp_path / "alone", *options) == 0
    died = tmp_path / "died"

    def map_and_die(teacher, *args):
        return map_chunks(functools.partial(die_once, died, teacher), *args)

    monkeypatch.setattr(retrofit_teacher, "map_chunks", map_and_die)
    assert retrofit(stock, data_dir, tmp_path / "many", *options, "--inference_nj", 2) == 0
    assert died.exists()
    assert "a worker died" in caplog.text
    one, many = (load(tmp_path / name / CHECKPOINT) for name in ("alone", "many"))
    before = load(stock / "valid.cer_ctc.ave.pth")
    assert all(value.equal(many[name]) for name, value in one.items())
    assert not all(value.equal(many[name]) for name, value in before.items())
    page = (tmp_path / "many/retrofit.md").read_text()
    assert "the teacher ran in other processes" in page
    records = [json.loads((tmp_path / n / "retrofit.json").read_text()) for n in ("alone", "many")]
    assert records[0]["question"] == records[1]["question"]


def load(path):
    return torch.load(path, weights_only=True)


def test_two_kinds_of_workers_are_refused(stock, data_dir, tmp_path, capsys):
    options = ("--inference_nj", 2, "--dask", "local", "--cmd", "run.pl", "--logdir", "log")
    assert retrofit(stock, data_dir, tmp_path / "out", *options) == 2
    assert "--dask and --cmd are two ways" in capsys.readouterr().err


def stop_at(step, rate):
    def stopping(self, now, steps):
        if now == step:
            raise KeyboardInterrupt
        return rate(self, now, steps)

    return stopping


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gates", "4"), "gates must be layers between 1 and 3 (the encoder has 4"),
        (("--gates", "two"), "--gates must be layer numbers 'K' or 'K,K,...', but got 'two'"),
        (
            ("--gates", "1", "--epochs", 0),
            "needs gates at layers with a trained CTC ([2]), but got [1]",
        ),
        (("--device", "none"), "device must be cpu, cuda or cuda:N, but got 'none'"),
        (("--epochs", -1), "--epochs must be 0 or more"),
        (("--lr", 0), "--lr must be above 0"),
        (("--dev-share", 1), "--dev-share must be between 0 and 1"),
        (("--labels", "dev"), "--labels dev needs --dev DIR"),
        (("--model-file", "other.pth"), "no checkpoint other.pth"),
    ],
)
def test_a_wrong_option_is_refused(stock, data_dir, tmp_path, capsys, options, message):
    assert retrofit(stock, data_dir, tmp_path / "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_labels_that_do_not_fit_are_named(stock, data_dir, tmp_path, capsys):
    text = "".join(f"s{i // 4}-u{i} AB {'xyz' if i == 5 else 'CD'}\n" for i in range(8))
    data = tables(data_dir, text=text)
    assert retrofit(stock, data, tmp_path / "out", "--dev", data_dir) == 2
    said = capsys.readouterr().err
    assert (
        "3 of 41 tokens in 1 transcripts are not in the model's token list: 'x', 'y', 'z'" in said
    )
    assert "(utterances s1-u5); write the transcripts as those" in said


def test_data_that_cannot_be_used(stock, data_dir, tmp_path, capsys):
    for data, message in (
        (tmp_path, "wav.scp missing; found"),
        (tables(data_dir, text=None), "has no text: add the transcripts, or use none"),
        (tables(data_dir, text="other AB\n"), "no transcript of an utterance of wav.scp"),
        (
            tables(data_dir, wav="a missing.wav\nb missing.wav\n", text="a A\nb B\n"),
            "no such audio file",
        ),
    ):
        assert retrofit(stock, data, tmp_path / "out") == 2
        assert message in capsys.readouterr().err


def test_models_that_cannot_be_used(stock, exps, data_dir, tmp_path, capsys):
    other = shutil.copytree(stock, tmp_path / "other")
    torch.save({"encoder.rnn.weight": torch.zeros(1)}, other / "valid.cer_ctc.ave.pth")
    for model, message in (
        (exps["ours"], "has heads of its own for its gates (interctc_head: own) already"),
        (other, "unexpected: encoder.rnn.weight"),
        (tmp_path / "none", "neither an experiment directory"),
    ):
        assert retrofit(model, data_dir, tmp_path / "out") == 2
        assert message in capsys.readouterr().err


def test_what_is_there_stays(stock, data_dir, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert retrofit(stock, data_dir, tmp_path / "out", "--epochs", 0) == 2
    assert "exists and is not of a retrofit: name another --output" in capsys.readouterr().err


def test_an_output_that_cannot_be_used_is_refused_at_once(stock, data_dir, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "busy").mkdir()
    config = (stock / "config.yaml").read_bytes()
    with held("--output", tmp_path / "busy"):
        for output, message in (
            (tmp_path / "file" / "out", "--output .*/file/out cannot be made"),
            (stock, "holds the model, which would be lost"),
            (tmp_path / "busy", "another run works there"),
        ):
            assert retrofit(stock, data_dir, output, "--epochs", 0, "--force") == 2
            assert re.search(message, capsys.readouterr().err)
    assert (stock / "config.yaml").read_bytes() == config
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # the empty folder has gone


def test_a_checkpoint_of_the_other_version_fits(stock, data_dir, tmp_path, quick):
    exp = shutil.copytree(stock, tmp_path / "renamed")
    path = exp / "valid.cer_ctc.ave.pth"
    state = torch.load(path, weights_only=True)
    old, new = "encoder.embed.out.0.", "encoder.embed.out."
    one, two = (old, new) if any(name.startswith(old) for name in state) else (new, old)
    torch.save({name.replace(one, two): value for name, value in state.items()}, path)
    assert retrofit(exp, data_dir, tmp_path / "out", "--epochs", 0, *ANYTHING) == 0


@pytest.mark.slow
def test_the_packed_model_works_elsewhere(stock, data_dir, tmp_path, monkeypatch, capsys):
    import numpy as np

    exp = shutil.copytree(stock, tmp_path / "exp" / "asr")
    stats = exp / "feats_stats.npz"
    np.savez(stats, count=10, sum=np.zeros(20), sum_square=np.full(20, 10.0))
    config = yaml.safe_load((exp / "config.yaml").read_text())
    config |= {
        "normalize": "global_mvn",
        "normalize_conf": {"stats_file": "exp/asr/feats_stats.npz"},
    }
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    weights = exp / "valid.cer_ctc.ave.pth"
    state = torch.load(weights, weights_only=True)
    torch.save(state | {f"normalize.{n}": torch.ones(20) for n in ("mean", "std")}, weights)
    monkeypatch.chdir(tmp_path)
    output = Path("exp/asr_retrofit")
    assert retrofit("exp/asr", data_dir, output, "--epochs", 0, *ANYTHING) == 0
    files = set(json.loads((output / "retrofit.json").read_text())["files"])
    assert {"feats_stats.npz", "asr_retrofit.zip"} <= files
    shutil.rmtree(exp)
    elsewhere = shutil.move(output / "asr_retrofit.zip", tmp_path / "model.zip")
    monkeypatch.chdir("/")
    for model in (tmp_path / output, elsewhere):
        wav = next(data_dir.glob("*.wav"))
        assert main(["transcribe", "--model", str(model), str(wav)]) == 0


@pytest.mark.parametrize("content", ["", "[]", '{"question": {}}', '{"question": 1, "files": []}'])
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / "retrofit.json").write_text(content)
    for force in (False, True):
        with pytest.raises(ValueError, match=r"retrofit.json is damaged"):
            begin(tmp_path, {}, force)


def test_what_is_not_calibrated_is_no_model(stock, data_dir, tmp_path, quick, capsys, monkeypatch):
    """However it ends, nobody takes weights for one whose setting was not judged."""

    def killed(self, path):
        raise KeyboardInterrupt

    output, options = tmp_path / "out", ("--dev", data_dir, "--epochs", 0, *ANYTHING)
    with monkeypatch.context() as patch:
        patch.setattr(Calibration, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            retrofit(stock, data_dir, output, *options)
    with pytest.raises(ValueError, match=r"config\.yaml"):
        load_model(output)
    assert retrofit(stock, data_dir, output, *options) == 0
    assert load_model(output).calibration is not None


def test_a_rejected_result_that_is_replaced_leaves_no_folder(tmp_path):
    write_text(tmp_path / "rejected/retrofit.json", '{"question": {}, "files": []}')
    assert begin(tmp_path, {}, force=True) is None
    assert not (tmp_path / "rejected").exists()
    assert begin(tmp_path, {}, force=False) is None


def test_a_record_removes_nothing_elsewhere(tmp_path):
    output = tmp_path / "output"
    write_text(output / "retrofit.json", '{"question": {}, "files": ["../kept", "gone"]}')
    for path in (tmp_path / "kept", output / "gone"):
        path.touch()
    assert begin(output, {}, force=True) is None
    assert (tmp_path / "kept").exists()
    assert not (output / "gone").exists()
