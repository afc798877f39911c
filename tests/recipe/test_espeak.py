"""The synthetic corpus: the same for everybody, no speaker and no sentence in two sets."""

from __future__ import annotations

import ast
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

import espeak
import espeak_synth
from espeak_voices import speakers
from espnet_layerskip.files import DISK_FULL, DataDir, read_table

REPO = Path(__file__).resolve().parents[2]
RECIPE = REPO / "egs2/espeak/asr1"
# The first utterances of each set of the smoke size.
TINY = f"""
import sys
sys.path.insert(0, {str(RECIPE / "local")!r})
import espeak
espeak.SIZES["tiny"] = (3, 1, 1, 1)
"""

planned = cache(espeak.plan_corpus)  # takes a second; nobody changes it


def start(
    directory: Path, size: str = "tiny", nj: int = 1, code: str = ""
) -> subprocess.Popen[str]:
    """Start making a corpus in a process without threads, as the recipe does."""
    program = f"{TINY}{code}\nespeak.run_main(espeak.main)"
    options = ["--size", size, "--nj", str(nj), "--corpus_dir", "corpus", "--out", "data"]
    return subprocess.Popen(
        [sys.executable, "-c", program, *options],
        cwd=directory,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def make(directory: Path, size: str = "tiny", nj: int = 1, code: str = "") -> tuple[int, str, str]:
    """Make a corpus; return status, output and errors."""
    process = start(directory, size, nj, code)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def checksums(directory: Path) -> dict[str, str]:
    return read_table(directory / "corpus/tiny_seed1/checksums")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny")
    status, _, err = make(directory)
    assert status == 0, err
    return directory


@pytest.fixture
def corpus(tiny: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny corpus, to be spoilt."""
    shutil.copytree(tiny, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("size", ["smoke", "demo"])
def test_sets_share_no_sentence_and_no_voice(size: str) -> None:
    plan = planned(size, 1)
    assert [len(plan[part]) for part in espeak.PARTS] == list(espeak.SIZES[size])
    for what in ("text", "variant", "name"):
        sets = {
            part: {getattr(u if what == "text" else u.speaker, what) for u in utterances}
            for part, utterances in plan.items()
        }
        if what != "text":
            assert sets.pop("dev2") == sets["dev"], "the voices of dev, with other sentences"
        assert sum(map(len, sets.values())) == len(set.union(*sets.values()))
    assert len({u.utt_id for part in plan.values() for u in part}) == sum(espeak.SIZES[size])
    for part in plan.values():
        assert {u.speaker.gender for u in part} == {"f", "m"}
        assert all(u.utt_id.startswith(u.speaker.name) for u in part)


def test_words_of_test_are_known_from_training() -> None:
    plan = planned("demo", 1)
    words = {part: {w for u in plan[part] for w in u.text.split()} for part in plan}
    assert words["dev"] | words["dev2"] | words["test"] <= words["train"]


def test_a_speaker_has_a_voice_of_its_own_and_utterances_vary() -> None:
    part = planned("demo", 1)["train"]
    name = part[0].speaker.name
    manners = [u.manner for u in part if u.speaker.name == name]
    assert len({m.voice for m in manners}) == 1
    assert len({(m.words_per_minute, m.pitch, m.word_gap) for m in manners}) > len(manners) / 2
    assert len({u.snr_db for u in part}) > 100
    assert any(pause for u in part for pause in u.pauses_ms)


def test_sizes_share_their_beginnings_and_seeds_differ() -> None:
    small, large = planned("smoke", 1), planned("demo", 1)
    for part in small:
        assert small[part] == large[part][: len(small[part])]
    other = espeak.plan_corpus("smoke", 2)
    assert not {u.text for u in other["train"]} <= {u.text for u in small["train"]}


@pytest.mark.parametrize(
    ("size", "seed", "message"),
    [
        ("huge", 1, "size 'huge': choose one of smoke, demo, medium, large"),
        ("smoke", -1, "seed -1: an integer from 0 on is needed"),
    ],
)
def test_a_wrong_size_or_seed_is_refused(size: str, seed: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        espeak.plan_corpus(size, seed)


def test_every_voice_says_the_same_in_every_process() -> None:
    """Some of espeak-ng's variants do not; none of them may be among the speakers."""
    voices = sorted({speaker.voice for part in speakers().values() for speaker in part})
    code = f"""
import hashlib, sys
sys.path.insert(0, {str(RECIPE / "local")!r})
from espeak_synth import Manner, load_espeak, synthesize
from forks import map_in_forks

def say(voice):
    x, _ = synthesize("six sixty church", Manner(voice, 170, 50, 50, 0))
    return voice, hashlib.sha256(x.tobytes()).hexdigest()

load_espeak()
print(sorted(map_in_forks(say, {voices}, 1)))
"""
    said = []
    for filler in ("", "x" * 5000):  # moves what lies in memory
        env = os.environ | {"FILLER": filler}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said.append(dict(ast.literal_eval(done.stdout)))
    assert said[0].keys() == said[1].keys() == set(voices)
    assert not [voice for voice in voices if said[0][voice] != said[1][voice]]


def test_letters_are_said_by_their_names() -> None:
    assert espeak_synth.to_ssml(["J", "A", "Y"], [0, 90, 0]) == 'j ay <break time="90ms"/> y'


def test_the_tables_and_the_audio(tiny: Path) -> None:
    plan = planned("smoke", 1)
    for part, count in (("train", 3), ("dev", 1), ("dev2", 1), ("test", 1)):
        data = DataDir.load(tiny / "data" / part)
        assert data.text == {u.utt_id: u.text for u in plan[part][:count]}
        for path in data.wav.values():
            x, rate = soundfile.read(tiny / path, dtype="int16")
            assert (soundfile.info(tiny / path).format, rate) == ("FLAC", 16000)
            assert 1.0 < len(x) / rate < 30.0
            assert 0 < np.abs(x.astype(int)).max() < 32767
            assert x[:800].std() > 0, "there is noise in the silence"


def test_the_same_files_whatever_the_number_of_jobs_or_the_size(tiny: Path, tmp_path: Path) -> None:
    """All of the smoke size are compared in test_stages_1_to_5_of_the_recipe."""
    status, _, err = make(tmp_path, nj=3)
    assert status == 0, err
    assert checksums(tmp_path) == checksums(tiny)
    # Made on x86-64; the samples may differ in their last bits on another kind of processor.
    assert checksums(tiny).items() < read_table(RECIPE / "local/smoke.sha256").items()


def test_a_half_made_corpus_is_completed(corpus: Path, tiny: Path) -> None:
    directory = corpus / "corpus/tiny_seed1"
    files = sorted(directory.rglob("*-train*.flac"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:1000])
    journal = directory / "made"
    journal.write_text(journal.read_text()[:-30])  # the last line is cut
    status, out, err = make(corpus, nj=2)
    assert status == 0, err
    assert "3 of 6 utterances are there" in out
    assert checksums(corpus) == checksums(tiny)
    status, out, _ = make(corpus)
    assert "6 of 6 utterances are there" in out


def test_another_version_makes_the_corpus_anew(corpus: Path) -> None:
    (corpus / "corpus/tiny_seed1/settings").write_text("size tiny, seed 1, espeak-ng 0.1\n")
    _, out, _ = make(corpus)
    assert "made with other settings or another version; making it anew" in out
    assert "0 of 6 utterances are there" in out


def test_interrupted_it_says_so_and_goes_on(tmp_path: Path, tiny: Path) -> None:
    code = """
import time
record = espeak.record
def stuck(utterance):
    if utterance.utt_id.endswith("train00002"):
        time.sleep(300)
    return record(utterance)
espeak.record = stuck
"""
    process = start(tmp_path, code=code)
    journal = tmp_path / "corpus/tiny_seed1/made"
    until = time.monotonic() + 120
    while not (journal.is_file() and "train00001" in journal.read_text()):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted; run it again to go on" in err
    status, out, err = make(tmp_path)
    assert status == 0, err
    assert "2 of 6 utterances are there" in out
    assert checksums(tmp_path) == checksums(tiny)


def test_without_espeakng_loader_it_says_how_to_get_it(tmp_path: Path) -> None:
    status, _, err = make(tmp_path, code="sys.modules['espeakng_loader'] = None")
    assert status == 1
    assert "espeakng-loader is not installed; 'make setup' installs it" in err
    assert "Traceback" not in err


def test_a_library_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    code = (
        "import espeakng_loader\n"
        "espeakng_loader.get_library_path = lambda: '/no/such/libespeak-ng.so'"
    )
    status, _, err = make(tmp_path, code=code)
    assert status == 1
    assert "espeakng-loader's library cannot be used (/no/such/libespeak-ng.so" in err


def test_too_little_space_is_noticed_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 2_000_000)
    )
    with pytest.raises(ValueError, match="200 MB are needed, but only 2 MB are free; free some"):
        espeak.check_space(tmp_path, 1000)


