import logging

import pytest
import soundfile
import yaml

from espnet_layerskip.bin.asr_inference import get_parser, main, read_utterances
from espnet_layerskip.files import write_text
from espnet_layerskip.inference.recognize import Result
from espnet_layerskip.inference.result_dir import ResultDir
from espnet_layerskip.inference.speech2text import load_model


def run(exp, wav_scp, output_dir, *options):
    return main(
        [
            f"--asr_train_config={exp}/config.yaml",
            f"--asr_model_file={exp}/valid.loss.ave.pth",
            f"--data_path_and_name_and_type={wav_scp},speech,sound",
            f"--output_dir={output_dir}",
            *options,
        ]
    )


def table(path):
    return dict(line.split(" ", 1) for line in path.read_text().split("\n")[:-1])


def test_help_names_our_options_and_no_percent_crashes_it():
    text = get_parser().format_help()
    for option in ("--decoder_type", "--blank_threshold", "--exit_layer", "--ctc_window_margin"):
        assert option in text
    assert "%%" not in text


def test_exact_scores_are_the_default():
    required = ["--output_dir", "x", "--data_path_and_name_and_type", "a,speech,sound"]
    assert get_parser().parse_args(required).ctc_window_margin == 0
    assert get_parser().parse_args([*required, "--decoder", "greedy"]).decoder_type == "greedy"


@pytest.mark.numerics
@pytest.mark.parametrize("batch_size", [1, 3])
def test_espnets_layout(models, corpus, waves, tmp_path, batch_size):
    options = ["--decoder", "greedy", "--batch_size", str(batch_size)]
    assert run(models["skip"], corpus.good, tmp_path, *options) == 0
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    best = {f"1best_recog/{name}" for name in ("token", "token_int", "score", "text")}
    assert files == best | {"skip_stats"}
    model = load_model(models["skip"], decoder_type="greedy")
    for i, wave in enumerate(waves):
        text, token, token_int, hyp = model(wave)[0]
        assert table(tmp_path / "1best_recog/text")[f"utt{i}"] == text
        assert table(tmp_path / "1best_recog/token")[f"utt{i}"] == " ".join(token)
        assert table(tmp_path / "1best_recog/token_int")[f"utt{i}"] == " ".join(map(str, token_int))
        assert float(table(tmp_path / "1best_recog/score")[f"utt{i}"]) == pytest.approx(
            hyp.score, rel=1e-4
        )
        count = model.last_skips[0]
        expected = f"{count.num_frames} {count.num_skipped}"
        assert table(tmp_path / "skip_stats")[f"utt{i}"] == expected
    assert list(table(tmp_path / "1best_recog/text")) == ["utt0", "utt1", "utt2", "utt3"]


def test_espnets_search_writes_n_best(models, corpus, tmp_path):
    options = ["--beam_size", "3", "--nbest", "2", "--ctc_weight", "0.3"]
    assert run(models["hybrid"], corpus.good, tmp_path, *options) == 0
    assert len(table(tmp_path / "1best_recog/text")) == 4
    assert len(table(tmp_path / "2best_recog/text")) == 4


def test_stock_model(models, corpus, tmp_path):
    assert run(models["stock"], corpus.good, tmp_path, "--decoder", "greedy") == 0
    assert {v.split()[1] for v in table(tmp_path / "skip_stats").values()} == {"0"}


@pytest.mark.parametrize("batch_size", [1, 4])
def test_bad_utterances_cost_only_themselves(models, corpus, tmp_path, caplog, batch_size):
    good, bad = tmp_path / "good", tmp_path / "bad"
    options = ["--decoder", "greedy", "--batch_size", str(batch_size)]
    run(models["skip"], corpus.good, good, *options)
    bad.mkdir()
    (bad / "failed").write_text("from an earlier run\n")
    with caplog.at_level(logging.INFO):
        assert run(models["skip"], corpus.bad, bad, *options) == 1
    assert "7 read = 3 decoded + 4 refused" in caplog.messages
    expected = table(good / "1best_recog/text")
    assert table(bad / "1best_recog/text") == {f"utt{i}": expected[f"utt{i}"] for i in range(3)}
    failed = table(bad / "failed")
    assert list(failed) == ["broken", "missing", "piped", "nothing"]
    assert "cannot be decoded" in failed["broken"]
    assert "no such audio file" in failed["missing"]
    assert "pipes are not run" in failed["piped"]
    assert "no path given" in failed["nothing"]
    for name in failed:
        assert any(f"{name} failed" in message for message in caplog.messages)


