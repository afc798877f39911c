"""asr.sh on a tiny corpus: stages 1-5 and what is refused there."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch

from espnet_layerskip.files import DataDir, read_table

from .conftest import TEMPLATE, RunRecipe, write_noise

pytestmark = pytest.mark.slow  # every stage starts processes of its own


def append(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as out:
        out.write(line + "\n")


def set_entry(data_dir: Path, table: str, utt: str, value: str) -> None:
    data = DataDir.load(data_dir)
    getattr(data, table)[utt] = value
    data.save(data_dir)


def test_stages_1_to_5_make_espnets_directories(run_recipe: RunRecipe, recipe_dir: Path) -> None:
    done = run_recipe("--stop_stage", "5", "--lang", "en", "--speed_perturb_factors", "0.9 1.0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Successfully finished. [elapsed=" in done.stdout
    train = DataDir.load(recipe_dir / "dump/raw/train_sp")
    assert len(train.wav) == 12
    assert train.utt2spk["sp0.9-s0-train0"] == "sp0.9-s0"
    assert train.text["sp0.9-s0-train0"] == train.text["s0-train0"] == "YES"
    samples = read_table(recipe_dir / "dump/raw/train_sp/utt2num_samples")
    assert samples["s0-train0"] == "4800"
    assert int(samples["sp0.9-s0-train0"]) == pytest.approx(4800 / 0.9, abs=2)
    for dset in ("dev", "test"):
        wav = DataDir.load(recipe_dir / "dump/raw" / dset).wav
        for path in wav.values():
            info = soundfile.info(str(recipe_dir / path))
            assert (info.format, info.samplerate, info.channels) == ("FLAC", 16000, 1)
    tokens = (recipe_dir / "data/en_token_list/char/tokens.txt").read_text().split("\n")[:-1]
    assert tokens[:2] == ["<blank>", "<unk>"]
    assert tokens[-1] == "<sos/eos>"
    assert set(tokens[2:-1]) == set("".join(train.text.values()).replace(" ", "")) | {"<space>"}
    start = torch.load(recipe_dir / "data/en_token_list/char/blank_bias.pth", weights_only=True)
    assert list(start) == ["ctc.ctc_lo.bias"]
    assert len(start["ctc.ctc_lo.bias"]) == len(tokens)
    assert start["ctc.ctc_lo.bias"].softmax(0)[0] == pytest.approx(0.5)


def test_broken_audio_stops_stage_3_and_every_file_is_named(
    run_recipe: RunRecipe, recipe_dir: Path
) -> None:
    bad = Path(DataDir.load(recipe_dir / "data/train").wav["s1-train1"])
    bad.write_bytes(b"this is no audio")
    set_entry(recipe_dir / "data/train", "wav", "s0-train2", str(bad.with_name("gone.wav")))
    done = run_recipe("--stage", "3", "--stop_stage", "3")
    assert done.returncode != 0
    assert "2 of 6 utterance(s) cannot be used" in done.stderr
    assert "s1-train1" in done.stderr
    assert "cannot be decoded" in done.stderr
    assert "utterance s0-train2: " in done.stderr
    assert "gone.wav: no such audio file" in done.stderr
    assert "Stage 3 failed" in done.stderr
    again = run_recipe("--stage", "3", "--stop_stage", "3", "--skip_broken_audio", "true")
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("left out: ") == 2
    assert len(DataDir.load(recipe_dir / "dump/raw/org/train").wav) == 4


def test_a_pipe_in_wav_scp_is_refused_by_name(run_recipe: RunRecipe, recipe_dir: Path) -> None:
    set_entry(recipe_dir / "data/test", "wav", "s0-test2", "touch hacked; cat x.wav |")
    done = run_recipe("--stage", "3", "--stop_stage", "3", "--skip_broken_audio", "true")
    assert done.returncode != 0
    assert "s0-test2" in done.stderr
    assert "no command is run from a table" in done.stderr
    assert not (recipe_dir / "hacked").exists()


def test_stage_4_names_what_it_leaves_out(run_recipe: RunRecipe, recipe_dir: Path) -> None:
    data_dir = recipe_dir / "data/train"
    set_entry(data_dir, "text", "s0-train0", "")
    wav = DataDir.load(data_dir).wav
    write_noise(Path(wav["s1-train1"]), seconds=0.05)
    write_noise(Path(wav["s0-train2"]), seconds=1.5)
    done = run_recipe("--stage", "3", "--stop_stage", "4", "--max_wav_duration", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "s0-train0: its transcript is empty" in done.stdout
    assert "s1-train1: 0.05 s is not above min_wav_duration 0.1 s" in done.stdout
    assert "s0-train2: 1.50 s is not below max_wav_duration 1.0 s" in done.stdout
    kept = set(DataDir.load(recipe_dir / "dump/raw/train").wav)
    assert kept == {"s1-train3", "s0-train4", "s1-train5"}


def test_ids_that_differ_are_named(run_recipe: RunRecipe, recipe_dir: Path) -> None:
    append(recipe_dir / "data/dev/text", "s9-stranger HELLO")
    done = run_recipe("--stage", "3", "--stop_stage", "3")
    assert done.returncode != 0
    assert "1 id(s) are in text but not in wav.scp: s9-stranger" in done.stderr


def test_word_and_bpe_tokens(run_recipe: RunRecipe, recipe_dir: Path) -> None:
    assert run_recipe("--stage", "3", "--stop_stage", "4").returncode == 0
    assert run_recipe("--stage", "5", "--stop_stage", "5", "--token_type", "word").returncode == 0
    words = (recipe_dir / "data/token_list/word/tokens.txt").read_text().split()
    # by falling count; with the same count as the sorted utterances bring them
    assert " ".join(words) == "<blank> <unk> YES GO HOME ONE TWO NO STOP <sos/eos>"
    bpe = ["--stage", "5", "--stop_stage", "5", "--token_type", "bpe"]
    assert run_recipe(*bpe, "--nbpe", "15").returncode == 0
    tokens = (recipe_dir / "data/token_list/bpe_unigram15/tokens.txt").read_text().split()
    assert len(tokens) == len(set(tokens)) == 15  # <s>, </s> of the 15 pieces go, two come
    assert (recipe_dir / "data/token_list/bpe_unigram15/bpe.model").is_file()
    done = run_recipe(*bpe, "--nbpe", "5000")
    assert done.returncode != 0
    assert "nbpe=5000" in done.stderr


def test_a_stage_whose_input_is_missing_says_which_stage_makes_it(run_recipe: RunRecipe) -> None:
    for stage, hint in (
        ("5", "dump/raw/train/text; stages 3 and 4 make"),
        ("10", "stage 5 makes it"),
        ("12", "stage 11 makes it"),
        ("13", "test/text; stage 12 makes it"),
        ("3 --test_sets gone", "data/gone/wav.scp; stages 1 and 2 make it"),
        ("5 --nlsyms_txt gone", "no such file: gone; --nlsyms_txt names it"),
        ("14", "config.yaml; stage 11 makes it"),
    ):
        number, *options = stage.split()
        done = run_recipe("--stage", number, "--stop_stage", number, *options)
        assert done.returncode != 0
        assert hint in done.stderr


def test_options_with_which_nothing_would_run_are_refused(run_recipe: RunRecipe) -> None:
    """Or with which hours pass before a missing file is named."""
    for options, message in (
        ("--stage 5 --stop_stage 3", "--stage 5 --stop_stage 3: no stage is in between"),
        ("--stage 17", "there are 1 to 16"),
        ("--skip_stages 2,14", "--skip_stages '2,14': numbers are needed, joined by spaces"),
        ("--nj 0", "--nj '0': an integer from 1 on is needed"),
        ("--asr_config gone.yaml", "no such file: gone.yaml; configurations here"),
        ("--inference_config gone.yaml", "no such file: gone.yaml"),
    ):
        done = run_recipe(*options.split())
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
        assert "Stage 1" not in done.stdout


def test_stages_without_a_language_model_say_so(run_recipe: RunRecipe) -> None:
    done = run_recipe("--stage", "6", "--stop_stage", "9")
    assert done.returncode == 0
    for number, option in ((6, "lm"), (7, "lm"), (8, "lm"), (9, "ngram")):
        assert f"Stage {number}: Skipped: no --use_{option} true" in done.stdout
    refused = run_recipe("--ngram_unit", "phone")
    assert refused.returncode == 2
    assert "choose word or token" in refused.stderr


@pytest.mark.parametrize(("unit", "tokens"), [("word", "GO HOME"), ("token", "<space>")])
def test_ngram_of_the_unperturbed_text(
    run_recipe: RunRecipe, recipe_dir: Path, unit: str, tokens: str
) -> None:
    options = ("--use_ngram", "true", "--ngram_unit", unit, "--ngram_num", "2")
    done = run_recipe("--stage", "9", "--stop_stage", "9", *options)
    assert done.returncode == 0, done.stderr
    arpa = (recipe_dir / f"exp/ngram_{unit}/2gram.arpa").read_text()
    assert tokens in arpa
    words = (recipe_dir / f"exp/ngram_{unit}/words.txt").read_text().split()
    assert words == ["GO", "HOME", "NO", "ONE", "STOP", "TWO", "YES"]
    missing = run_recipe("--stage", "12", "--stop_stage", "12", "--use_ngram", "true")
    assert missing.returncode == 2


@pytest.mark.slow
def test_neural_language_model(run_recipe: RunRecipe, recipe_dir: Path) -> None:
    debug = TEMPLATE.parents[1] / "an4/asr1/conf/train_lm_debug.yaml"
    options = ("--use_lm", "true", "--lm_config", str(debug), "--ngpu", "0")
    done = run_recipe("--stage", "3", "--stop_stage", "8", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    lm = recipe_dir / "exp/lm_train_lm_debug_char"
    assert (lm / "valid.loss.ave.pth").exists()
    assert 1.0 < float((lm / "perplexity_test/ppl").read_text()) < 100.0
