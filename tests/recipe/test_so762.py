"""speechocean762: its layout, sets apart by speaker and sentence, scores, and what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

import so762
from espnet_layerskip.files import DataDir, write_table

from .conftest import REPO, write_noise

RECIPE = REPO / "egs2/speechocean762/asr1"
SPEAKERS = 40


def make_corpus(root: Path, *, scores: bool = True) -> Path:
    """Write train and test of 40 speakers with two sentences each; the first is in both parts."""
    found = {}
    for part, first in (("train", 0), ("test", SPEAKERS)):
        wav, text, utt2spk, age = {}, {}, {}, {}
        for i in range(SPEAKERS):
            speaker = f"{first + i:04}"
            age[speaker] = str(6 + i % 24)
            for j in range(2):
                utt = f"{speaker}{j:05}"
                wav[utt] = f"WAVE/SPEAKER{speaker}/{utt}.WAV"
                text[utt] = f"{part.upper()} SENTENCE {i} {j}" if i + j else "THE SAME"
                utt2spk[utt] = speaker
                words = [{"text": word, "accuracy": 10 if j else 3} for word in text[utt].split()]
                found[utt] = {"text": text[utt], "accuracy": 9, "words": words}
                write_noise(root / wav[utt], 0.1, seed=i)
        for name, table in (("wav.scp", wav), ("text", text), ("utt2spk", utt2spk)):
            write_table(root / part / name, table)
        write_table(root / part / "spk2age", age)
    if scores:
        (root / "resource").mkdir()
        (root / "resource/scores.json").write_text(json.dumps(found))
    return root


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("so762") / "speechocean762")


def test_the_sets_share_neither_speakers_nor_sentences(corpus: Path, tmp_path: Path) -> None:
    sets = so762.prepare(corpus, tmp_path / "data", check_counts=False)
    parts = [DataDir.load(tmp_path / "data" / name) for name in ("train", "dev", "calib", "test")]
    speakers = [set(part.utt2spk.values()) for part in parts]
    assert [len(one) for one in speakers] == [14, 10, 16, 40]
    assert len(set.union(*speakers)) == 80
    texts = [set(part.text.values()) for part in parts]
    assert len(set.union(*texts)) == sum(map(len, texts)), "the common sentence is in test only"
    assert len(sets["train"].wav) + len(sets["dev"].wav) + len(sets["calib"].wav) == 79
    assert sets["test_adult"].wav | sets["test_child"].wav == sets["test"].wav
    assert len(set(sets["test_child"].utt2spk.values())) == 24
    assert all(Path(path).is_file() for path in sets["test"].wav.values())


def test_held_out_speakers_have_all_ages() -> None:
    ages = {f"{i:03}": 6 + i % 30 for i in range(120)}
    chosen = so762.speakers_apart(ages, {"dev": 10, "calib": 16})
    assert chosen == so762.speakers_apart(dict(reversed(ages.items())), {"dev": 10, "calib": 16})
    assert not set(chosen["dev"]) & set(chosen["calib"])
    for speakers in chosen.values():
        found = sorted(ages[speaker] for speaker in speakers)
        assert sum(age < 18 for age in found) == len(found) // 2
        assert found[0] < 9
        assert found[-1] > 31
    with pytest.raises(ValueError, match="12 speakers of one age group are too few"):
        so762.speakers_apart({f"{i}": 6 + i for i in range(24)}, {"dev": 10, "calib": 16})


def test_the_clean_set_is_what_was_said(corpus: Path, tmp_path: Path) -> None:
    clean = so762.prepare(corpus, tmp_path / "data", check_counts=False)["test_clean"]
    assert set(clean.wav) == {f"{i:04}00001" for i in range(SPEAKERS, 2 * SPEAKERS)}
    score = {"text": "a b", "accuracy": 8, "words": [{"accuracy": 9}, {"accuracy": 4}]}
    assert so762.said_as_written("A B", score)
    assert not so762.said_as_written("A C", score)
    assert not so762.said_as_written("A B", score | {"accuracy": [6, 7]})
    assert not so762.said_as_written("A B", score | {"words": [{"accuracy": [1, 5]}]})


def test_scores_of_the_first_release(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = make_corpus(tmp_path / "bare", scores=False)
    assert "test_clean" not in so762.prepare(bare, tmp_path / "data", check_counts=False)
    assert "no test_clean" in caplog.text
    scores = json.loads((corpus / "resource/scores.json").read_text())
    table = {utt: json.dumps(score).lower() for utt, score in scores.items()}
    write_table(tmp_path / "scores/test_utt2score", table)
    sets = so762.prepare(bare, tmp_path / "data", scores=tmp_path / "scores", check_counts=False)
    assert len(sets["test_clean"].wav) == SPEAKERS
    (tmp_path / "scores/test_utt2score").write_text("000400001 {\n")
    with pytest.raises(ValueError, match="test_utt2score:1: no JSON object follows the id"):
        so762.read_scores(bare, "test", tmp_path / "scores")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="looked for train/wav.scp .* found no such directory"):
        so762.find_root(tmp_path / "nowhere")
    root = make_corpus(tmp_path / "speechocean762")
    assert so762.find_root(tmp_path) == root
    with pytest.raises(ValueError, match="train: 80 utterances; speechocean762 has 2500"):
        so762.prepare(root, tmp_path / "data")
    (root / "WAVE/SPEAKER0003/000300001.WAV").unlink()
    with pytest.raises(ValueError, match="1 audio file.s. missing: .*000300001.WAV"):
        so762.read_part(root, "train")
    write_table(root / "test/spk2age", {"0040": "old"})
    with pytest.raises(ValueError, match="39 speaker.s. without an age"):
        so762._ages(root / "test/spk2age", so762.read_part(root, "test"))


def test_data_sh_takes_its_options(corpus: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "asr1"
    recipe.mkdir()
    for name in ("path.sh", "utils", "local"):
        (recipe / name).symlink_to((RECIPE / name).resolve())
    command = ["local/data.sh", "--python", sys.executable, "--so762_root", str(corpus)]
    subprocess.run([*command, "--check_counts", "false"], cwd=recipe, check=True)
    assert len(DataDir.load(recipe / "data/test").wav) == 80


def test_a_download_is_used(corpus: Path, tmp_path: Path) -> None:
    server = tmp_path / "server"
    server.mkdir()
    with tarfile.open(server / "so762.tar.gz", "w:gz") as tar:
        tar.add(corpus, arcname="speechocean762")
    for _ in range(2):  # the second time, nothing is fetched
        root = so762.download((server / "so762.tar.gz").as_uri(), tmp_path / "downloads")
        assert len(so762.prepare(root, tmp_path / "data", check_counts=False)["test"].wav) == 80
        (server / "so762.tar.gz").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"cannot be downloaded .*--so762_root"):
        so762.download("http://127.0.0.1:9", tmp_path / "other")


def test_data_of_two_corpora(corpus: Path, tmp_path: Path) -> None:
    so762.prepare(corpus, tmp_path / "data", check_counts=False)
    sources = [tmp_path / "data/dev", tmp_path / "data/calib"]
    assert len(so762.combine(sources, tmp_path / "both").wav) == 51
    with pytest.raises(ValueError, match=r"20 id\(s\) came before"):
        so762.combine([sources[0], sources[0]], tmp_path / "both")


@pytest.mark.parametrize("kind", ["conformer", "e_branchformer"])
def test_twins_differ_in_the_method_alone(kind: str) -> None:
    stock, ours = (
        yaml.safe_load((RECIPE / f"conf/train_asr_{name}.yaml").read_text())
        for name in (kind, "layerskip" + ("" if kind == "conformer" else f"_{kind}"))
    )
    assert ours.pop("encoder") == f"layerskip_{stock.pop('encoder')}"
    stock.pop("init_param")  # ours starts so by itself
    assert stock.pop("encoder_conf").items() <= ours.pop("encoder_conf").items()
    assert stock.pop("model_conf").items() <= ours.pop("model_conf").items()
    assert (stock.pop("model"), ours.pop("model")) == ("espnet", "layerskip")
    assert stock == ours


STAND_IN = """#!/bin/sh
# In the place of Python: notes its arguments, writes the page that is asked for.
case "$2" in *.cli|*.compare_exps) ;; *) exit 0 ;; esac
echo "$*" >> calls.txt
case "$*" in *calibrate*) exit "${STATUS:-0}" ;; esac
while [ $# -gt 0 ]; do
    [ "$1" = --output ] && mkdir -p "$2" && printf '# Title\\n\\n## Rows\\n' > "$2/compare.md"
    shift
done
"""


def test_results_of_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("path.sh", "utils", "local"):
        (tmp_path / name).symlink_to((RECIPE / name).resolve())
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = ["local/results.sh", "--python", "./python", *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    def trained(name: str, checkpoint: str = "valid.cer_ctc.ave.pth") -> None:
        path = tmp_path / f"exp/asr_{name}/{checkpoint}"
        path.parent.mkdir(parents=True)
        path.touch()

    trained("conformer_seed2")
    nothing = run()
    assert nothing.returncode == 1
    assert "none of exp/asr_{layerskip,retrofit}_seedN was trained (seeds: 1 2 3)" in nothing.stderr

    trained("retrofit_seed2", "valid.loss.best.pth")
    assert run("--seeds", "2", "--output", "SEED2.md").returncode == 0
    page = (tmp_path / "SEED2.md").read_text()
    assert "## Test set\n\n### Rows\n" in page
    for status, there, expected in ((3, False, 0), (1, False, 1), (1, True, 0), (2, True, 2)):
        monkeypatch.setenv("STATUS", str(status))
        if there:
            (tmp_path / "exp/asr_retrofit_seed2/calibration.json").touch()
        found = run("--seeds", "2", "--output", "SEED2.md")
        assert (found.returncode, found.stderr) == (expected, "")
    monkeypatch.delenv("STATUS")
    assert "# Title" not in page
    calls = (tmp_path / "calls.txt").read_text()
    assert "--exp stock=exp/asr_conformer_seed2 retrofitted=exp/asr_retrofit_seed2 --row" in calls
    assert "ours" not in calls

    trained("retrofit_char_seed2", "valid.loss.best.pth")
    (tmp_path / "data/an4/test").mkdir(parents=True)
    options = ("--variant", "char", "--parts", "false", "--output", "CHAR.md")
    assert run(*options).returncode == 0
    calls = (tmp_path / "calls.txt").read_text()
    assert "--exp retrofitted=exp/asr_retrofit_char_seed2" in calls
    assert "--data dump/raw/test --output exp/compare/CHAR/dump_raw_test" in calls
    assert "--data data/an4/test --output exp/compare/CHAR/data_an4_test" in calls
    page = (tmp_path / "CHAR.md").read_text()
    assert "## AN4\n" in page
    assert "## Adults" not in page

    trained("e_branchformer_seed2")
    trained("retrofit_e_branchformer_seed2", "valid.loss.best.pth")
    assert run("--network", "e_branchformer", "--output", "E.md").returncode == 0
    calls = (tmp_path / "calls.txt").read_text()
    expected = (
        "stock=exp/asr_e_branchformer_seed2 retrofitted=exp/asr_retrofit_e_branchformer_seed2"
    )
    assert f"--exp {expected} --row" in calls

    trained("layerskip_seed1")
    assert run().returncode == 0
    calls = (tmp_path / "calls.txt").read_text()
    assert "ours=exp/asr_layerskip_seed1 retrofitted=exp/asr_retrofit_seed2" in calls