def test_segments_of_long_audio(models, corpus, tmp_path):
    options = ["--decoder", "greedy", "--segment_size", "0.6", "--hop_size", "0.3"]
    assert run(models["skip"], corpus.good, tmp_path / "cut", *options) == 0
    options = ["--decoder", "greedy", "--segment_size", "off"]
    assert run(models["skip"], corpus.good, tmp_path / "whole", *options) == 0
    cut, whole = (table(tmp_path / name / "skip_stats") for name in ("cut", "whole"))
    assert [v.split()[0] for v in cut.values()] == [v.split()[0] for v in whole.values()]
    texts = [table(tmp_path / name / "1best_recog/text") for name in ("cut", "whole")]
    assert {utt for utt in whole if texts[0][utt] != texts[1][utt]} <= {"utt2"}  # 1.3 s


def test_another_rate_is_an_error_that_names_both(models, waves, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, waves[0], 8000)
    (tmp_path / "wav.scp").write_text(f"a {path}\n")
    assert run(models["skip"], tmp_path / "wav.scp", tmp_path / "out", "--decoder", "greedy") == 1
    failed = table(tmp_path / "out/failed")["a"]
    assert f"{path} has 8000 Hz, but the model was trained on 16000 Hz" in failed


def test_keys_select_and_order(models, corpus, tmp_path):
    keys = tmp_path / "keys.scp"
    keys.write_bytes(b"utt2 x\nutt0 y\nutt2 x\nunknown z\n\xff x\n")
    found = read_utterances([(str(corpus.good), "speech", "sound")], str(keys))
    assert [utt.utt_id for utt in found] == ["utt2", "utt0", "unknown", "key_file:5"]
    options = ["--decoder", "greedy", "--key_file", str(keys)]
    assert run(models["skip"], corpus.good, tmp_path / "out", *options) == 1
    assert list(table(tmp_path / "out/1best_recog/text")) == ["utt2", "utt0"]
    failed = table(tmp_path / "out/failed")
    assert list(failed) == ["unknown", "key_file:5"]
    assert failed["key_file:5"].startswith(f"{keys}:5: the line is not UTF-8")


def test_options_of_a_yaml_file(models, corpus, tmp_path):
    config = tmp_path / "decode.yaml"
    config.write_text("decoder_type: greedy\nblank_threshold: off\nspike_extension: [1, 1]\n")
    assert yaml.safe_load(config.read_text())["blank_threshold"] is False
    assert run(models["skip"], corpus.good, tmp_path / "out", "--config", str(config)) == 0
    assert {v.split()[1] for v in table(tmp_path / "out/skip_stats").values()} == {"0"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--blank_threshold", "2"], r"blank_threshold must be a number in"),
        (["--key_file", "none.scp"], "none.scp: no such file"),
        (["--data_path_and_name_and_type", "t,text,text"], "one triple 'wav.scp,speech,sound'"),
        (["--ngpu", "2"], "ngpu must be 0 or 1"),
        (["--enh_s2t_task", "true"], "enh_s2t_task is not supported here"),
        (["--batch_size", "0"], "batch_size must be at least 1"),
        (["--asr_model_file", "none.pth"], "no checkpoint none.pth"),
        (["--ngpu", "1"], "device cuda: PyTorch finds 0 GPUs here"),
        (["--output_dir", "/dev/null/x"], "Not a directory: '/dev/null/x'"),
        (["--config", __file__], "mapping values are not allowed here"),
        (["--decoder", "greedy", "--lexicon", "x"], "lexicon is of no use to decoder_type greedy"),
    ],
)
def test_wrong_calls_are_explained(models, corpus, tmp_path, caplog, monkeypatch, options, message):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert run(models["skip"], corpus.good, tmp_path, *options) == 2
    assert message in caplog.messages[-1]


def test_choices_are_listed(models, corpus, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(models["skip"], corpus.good, tmp_path, "--decoder", "beam")
    error = capsys.readouterr().err
    assert "'espnet'" in error or "espnet, greedy" in error
    assert "greedy" in error


def test_a_full_disk_is_said_and_no_utterance_is_blamed(models, corpus, tmp_path, caplog):
    (tmp_path / "1best_recog").mkdir()
    (tmp_path / "1best_recog/token").symlink_to("/dev/full")
    assert run(models["skip"], corpus.good, tmp_path, "--decoder", "greedy") == 2
    assert "the disk is full: free some space" in caplog.messages[-1]
    assert not (tmp_path / "failed").exists()


def test_nothing_of_an_earlier_run_stays(tmp_path):
    for name in ("1best_recog/text", "skip_stats", "2best_recog/text", "asr_inference.1.log"):
        write_text(tmp_path / name, "a OLD\n")
    with ResultDir(tmp_path, nbest=2) as results:
        results.write(Result("a", error="it is broken"))
    there = {p.name: p.read_text() for p in tmp_path.rglob("*") if p.is_file()}
    assert there == {"failed": "a it is broken\n", "asr_inference.1.log": "a OLD\n"}
