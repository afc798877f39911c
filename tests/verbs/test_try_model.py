import json
import shutil

import pytest
import torch

from espnet_layerskip.cli import main
from tests.support.trials import change, save_random


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def try_model(model, data, *options):
    return main(["try", "--model", str(model), "--data", str(data), *map(str, options)])


def files(directory):
    return sorted((p.name, p.stat().st_mtime_ns) for p in directory.rglob("*"))


def test_a_stock_model(stock_exps, data_dir, tmp_path, capsys):
    before = files(stock_exps.trained), files(data_dir)
    output = tmp_path / "try.json"
    options = ("--max-utts", 4, "--num-threads", 1, "--output", output)
    assert try_model(stock_exps.trained, data_dir, *options) == 0
    printed = capsys.readouterr()
    assert "times as fast as ESPnet's class" in " ".join(printed.out.split("\n\n")[0].split())
    assert "4 of 8 utterances" in printed.out
    assert "] loading" in printed.err
    assert "] loading" not in printed.out

    found = json.loads(output.read_text())
    assert found["encoder"] == "ConformerEncoder"
    assert found["trained_layers"] == [1, 2]
    assert found["data"]["utterances"] == 4
    assert found["metric"] == "wer"
    assert found["utterances_changed_by_fast_form"] == 0
    assert found["stock_rate"] == found["trials"][0]["rate"]
    gates = {tuple(one["settings"]["gates_in_use"]) for one in found["trials"]}
    assert gates == {(1,), (2,), (1, 2)}
    assert found["environment"]["num_threads"] == 1
    assert {"stock", "full"} <= set(found["times"]["encoder"]) & set(found["times"]["wave to text"])
    assert (files(stock_exps.trained), files(data_dir)) == before  # nothing is written


def test_without_transcripts_and_with_gates_of_ones_own(stock_exps, data_dir, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(data_dir / "wav.scp", data)
    output = tmp_path / "try.json"
    options = ("--max-utts", 2, "--gates", "3,1", "--output", output)
    assert try_model(stock_exps.untrained, data, *options) == 0
    found = json.loads(output.read_text())
    assert found["metric"] == "disagreement"
    assert found["stock_rate"] is None
    assert {tuple(t["settings"]["gates_in_use"]) for t in found["trials"]} == {(1, 3)}


def test_heads_that_were_not_trained(stock_exps, data_dir, capsys):
    assert try_model(stock_exps.untrained, data_dir, "--max-utts", 2) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "cannot skip as it is: no intermediate CTC head was trained" in out
    assert "layers 1 to 2 of 4" in out  # an example
    assert "To train heads for gates" in out


def test_a_model_without_a_ctc_head_is_only_timed(no_ctc, data_dir, capsys):
    assert try_model(no_ctc, data_dir, "--max-utts", 2) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "The exact fast form alone" in out
    assert "it has no CTC head (ctc_weight: 0.0)" in out
    assert "wave to text" not in out


def test_an_encoder_that_cannot_be_served(stock_exps, data_dir, tmp_path, capsys):
    exp = shutil.copytree(stock_exps.trained, tmp_path / "exp")
    change(exp, encoder="vgg_rnn", encoder_conf={})
    save_random(exp)
    assert try_model(exp, data_dir) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith("Nothing to gain here: the encoder is a VGGRNNEncoder, which cannot skip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-utts", 0], "--max-utts must be at least 1, but got 0"),
        (["--num-threads", 0], "--num-threads must be at least 1"),
        (["--gates", "x"], "gates must be layer numbers"),
        (["--gates", "4"], "gates must be layers between 1 and 3"),
        (["--output", "/no/such/place/x.json"], "there is no such directory"),
        (["--output", "."], "is a directory: name a file"),
    ],
)
def test_wrong_calls(stock_exps, data_dir, capsys, options, message):
    assert try_model(stock_exps.trained, data_dir, *options) == 2
    assert message in capsys.readouterr().err


def test_an_output_that_is_a_table_of_the_data_is_refused(stock_exps, data_dir, tmp_path, capsys):
    data = shutil.copytree(data_dir, tmp_path / "data")
    assert try_model(stock_exps.trained, data, "--max-utts", 1, "--output", data / "text") == 2
    assert "text is an input, and would be lost" in capsys.readouterr().err


def test_wrong_model_and_data(stock_exps, data_dir, tmp_path, capsys):
    assert try_model(tmp_path / "gone", data_dir) == 2
    assert "experiment directory" in capsys.readouterr().err
    assert try_model(stock_exps.trained, tmp_path) == 2
    assert "wav.scp" in capsys.readouterr().err


@pytest.fixture
def no_ctc(stock_exps, tmp_path):
    exp = shutil.copytree(stock_exps.trained, tmp_path / "no_ctc")
    decoder = {"num_blocks": 1, "linear_units": 16, "attention_heads": 2}
    change(exp, model_conf={"ctc_weight": 0.0}, decoder="transformer", decoder_conf=decoder)
    save_random(exp)
    return exp
