"""Scoring against hand counts, and sclite against jiwer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from espnet_layerskip.evaluation.scoring import Counts, count_errors
from espnet_layerskip.files import DataDir, write_table
from espnet_layerskip.recipe import score as scoring
from espnet_layerskip.recipe.score_table import format_table, read_average
from espnet_layerskip.recipe.show_asr_result import show_asr_result

REF = {"a-1": "A B C D", "a-2": "ONE TWO", "b-1": "X", "b-2": ""}
HYP = {"a-1": "A X C", "a-2": "ONE TWO", "b-1": "X Y Z", "b-2": ""}


def write_ref(directory: Path, ref: dict[str, str]) -> Path:
    spk = {utt: utt.split("-")[0] for utt in ref}
    DataDir(dict.fromkeys(ref, "x.wav"), ref, spk).save(directory)
    return directory


def test_counts_by_hand() -> None:
    assert count_errors([], []) == Counts(1)
    assert count_errors([], ["a"]) == Counts(1, ins=1, wrong_sentences=1)
    assert count_errors(["a", "b"], []) == Counts(1, deletions=2, wrong_sentences=1)
    assert count_errors(["a", "b"], ["b"]) == Counts(1, 1, 0, 1, 0, 1)
    assert count_errors(["a"], ["A"]) == Counts(1, sub=1, wrong_sentences=1)  # case counts


def test_the_table_by_hand(tmp_path: Path) -> None:
    write_table(tmp_path / "text", HYP)
    ref_dir = write_ref(tmp_path / "ref", REF)
    wer, cer = scoring.score(ref_dir, tmp_path / "text", tmp_path / "exp/d/t", scorer="jiwer")
    # 7 reference words: B -> X, D deleted, Y and Z inserted; 2 of 4 sentences are wrong
    assert " ".join(read_average(wer.read_text())) == "4 7 71.4 14.3 14.3 28.6 57.1 50.0"
    # 15 characters with spaces: B -> X; ' D' deleted; ' Y Z' inserted
    assert " ".join(read_average(cer.read_text())) == "4 15 80.0 6.7 13.3 26.7 46.7 50.0"
    results = show_asr_result(tmp_path / "exp")
    assert "|dataset|Snt|Wrd|Corr|Sub|Del|Ins|Err|S.Err|" in results
    assert "|d/t|4|7|71.4|14.3|14.3|28.6|57.1|50.0|" in results
    assert "Scored by jiwer." in results


@pytest.mark.skipif(scoring.find_sclite() is None, reason="sclite is not installed (Debian: sctk)")
def test_sclite_and_jiwer_count_the_same_errors(tmp_path: Path) -> None:
    rng = random.Random(0)
    words = ["ONE", "TWO", "THREE", "GO", "STOP"]
    ref = {f"s{i % 3}-{i}": " ".join(rng.choices(words, k=rng.randint(1, 8))) for i in range(40)}
    hyp = {}
    for utt, text in ref.items():
        kept = [w for w in text.split() if rng.random() > 0.1]
        hyp[utt] = " ".join(rng.choice(words) if rng.random() < 0.15 else w for w in kept)
    write_table(tmp_path / "text", hyp)
    ref_dir = write_ref(tmp_path / "ref", ref)
    for kind in (0, 1):
        rows = []
        for scorer in ("sclite", "jiwer"):
            files = scoring.score(ref_dir, tmp_path / "text", tmp_path / scorer, scorer=scorer)
            rows.append(read_average(files[kind].read_text()))
        # Snt, Wrd, Err and S.Err: ties may be split otherwise into Sub, Del and Ins.
        assert [rows[0][i] for i in (0, 1, 6, 7)] == [rows[1][i] for i in (0, 1, 6, 7)]
        assert float(rows[0][6]) > 5


def test_missing_results_are_named_or_counted_as_empty(tmp_path: Path) -> None:
    ref_dir = write_ref(tmp_path / "ref", REF)
    write_table(tmp_path / "text", {k: v for k, v in HYP.items() if k != "b-1"})
    with pytest.raises(ValueError, match=r"1 of 4 utterance\(s\) have no result: b-1"):
        scoring.score(ref_dir, tmp_path / "text", tmp_path / "out")
    wer = scoring.score(
        ref_dir, tmp_path / "text", tmp_path / "out", scorer="jiwer", missing_as_empty=True
    )[0]
    assert read_average(wer.read_text())[6] == "42.9"  # B -> X, D and X deleted
    write_table(tmp_path / "text", HYP | {"c-9": "EXTRA"})
    with pytest.raises(ValueError, match=r"1 result\(s\) have no reference: c-9"):
        scoring.score(ref_dir, tmp_path / "text", tmp_path / "out")


def test_an_unknown_scorer_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scorer 'x': choose one of auto, sclite, jiwer"):
        scoring.score(tmp_path, tmp_path, tmp_path, scorer="x")


def test_speaker_rows_add_up() -> None:
    counts = {"a-1": Counts(1, 3, 1), "a-2": Counts(1, 1, 0, 1), "b-1": Counts(1, 2)}
    table = format_table(counts, {"a-1": "a", "a-2": "a", "b-1": "b"})
    assert read_average(table)[:3] == ["3", "8", "75.0"]
    assert "| a       |    2     6 |" in table
    with pytest.raises(ValueError, match="Sum/Avg"):
        read_average("nothing")


def test_results_without_scores_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stage 13 makes them"):
        show_asr_result(tmp_path)
