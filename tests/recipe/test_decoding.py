"""Stages 12 and 13 with a stand-in for the recogniser: parts, failures, going on, results."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from functools import partial
from pathlib import Path

import pytest

from espnet_layerskip.files import read_table

from .conftest import TEMPLATE, RunRecipe

pytestmark = pytest.mark.slow  # every stage starts processes of its own

# Writes what the references say; an utterance that the file "broken" names fails the job after
# the others' results were written.
RECOGNISER = """
import argparse, pathlib, sys
parser = argparse.ArgumentParser()
for name in ("key_file", "output_dir", "asr_model_file", "decoder_type"):
    parser.add_argument("--" + name)
args, _ = parser.parse_known_args()
ref = dict(line.strip().split(" ", 1) for line in open("data/test/text"))
broken = pathlib.Path("broken").read_text().split() if pathlib.Path("broken").exists() else []
keys = [line.split()[0] for line in open(args.key_file)]
out = pathlib.Path(args.output_dir) / "1best_recog"
out.mkdir(parents=True)
with (out / "text").open("w") as text, open("calls", "a") as calls:
    for key in keys:
        calls.write(key + "\\n")
        if key not in broken:
            text.write(f"{key} {ref[key]}\\n")
sys.exit(f"cannot decode {broken}" if set(broken) & set(keys) else 0)
"""


@pytest.fixture
def stand_ins(tmp_path: Path, recipe_dir: Path, run_recipe: RunRecipe) -> Path:
    """Return a directory with the stand-in; the recipe is at the end of stage 11."""
    directory = tmp_path / "stand ins"
    directory.mkdir()
    (directory / "espnet_layerskip.bin.asr_inference.py").write_text(RECOGNISER, encoding="utf-8")
    exp = recipe_dir / "exp" / "asr_x"
    exp.mkdir(parents=True)
    (exp / "config.yaml").write_text("encoder: x\n", encoding="utf-8")
    (exp / "valid.cer_ctc.ave.pth").write_bytes(b"weights")
    assert run_recipe("--stage", "3", "--stop_stage", "3").returncode == 0
    return directory


@pytest.fixture
def run(run_recipe: RunRecipe, stand_ins: Path) -> RunRecipe:
    """Return `run_recipe` with the stand-ins."""
    return partial(run_recipe, STAND_INS=str(stand_ins))


def test_decoding_goes_on_and_is_scored(run: RunRecipe, recipe_dir: Path) -> None:
    options = ["--asr_tag", "x", "--inference_tag", "inf", "--inference_nj", "2"]
    calls, text = recipe_dir / "calls", recipe_dir / "exp/asr_x/inf/test/text"
    (recipe_dir / "broken").write_text("s1-test1", encoding="utf-8")
    both = ["--stage", "12", "--stop_stage", "13", *options]
    failed = run(*both)
    assert failed.returncode != 0
    assert "job 2 failed" in failed.stderr
    assert "cannot decode ['s1-test1']" in failed.stderr
    assert "1 utterance(s) without a result: s1-test1" in failed.stdout
    assert set(read_table(text)) == {"s0-test0", "s0-test2"}, "the others' results are kept"
    assert len(calls.read_text().split()) == 3

    scoring = run("--stage", "13", "--stop_stage", "13", *options)
    assert scoring.returncode != 0
    assert "1 of 3 utterance(s) have no result: s1-test1" in scoring.stderr

    (recipe_dir / "broken").unlink()
    again = run(*both)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "1 of 2 job(s) are done already" in again.stdout
    assert len(calls.read_text().split()) == 3 + 1, "only the part that failed was run again"
    results = (recipe_dir / "exp/asr_x/RESULTS.md").read_text(encoding="utf-8")
    assert "|inf/test|3|4|100.0|0.0|0.0|0.0|0.0|0.0|" in results
    assert "### CER" in results

    run_sh = recipe_dir / "exp/asr_x/inf/run.sh"
    assert "--stage 12" in run_sh.read_text()
    model = recipe_dir / "exp/asr_x/valid.cer_ctc.ave.pth"
    shutil.copy(model, model.with_name("other"))
    model.write_bytes(b"other weights")
    new = run("--stage", "12", "--stop_stage", "12", *options)
    assert new.returncode == 0
    assert len(calls.read_text().split()) == 4 + 3, "a new model is decoded anew"

    shutil.rmtree(recipe_dir / "exp/asr_x/inf/test/logdir/output.1")
    gone = run("--stage", "12", "--stop_stage", "12", *options)
    assert "1 of 2 job(s) are done already" in gone.stdout
    assert len(calls.read_text().split()) == 7 + 2, "a part whose output is gone is decoded again"

    (recipe_dir / "dump/raw/test/audio_checksums").write_text("s0-test0 12345678\n")
    assert run("--stage", "12", "--stop_stage", "12", *options).returncode == 0
    assert len(calls.read_text().split()) == 9 + 3, "other audio of the same length too"


@pytest.mark.parametrize("told", ["argument", "configuration"])
def test_another_lexicon_is_decoded_anew(run: RunRecipe, recipe_dir: Path, told: str) -> None:
    lexicon, calls, config = recipe_dir / "lex.txt", recipe_dir / "calls", recipe_dir / "dec.yaml"
    config.write_text("lexicon: lex.txt\n" if told == "configuration" else "beam_size: 5\n")
    options = ["--stage", "12", "--stop_stage", "12", "--asr_tag", "x", "--inference_tag", "inf"]
    options += ["--inference_config", "dec.yaml"]
    options += ["--inference_args", "--lexicon lex.txt"] if told == "argument" else []
    for content, number in (("A A\n", 3), ("A A\n", 3), ("A A\nB B\n", 6)):
        if not lexicon.exists() or lexicon.read_text() != content:
            lexicon.write_text(content)
        done = run(*options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(calls.read_text().split()) == number


def test_a_model_file_that_is_not_there_lists_those_that_are(run: RunRecipe) -> None:
    done = run(
        *("--stage", "12", "--stop_stage", "12", "--asr_tag", "x"),
        *("--inference_asr_model", "valid.acc.ave.pth"),
    )
    assert done.returncode == 2
    assert "choose one with --inference_asr_model: valid.cer_ctc.ave.pth" in done.stderr


# Stands in for "espnet-layerskip calibrate": writes down its options, exits as it is told to.
CALIBRATE = """
import pathlib, sys
with open("calibrations", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
pathlib.Path("exp/asr_x/calibration.json").write_text(pathlib.Path("status").read_text())
sys.exit(int(pathlib.Path("status").read_text()))
"""


def test_stage_12_calibrates_where_the_decoding_says_auto(
    run: RunRecipe, recipe_dir: Path, stand_ins: Path
) -> None:
    (stand_ins / "espnet_layerskip.cli.py").write_text(CALIBRATE, encoding="utf-8")
    config, status = recipe_dir / "conf" / "decode.yaml", recipe_dir / "status"
    config.parent.mkdir()
    config.write_text("decoder_type: greedy\nblank_threshold: auto  # calibrated\n")
    shutil.copytree(recipe_dir / "dump/raw/org/dev", recipe_dir / "dump/raw/dev")
    options = ["--stage", "12", "--stop_stage", "12", "--asr_tag", "x", "--inference_nj", "1"]
    options += ["--inference_config", "conf/decode.yaml", "--max_wer_increase", "2.5"]
    status.write_text("0")
    done = run(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (recipe_dir / "calibrations").read_text() == (
        "calibrate --if-needed --allow-seen-data --exp exp/asr_x "
        "--model-file valid.cer_ctc.ave.pth --data dump/raw/dev --max-wer-increase 2.5 "
        "--shifts default\n"
    )
    assert "dev chose the checkpoint" in done.stdout
    assert len((recipe_dir / "calls").read_text().split()) == 3

    status.write_text("3")
    nothing = run(*options)
    assert nothing.returncode == 0, "off is an answer too"
    assert "nothing is shown to keep the budget" in nothing.stdout
    assert len((recipe_dir / "calls").read_text().split()) == 6, "decoded anew: another setting"

    status.write_text("2")
    failed = run(*options)
    assert failed.returncode == 2
    assert "calibration failed with status 2" in failed.stderr

    fixed = run(*options, "--inference_args", "--blank_threshold 0.9")
    assert fixed.returncode == 0, "an argument wins over the configuration"
    assert len((recipe_dir / "calibrations").read_text().splitlines()) == 3

    status.write_text("0")
    shutil.copytree(recipe_dir / "dump/raw/dev", recipe_dir / "dump/raw/other")
    apart = run(*options, "--calibration_set", "other")
    assert apart.returncode == 0, apart.stdout + apart.stderr
    call = (recipe_dir / "calibrations").read_text().splitlines()[-1]
    assert "--data dump/raw/other" in call
    assert "--allow-seen-data" not in call


def test_shifted_copies_are_made_decoded_and_scored(run: RunRecipe, recipe_dir: Path) -> None:
    options = ["--stage", "12", "--stop_stage", "13", "--asr_tag", "x", "--inference_tag", "inf"]
    options += ["--inference_nj", "1", "--shifts", "gain-20 speed1.1"]
    done = run(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("test", "test_gain-20", "test_speed1.1"):
        assert (recipe_dir / f"exp/asr_x/inf/{name}/score_wer").is_dir(), name
        assert len(read_table(recipe_dir / f"exp/asr_x/inf/{name}/text")) == 3
    samples = [
        int(read_table(recipe_dir / f"dump/raw/{name}/utt2num_samples")["s0-test0"])
        for name in ("test", "test_gain-20", "test_speed1.1")
    ]
    assert samples == [4800, 4800, 4364]


def test_language_models_go_to_decoders_that_use_them(run: RunRecipe, recipe_dir: Path) -> None:
    options = ["--stage", "12", "--stop_stage", "12", "--asr_tag", "x", "--inference_nj", "1"]
    options += ["--use_lm", "true", "--use_ngram", "true"]  # neither is there
    greedy = run(*options, "--inference_args", "--decoder greedy")
    assert greedy.returncode == 0, greedy.stdout + greedy.stderr
    assert "decoder greedy: language models that it cannot use are left out" in greedy.stdout
    [found] = recipe_dir.glob("exp/asr_x/*/test/text")
    assert "lm_" not in str(found.relative_to(recipe_dir))
    assert "gram" not in str(found.relative_to(recipe_dir))
    search = run(*options[:-4], "--use_ngram", "true")
    assert search.returncode == 2
    assert "ESPnet's search takes an n-gram over tokens: --ngram_unit token" in search.stderr


@pytest.mark.parametrize(
    ("config", "args", "told"),
    [
        ("", "", ""),
        ("blank_threshold: auto", "", "auto"),
        ('blank_threshold: "auto"  # calibrated', "--beam_size 3", "auto"),
        ("# blank_threshold: auto", "", ""),
        ("blank_threshold: 0.9", "--x 1 --blank_threshold auto --y 2", "auto"),
        ("blank_threshold: auto", "--blank_threshold=off", "off"),
    ],
)
def test_which_threshold_a_decoding_is_told(
    tmp_path: Path, config: str, args: str, told: str
) -> None:
    (tmp_path / "decode.yaml").write_text(f"decoder_type: greedy\n{config}\n", encoding="utf-8")
    script = 'set -e -u -o pipefail; . "$1"; both="decoder|decoder_type"\n'
    script += 'told blank_threshold "$2" "$3"; told blank_threshold "" "$3"\n'
    script += 'told "${both}" "$2" "--decoder ngram"; told "${both}" "$2" ""'
    stages = TEMPLATE / "utils" / "stages.sh"
    done = subprocess.run(
        ["bash", "-c", script, "x", str(stages), str(tmp_path / "decode.yaml"), args],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = [told, told if args.count("threshold") else "", "ngram", "greedy"]
    assert done.stdout.splitlines() == expected


def test_stage_14_packs_the_calibration_and_what_the_model_needs(
    run: RunRecipe, recipe_dir: Path
) -> None:
    exp = recipe_dir / "exp/asr_x"
    (exp / "calibration.json").write_text("{}", encoding="utf-8")
    (exp / "my stats.npz").touch()  # not where stage 10 has it: the model was retrofitted
    config = exp / "config.yaml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    config.write_text(text + "\nnormalize_conf:\n    stats_file: exp/asr_x/my stats.npz\n")
    options = ["--stage", "14", "--stop_stage", "14", "--asr_tag", "x", "--feats_normalize", "none"]
    done = run(*options)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(exp / "asr_x_valid.cer_ctc.ave.zip") as packed:
        assert {"exp/asr_x/calibration.json", "exp/asr_x/my stats.npz"} <= set(packed.namelist())
    (exp / "my stats.npz").unlink()
    done = run(*options)
    assert done.returncode != 0
    assert "its configuration names normalize_conf: stats_file: exp/asr_x/my stats.npz" in (
        done.stdout + done.stderr
    )
