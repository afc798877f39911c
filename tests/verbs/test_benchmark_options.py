import pytest

from espnet_layerskip.cli import get_parser
from espnet_layerskip.verbs.benchmark import check_output, read_options


def read(*more):
    given = ["--model", "exp", "--wav-scp", "w", "--text", "t", "--output", "o.json"]
    return read_options(get_parser().parse_args(["benchmark", *given, *map(str, more)]))


def test_defaults():
    options = read()
    assert options.scopes == ["encoder", "model", "e2e"]
    assert (options.threads, options.batch_sizes, options.seconds) == ([1, 2], [1, 8], [3, 10, 30])
    assert (options.repeats, options.num_inputs, options.max_wer_increase) == (5, None, 1.0)
    assert (options.twins, options.ngram, options.lm) == ({}, {}, {})


def test_values(tmp_path):
    (tmp_path / "x.arpa").touch()
    options = read(
        "--scope", "e2e,encoder", "--num-threads", "2,1,2", "--seconds", "2.5",
        "--twin", "small=exp/s", "exp/t", "--twin", "u=v", "--skip", "threshold=0.7",
        "--ngram-file", tmp_path / "x.arpa",
    )  # fmt: skip
    assert options.scopes == ["encoder", "e2e"]
    assert (options.threads, options.seconds) == ([1, 2], [2.5])
    assert options.twins == {"small": "exp/s", "t": "exp/t", "u": "v"}
    assert options.skip.blank_threshold == 0.7
    assert options.ngram == {"ngram_file": tmp_path / "x.arpa"}
    (tmp_path / "lr=0.1").mkdir()
    assert read("--twin", tmp_path / "lr=0.1").twins == {"lr=0.1": str(tmp_path / "lr=0.1")}


def test_a_neural_language_model(tmp_path):
    for name in ("config.yaml", "valid.loss.ave.pth"):
        (tmp_path / name).touch()
    assert read("--lm-exp", tmp_path, "--lm-weight", "0.5").lm == {
        "lm_train_config": str(tmp_path / "config.yaml"),
        "lm_file": str(tmp_path / "valid.loss.ave.pth"),
        "lm_weight": 0.5,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scope", "encoder,all"], "--scope all is not known: choose of encoder, model, e2e"),
        (["--num-threads", "1,x"], "--num-threads 1,x: whole numbers above 0"),
        (["--num-threads", "0,1"], "--num-threads 0,1: whole numbers above 0"),
        (["--batch-size", "1.5"], "--batch-size 1.5: whole numbers above 0"),
        (["--seconds", "nan"], "--seconds nan: numbers above 0"),
        (["--seconds", ","], "--seconds ,: numbers above 0"),
        (["--repeats", "4"], "--repeats 4: a median needs at least 5"),
        (["--num-inputs", "0"], "--num-inputs 0: at least 1"),
        (["--max-wer-increase", "-1"], "--max-wer-increase -1: 0 or more"),
        (["--lexicon", "x"], "--lexicon needs --ngram-file"),
        (["--lm-exp", "no"], "--lm-exp no: config.yaml is missing; stages 6 and 7 make it"),
        (["--ngram-file", "no.arpa"], "--ngram-file no.arpa: no such file"),
        (["--twin", "a/x", "b/x"], "two are named 'x'"),
        (["--skip", "speed=9"], "'speed=9' is not known"),
    ],
)
def test_bad_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        read(*arguments)


def test_output_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="ends in .json"):
        check_output(tmp_path / "out.txt")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="--output .*/file cannot be made"):
        check_output(tmp_path / "file" / "out.json")
    (tmp_path / "d.json").mkdir()
    with pytest.raises(ValueError, match="is a directory"):
        check_output(tmp_path / "d.json")
    (tmp_path / "RESULTS.md").write_text("mine")
    with pytest.raises(ValueError, match="RESULTS.md beside it is of something else: rename one"):
        check_output(tmp_path / "RESULTS.json")
    (tmp_path / "RESULTS.json").touch()  # an earlier benchmark's
    check_output(tmp_path / "RESULTS.json")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ValueError, match="a.png is a directory"):
        check_output(tmp_path / "a.json")
    assert check_output(tmp_path / "a" / "out.json").parent.is_dir()
