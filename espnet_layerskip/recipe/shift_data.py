"""Shifted copy of a data directory, such as ``dump/raw/test_noise10`` of ``dump/raw/test``.

`espnet_layerskip.evaluation.shifts` says what there is. Ids, transcripts and speakers stay.

Example::

    python -m espnet_layerskip.recipe.shift_data --shift noise10 dump/raw/test dump/raw/test_noise10
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from espnet_layerskip.evaluation.inputs import located
from espnet_layerskip.evaluation.shift_names import KINDS, Shift, read_shifts
from espnet_layerskip.evaluation.shifts import shift_samples, voices
from espnet_layerskip.files import DataDir, run_main, write_table, write_text
from espnet_layerskip.inference.audio import AudioBlocks, AudioError, Utterance
from espnet_layerskip.recipe.audio import (
    AUDIO_CHECKSUMS,
    load_source,
    refuse_broken,
    write_audio,
    write_checksums,
)

MADE = "shift"  # file in the copy: of what it was made


def shift_one(
    utt: str, data: DataDir, source: Path, target: Path, shift: Shift, seed: int
) -> tuple[str, int, str]:
    """Write one utterance; return its id, number of samples, and what was wrong ('' = nothing)."""

    def audio(name: str) -> AudioBlocks:
        return AudioBlocks(Utterance(name, located(data.wav[name], source)), None, mix=True)

    try:
        own = audio(utt)
        rate = own.sample_rate
        others = voices(utt, data.utt2spk, lambda name: audio(name).read())
        copy = shift_samples(shift, own.read(), rate, utt, seed, others)
        return utt, write_audio(target / "data" / f"{utt}.flac", [copy], rate), ""
    except AudioError as err:
        return utt, 0, str(err)


def shift_data_dir(source: Path, target: Path, shift: Shift, *, seed: int = 0, nj: int = 1) -> bool:
    """Write the copy ``target``, all audio of one rate; nothing where it is there already.

    Args:
        source: Data directory.
        target: Where the copy goes; its audio is FLAC, 16 bits.
        shift: What is done to each utterance.
        seed: Of all that is random.
        nj: Processes.

    Returns:
        Whether it was made.

    Raises:
        ValueError: For a pipe in wav.scp, audio that cannot be read, or babble of one utterance.
    """
    data = load_source(source, target)
    tables = (source / name for name in ("wav.scp", "text", "utt2spk", AUDIO_CHECKSUMS))
    content = b"".join(table.read_bytes() for table in tables if table.is_file())
    digest = hashlib.sha256(content).hexdigest()
    made = f"{shift.name} seed {seed} of {digest}\n"
    if (target / MADE).is_file() and (target / MADE).read_text(encoding="utf-8") == made:
        logging.info("%s: is there already", target)
        return False
    work = partial(
        shift_one, data=data, source=source.resolve(), target=target, shift=shift, seed=seed
    )
    with ProcessPoolExecutor(min(nj, len(data.wav))) if nj > 1 else nullcontext() as pool:
        names = sorted(data.wav)
        results = list(pool.map(work, names, chunksize=16) if pool else map(work, names))
    refuse_broken(source, [message for _, _, message in results if message], len(results))
    data.wav = {utt: f"{target}/data/{utt}.flac" for utt, _, _ in results}
    data.save(target)
    write_table(target / "utt2num_samples", {utt: str(n) for utt, n, _ in results})
    write_checksums(target, data.wav)
    write_text(target / "feats_type", "raw\n")
    write_text(target / "audio_format", "flac\n")
    write_text(target / MADE, made)
    logging.info("%s: %s (%s) -> %s", source, shift.name, KINDS[shift.kind].what, target)
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Shifted copy of a data directory")
    kinds = "; ".join(f"{name}: {kind.what}" for name, kind in KINDS.items())
    parser.add_argument("--shift", required=True, help=f"e.g. noise10 or telephone. {kinds}")
    parser.add_argument("--seed", type=int, default=0, help="Of all that is random")
    parser.add_argument("--nj", type=int, default=1, help="Number of processes")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    shifts = read_shifts(args.shift)
    if len(shifts) != 1:
        raise ValueError(f"--shift {args.shift!r}: name one shift for each copy")
    shift_data_dir(args.source, args.target, shifts[0], seed=args.seed, nj=args.nj)


if __name__ == "__main__":
    run_main(main)
