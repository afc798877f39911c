"""Stage 2: copies of a training set at other speeds (tempo and pitch), written as FLAC.

As in Kaldi, a copy at factor 0.9 has ids and speakers that begin with ``sp0.9-``.

Example::

    python -m espnet_layerskip.recipe.perturb_speed --factors "0.9 1.0 1.1" data/train data/train_sp
"""

from __future__ import annotations

import argparse
import logging
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from espnet_layerskip.files import DataDir, run_main
from espnet_layerskip.recipe.audio import convert, load_source, refuse_broken


def parse_factors(text: str) -> list[tuple[str, float]]:
    """Read factors such as '0.9 1.0 1.1': each with the way it was written.

    Raises:
        ValueError: None at all, one that comes twice, or one that is no number in 0.5..2.
    """
    factors: list[tuple[str, float]] = []
    for word in text.split():
        try:
            value = float(word)
        except ValueError:
            value = 0.0
        if not 0.5 <= value <= 2.0:
            raise ValueError(f"speed_perturb_factors: '{word}' is not a number from 0.5 to 2.0")
        if value in [known for _, known in factors]:
            raise ValueError(f"speed_perturb_factors: {word} comes twice")
        factors.append((word, value))
    if not factors:
        raise ValueError("speed_perturb_factors: give factors such as '0.9 1.0 1.1'")
    return factors


def perturb_one(item: tuple[str, str, str], factor: float) -> str:
    """Write one copy; return what was wrong ('' = fine)."""
    utt, entry, target = item
    _, problem = convert(utt, entry, target, speed=factor)
    return problem


def perturb_data_dir(
    source: Path, target: Path, factors: str, *, nj: int = 1, skip_broken: bool = False
) -> DataDir:
    """Write ``target`` with every utterance of ``source`` at every factor.

    The originals (factor 1.0) are named where they are; their audio is checked in stage 3.

    Raises:
        ValueError: Bad factors; a broken audio file or a pipe unless ``skip_broken``
            (then the copies of that utterance are left out, with a warning).
    """
    data = load_source(source, target)
    out = DataDir({}, {}, {})
    for word, factor in parse_factors(factors):
        if factor == 1.0:
            out.wav |= data.wav
            out.text |= data.text
            out.utt2spk |= data.utt2spk
            continue
        prefix = f"sp{word}-"
        items = [
            (utt, entry, str((target / "data" / f"{prefix}{utt}.flac").absolute()))
            for utt, entry in sorted(data.wav.items())
        ]
        work = partial(perturb_one, factor=factor)
        if nj > 1:
            with ProcessPoolExecutor(min(nj, len(items))) as pool:
                problems = list(pool.map(work, items, chunksize=16))
        else:
            problems = [work(item) for item in items]
        broken = [p for p in problems if p]
        if not skip_broken:
            refuse_broken(source, broken, len(items))
        for message in broken:
            logging.warning("left out at factor %s: %s", word, message)
        for (utt, _, path), problem in zip(items, problems, strict=True):
            if not problem:
                out.wav[prefix + utt] = path
                out.text[prefix + utt] = data.text[utt]
                out.utt2spk[prefix + utt] = prefix + data.utt2spk[utt]
        logging.info("%s: factor %s: %d utterances", source, word, len(items) - len(broken))
    out.save(target)
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Speed perturbation of a data directory")
    parser.add_argument("--factors", required=True, help="e.g. '0.9 1.0 1.1'")
    parser.add_argument("--nj", type=int, default=1, help="Number of processes")
    parser.add_argument("--skip_broken_audio", choices=("true", "false"), default="false")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    skip = args.skip_broken_audio == "true"
    perturb_data_dir(args.source, args.target, args.factors, nj=args.nj, skip_broken=skip)


if __name__ == "__main__":
    run_main(main)
