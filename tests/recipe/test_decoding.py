"""Stages 12 and 13 with a stand-in for the recogniser: parts, failures, going on, results."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from espnet_layerskip.recipe.tables import read_table

from .conftest import REPO, RunRecipe

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
def shim(tmp_path: Path, recipe_dir: Path, run_recipe: RunRecipe) -> str:
    """Return a PYTHONPATH with the stand-in; the recipe is at the end of stage 11."""
    package = tmp_path / "shim" / "espnet_layerskip"
    (package / "bin").mkdir(parents=True)
    (package / "recipe").symlink_to(REPO / "espnet_layerskip" / "recipe")
    for init in (package, package / "bin"):
        (init / "__init__.py").touch()
    (package / "bin" / "asr_inference.py").write_text(RECOGNISER, encoding="utf-8")
    exp = recipe_dir / "exp" / "asr_x"
    exp.mkdir(parents=True)
    (exp / "config.yaml").write_text("encoder: x\n", encoding="utf-8")
    (exp / "valid.cer_ctc.ave.pth").write_bytes(b"weights")
    assert run_recipe("--stage", "3", "--stop_stage", "3").returncode == 0
    return str(package.parent)


def test_decoding_goes_on_and_is_scored(run_recipe: RunRecipe, recipe_dir: Path, shim: str) -> None:
    options = ["--asr_tag", "x", "--inference_tag", "inf", "--inference_nj", "2"]
    calls, text = recipe_dir / "calls", recipe_dir / "exp/asr_x/inf/test/text"
    (recipe_dir / "broken").write_text("s1-test1", encoding="utf-8")
    both = ["--stage", "12", "--stop_stage", "13", *options]
    failed = run_recipe(*both, PYTHONPATH=shim)
    assert failed.returncode != 0
    assert "job 2 failed" in failed.stderr
    assert "cannot decode ['s1-test1']" in failed.stderr
    assert "1 utterance(s) without a result: s1-test1" in failed.stdout
    assert set(read_table(text)) == {"s0-test0", "s0-test2"}, "the others' results are kept"
    assert len(calls.read_text().split()) == 3

    scoring = run_recipe("--stage", "13", "--stop_stage", "13", *options, PYTHONPATH=shim)
    assert scoring.returncode != 0
    assert "1 of 3 utterance(s) have no result: s1-test1" in scoring.stderr

    (recipe_dir / "broken").unlink()
    again = run_recipe(*both, PYTHONPATH=shim)
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
    new = run_recipe("--stage", "12", "--stop_stage", "12", *options, PYTHONPATH=shim)
    assert new.returncode == 0
    assert len(calls.read_text().split()) == 4 + 3, "a new model is decoded anew"


def test_a_model_file_that_is_not_there_lists_those_that_are(
    run_recipe: RunRecipe, shim: str
) -> None:
    done = run_recipe(
        *("--stage", "12", "--stop_stage", "12", "--asr_tag", "x"),
        *("--inference_asr_model", "valid.acc.ave.pth"),
        PYTHONPATH=shim,
    )
    assert done.returncode == 2
    assert "choose one with --inference_asr_model: valid.cer_ctc.ave.pth" in done.stderr
