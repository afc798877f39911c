"""Stage 13: WER, CER and TER of one decoded test set, by sclite where it is installed, else jiwer.

Writes ``score_{wer,cer,ter}/{ref.trn,hyp.trn,result.txt}`` as ESPnet does. Both scorers compare
letters with their case.

Example::

    python -m espnet_layerskip.recipe.score --ref dump/raw/test --hyp DIR/text --output DIR
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
from pathlib import Path

from espnet_layerskip.evaluation.scoring import count_errors
from espnet_layerskip.files import read_table, run_main, some, write_text
from espnet_layerskip.recipe.score_table import format_table
from espnet_layerskip.recipe.tokenizer import make_tokenizer, read_symbols

SCORERS = ("auto", "sclite", "jiwer")


def find_sclite() -> list[str] | None:
    """Return the command of sclite ('sclite', or Debian's 'sctk sclite'), or None."""
    if shutil.which("sclite"):
        return ["sclite"]
    return ["sctk", "sclite"] if shutil.which("sctk") else None


def match_ids(ref: dict[str, str], hyp: dict[str, str], missing_as_empty: bool) -> dict[str, str]:
    """Return the hypotheses in the order of the references.

    Raises:
        ValueError: Ids that only one side has; those without a result are named.
    """
    extra = hyp.keys() - ref.keys()
    if extra:
        raise ValueError(f"{len(extra)} result(s) have no reference: {some(extra, 50)}")
    missing = [utt for utt in ref if utt not in hyp]
    if missing and not missing_as_empty:
        raise ValueError(
            f"{len(missing)} of {len(ref)} utterance(s) have no result: {some(missing, 50)}\n"
            "Decode them (stage 12 goes on with what is missing), or count them as empty with "
            "--missing_as_empty true"
        )
    if missing:
        logging.warning("scored as empty, %d: %s", len(missing), some(missing, 50))
    return {utt: hyp.get(utt, "") for utt in ref}


def run_sclite(command: list[str], directory: Path) -> str:
    """Score directory/ref.trn against hyp.trn.

    Raises:
        ValueError: sclite failed; its message is given.
    """
    files = ["-r", str(directory / "ref.trn"), "trn", "-h", str(directory / "hyp.trn"), "trn"]
    options = ["-s", "-i", "rm", "-o", "all", "stdout"]
    done = subprocess.run([*command, *files, *options], capture_output=True, check=False)
    out = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0 or "Sum/Avg" not in out:
        message = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise ValueError(f"{' '.join(command)} failed on {directory}: {message}")
    return out


def score(
    ref_dir: Path,
    hyp_file: Path,
    output: Path,
    *,
    scorer: str = "auto",
    nlsyms_txt: str = "none",
    bpemodel: str = "none",
    missing_as_empty: bool = False,
) -> list[Path]:
    """Score a test set at word, character and (with a SentencePiece model) token level.

    Returns:
        The result.txt files.

    Raises:
        ValueError: Ids that do not match, or a scorer that is unknown or not installed.
    """
    if scorer not in SCORERS:
        raise ValueError(f"scorer '{scorer}': choose one of {', '.join(SCORERS)}")
    sclite = find_sclite() if scorer != "jiwer" else None
    if scorer == "sclite" and sclite is None:
        raise ValueError(
            "scorer 'sclite': not installed (Debian: apt-get install sctk); or use jiwer"
        )
    ref = read_table(ref_dir / "text", allow_empty_value=True)
    utt2spk = read_table(ref_dir / "utt2spk")
    if unknown := ref.keys() - utt2spk.keys():
        raise ValueError(f"{ref_dir}/utt2spk: no speaker of {some(unknown)}")
    hyp = match_ids(ref, read_table(hyp_file, allow_empty_value=True), missing_as_empty)
    symbols = set(read_symbols(nlsyms_txt))
    kinds = {"wer": "word", "cer": "char"}
    if bpemodel != "none":
        kinds["ter"] = "bpe"
    written = []
    for kind, token_type in kinds.items():
        tokenize = make_tokenizer(token_type, bpemodel=bpemodel, nlsyms_txt=nlsyms_txt)
        sides = {
            side: {utt: [t for t in tokenize(x) if t not in symbols] for utt, x in texts.items()}
            for side, texts in (("ref", ref), ("hyp", hyp))
        }
        directory = output / f"score_{kind}"
        for side, rows in sides.items():
            lines = [f"{' '.join(t)}\t({utt2spk[utt]}-{utt})\n" for utt, t in rows.items()]
            write_text(directory / f"{side}.trn", "".join(lines))
        if sclite:
            table = run_sclite(sclite, directory)
        else:
            counts = {utt: count_errors(sides["ref"][utt], sides["hyp"][utt]) for utt in ref}
            table = format_table(counts, utt2spk)
        write_text(directory / "result.txt", table)
        average = next(line for line in table.splitlines() if "Sum/Avg" in line)
        name = "sclite" if sclite else "jiwer"
        logging.info("%s (%s) %s: %s", kind.upper(), name, directory, average.strip())
        written.append(directory / "result.txt")
    return written


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Score a decoded test set")
    parser.add_argument("--ref", type=Path, required=True, help="Data directory with text, utt2spk")
    parser.add_argument("--hyp", type=Path, required=True, help="Decoded text")
    parser.add_argument("--output", type=Path, required=True, help="Where score_* goes")
    parser.add_argument("--scorer", default="auto", help="auto, sclite or jiwer")
    parser.add_argument("--nlsyms_txt", default="none")
    parser.add_argument("--bpemodel", default="none")
    parser.add_argument("--missing_as_empty", choices=("true", "false"), default="false")
    args = parser.parse_args()
    score(
        args.ref,
        args.hyp,
        args.output,
        scorer=args.scorer,
        nlsyms_txt=args.nlsyms_txt,
        bpemodel=args.bpemodel,
        missing_as_empty=args.missing_as_empty == "true",
    )


if __name__ == "__main__":
    run_main(main)