def test_a_disk_that_gets_full_is_said_with_the_remedy(tmp_path: Path, tiny: Path) -> None:
    code = (
        "write = espeak.write_audio\n"
        "def full(path, x, rate):\n"
        "    if 'train00002' in path.name:\n"
        f"        raise OSError({errno.ENOSPC}, 'No space left on device', str(path))\n"
        "    write(path, x, rate)\n"
        "espeak.write_audio = full"
    )
    status, _, err = make(tmp_path, code=code)
    assert status == 1
    assert "No space left on device: 'corpus/tiny_seed1/f1rp/f1rp-train00002.flac'" in err
    assert DISK_FULL in err
    status, out, _ = make(tmp_path)
    assert "2 of 6 utterances are there" in out
    assert checksums(tmp_path) == checksums(tiny)


@pytest.mark.slow
def test_stages_1_to_5_of_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "egs2/espeak/asr1"
    recipe.mkdir(parents=True)
    for name in ("asr.sh", "cmd.sh", "path.sh", "utils", "run.sh", "local", "conf"):
        (recipe / name).symlink_to(RECIPE / name)
    done = subprocess.run(
        ["./run.sh", "--size", "smoke", "--stop_stage", "5", "--python", sys.executable],
        cwd=recipe,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = read_table(recipe / "downloads/espeak/smoke_seed1/checksums")
    assert made == read_table(RECIPE / "local/smoke.sha256")
    assert len(DataDir.load(recipe / "dump/raw/train").wav) == 40
    assert len(DataDir.load(recipe / "dump/raw/test").wav) == 10
    assert len(DataDir.load(recipe / "dump/raw/dev2").wav) == 10
    tokens = (recipe / "data/en_token_list/word/tokens.txt").read_text().split()
    words = {word for u in planned("smoke", 1)["train"] for word in u.text.split()}
    assert {*tokens} == words | {"<blank>", "<unk>", "<sos/eos>"}
