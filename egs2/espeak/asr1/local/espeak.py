"""Synthetic speech by espeak-ng -> data/{train,dev,dev2,test}, offline and the same for everybody.

The prompts are of AN4's kinds; one utterance in six is several of them. No sentence is in two of
the sets, and no speaker, but that dev2 has the speakers of dev: dev chooses checkpoints, dev2 is
for what is chosen afterwards. Every utterance has its own speed, pitch, pauses, level, silence
around it and light noise.

An utterance depends on the seed and its id alone. The 16-bit samples are the same for the same
versions of espeak-ng, numpy and soxr on the same kind of processor, whatever the number of jobs;
sentences, speakers and ids are the same everywhere.

Example::

    python local/espeak.py --size smoke --corpus_dir downloads/espeak --out data
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import RandomState

from espeak_prompts import draw_texts
from espeak_synth import Manner, espeak_version, synthesize, to_ssml
from espeak_voices import Speaker, speakers
from espnet_layerskip.files import DataDir, run_main, write_table, write_text
from espnet_layerskip.inference.audio import Samples, resample
from espnet_layerskip.recipe.audio import to_pcm, write_audio
from espnet_layerskip.recipe.progress import Progress
from forks import map_in_forks

# Utterances of train, dev, dev2 and test; an hour is about 550.
PARTS = ("train", "dev", "dev2", "test")
SIZES = {
    "smoke": (40, 10, 10, 10),
    "demo": (1100, 100, 100, 150),
    "medium": (2200, 200, 200, 300),
    "large": (5400, 200, 200, 300),
}
RATE = 16000
PAUSE_SHARE = 0.15  # of the gaps between words
BYTES_PER_UTTERANCE = 200_000  # of FLAC with noise; they take about 125 000


@dataclass(frozen=True)
class Recording:
    """What is said, by whom, and how it is recorded.

    Attributes:
        utt_id: ``<speaker>-<set><number>``.
        speaker: Who says it.
        text: Words of the transcript.
        manner: Voice, speed and pitch.
        tract: Formants, pitch and speed are times this, as with a shorter vocal tract.
        pauses_ms: Pause after each word.
        silence: Samples of silence before and after.
        level_db: Root mean square of the speech, relative to full scale.
        snr_db: Distance of the noise from the speech.
        noise_tilt: Colour of the noise from -1 (high) to 1 (low).
        seed: Of the noise.
    """

    utt_id: str
    speaker: Speaker
    text: str
    manner: Manner
    tract: float
    pauses_ms: tuple[int, ...]
    silence: tuple[int, int]
    level_db: float
    snr_db: float
    noise_tilt: float
    seed: int


def random_state(*key: object) -> RandomState:
    """Return a generator that depends on the key only; its stream is frozen for all of numpy."""
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    return RandomState(int.from_bytes(digest[:4], "big"))


def plan_corpus(size: str, seed: int) -> dict[str, list[Recording]]:
    """Choose sentences, speakers and manners; with another size the same ones come first.

    Raises:
        ValueError: An unknown size or a negative seed.
    """
    if size not in SIZES:
        raise ValueError(f"size '{size}': choose one of {', '.join(SIZES)}")
    if seed < 0:
        raise ValueError(f"seed {seed}: an integer from 0 on is needed")
    voices = speakers()
    taken: set[str] = set()
    corpus = {}
    # As many sentences as any size needs are drawn, so that the sizes share their beginnings.
    for part in ("test", "dev", "train", "dev2"):
        index = PARTS.index(part)
        most = max(counts[index] for counts in SIZES.values())
        texts = draw_texts(random_state(seed, part), most, taken)[: SIZES[size][index]]
        names = voices[part.rstrip("2")]
        corpus[part] = [
            plan_utterance(names[i % len(names)], f"{part}{i:05d}", text, seed)
            for i, text in enumerate(texts)
        ]
    return {part: corpus[part] for part in PARTS}


def plan_utterance(speaker: Speaker, name: str, text: str, seed: int) -> Recording:
    """Choose how one utterance is said; speed, pitch and vocal tract are near the speaker's own."""
    utt_id = f"{speaker.name}-{name}"
    own = random_state(seed, speaker.name)
    speed, pitch, pitch_range = own.randint(115, 161), own.randint(35, 66), own.randint(30, 71)
    tract = own.randint(90, 111)
    rng = random_state(seed, utt_id)
    manner = Manner(
        voice=speaker.voice,
        words_per_minute=int(speed * rng.randint(85, 116) / 100),
        pitch=int(pitch + rng.randint(-6, 7)),
        pitch_range=int(pitch_range),
        word_gap=int(rng.randint(0, 9)),
    )
    gaps = len(text.split()) - 1
    pauses = [int(rng.randint(60, 400)) if rng.rand() < PAUSE_SHARE else 0 for _ in range(gaps)]
    return Recording(
        utt_id,
        speaker,
        text,
        manner,
        tract=float(tract + rng.randint(-3, 4)) / 100,
        pauses_ms=(*pauses, 0),
        silence=(int(rng.randint(800, 6400)), int(rng.randint(800, 6400))),
        level_db=float(rng.randint(-300, -180)) / 10,
        snr_db=float(rng.randint(200, 400)) / 10,
        noise_tilt=float(rng.randint(-9, 10)) / 10,
        seed=int(rng.randint(2**31 - 1)),
    )


def record(utterance: Recording) -> Samples:
    """Say an utterance and add what a recording adds; x (N,) float32 at 16 kHz in [-1, 1].

    To be called once in a process: see `espeak_synth`.
    """
    ssml = to_ssml(utterance.text.split(), utterance.pauses_ms)
    spoken, rate = synthesize(ssml, utterance.manner)
    speech = resample(spoken.astype(np.float32) / 32768.0, round(rate * utterance.tract), RATE)
    padded = np.pad(speech, utterance.silence).astype(np.float64)
    rms = float(np.sqrt(np.mean(np.square(speech, dtype=np.float64))))
    white = RandomState(utterance.seed).standard_normal(len(padded) + 1)
    tilt = utterance.noise_tilt
    noise = (white[1:] + tilt * white[:-1]) / float(np.sqrt(1.0 + tilt * tilt))
    noisy = padded / rms + noise * 10.0 ** (-utterance.snr_db / 20)
    level = min(10.0 ** (utterance.level_db / 20), 0.99 / float(np.abs(noisy).max()))
    x: Samples = (noisy * level).astype(np.float32)
    return x


def make_utterance(utterance: Recording, directory: Path) -> tuple[str, str, str]:
    """Write one FLAC file; return the id, and SHA-256 of the samples and of the file."""
    x = record(utterance)
    path = audio_path(directory, utterance)
    write_audio(path, [x], RATE)
    samples = hashlib.sha256(to_pcm(x).astype("<i2").tobytes()).hexdigest()
    return utterance.utt_id, samples, hashlib.sha256(path.read_bytes()).hexdigest()


def audio_path(directory: Path, utterance: Recording) -> Path:
    """Return where an utterance lies."""
    return directory / utterance.speaker.name / f"{utterance.utt_id}.flac"


def check_space(directory: Path, count: int) -> None:
    """Stop before a disk is full.

    Raises:
        ValueError: Not enough is free for ``count`` utterances.
    """
    needed = count * BYTES_PER_UTTERANCE / 1e6
    free = shutil.disk_usage(directory).free / 1e6
    if free < needed:
        raise ValueError(
            f"{directory}: {needed:.0f} MB are needed, but only {free:.0f} MB are free; free some "
            "space, take a smaller --size or another --corpus_dir"
        )


def read_made(journal: Path, directory: Path, utterances: Sequence[Recording]) -> dict[str, str]:
    """Return the checksums of the utterances that are there and whole, by their ids."""
    if not journal.is_file():
        return {}
    known = {u.utt_id: audio_path(directory, u) for u in utterances}
    made = {}
    for line in journal.read_text(encoding="utf-8").splitlines():
        utt_id, samples, content = (*line.split(), "", "", "")[:3]
        path = known.get(utt_id)
        if path and path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == content:
            made[utt_id] = samples
    return made


def make_corpus(size: str, seed: int, directory: Path, nj: int = 1) -> dict[str, list[Recording]]:
    """Make the audio that is not there yet, and ``directory``/checksums.

    Raises:
        ValueError: espeak-ng cannot be used, a bad size or seed, too little disk space.
        OSError: The disk is full, or cannot be written to.
    """
    corpus = plan_corpus(size, seed)
    utterances = [u for part in corpus.values() for u in part]
    directory.mkdir(parents=True, exist_ok=True)
    plan = hashlib.sha256(repr(corpus).encode()).hexdigest()
    settings = f"size {size}, seed {seed}, espeak-ng {espeak_version()}, plan {plan}\n"
    stamp, journal = directory / "settings", directory / "made"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") != settings:
        logging.warning("%s: made with other settings or another version; making it anew", stamp)
        journal.unlink(missing_ok=True)
    write_text(stamp, settings)
    made = read_made(journal, directory, utterances)
    todo = [u for u in utterances if u.utt_id not in made]
    logging.info("%s: %d of %d utterances are there", directory, len(made), len(utterances))
    check_space(directory, len(todo))
    progress = Progress(f"{directory}: spoken", len(todo))
    with journal.open("a", encoding="utf-8") as out:
        out.write("\n")  # an interrupted run may have left half a line
        for row in map_in_forks(partial(make_utterance, directory=directory), todo, nj):
            out.write(" ".join(row) + "\n")
            out.flush()
            made[row[0]] = row[1]
            progress.step()
    write_table(directory / "checksums", made)
    checksums = (directory / "checksums").read_bytes()
    logging.info("%s: checksum %s", directory, hashlib.sha256(checksums).hexdigest()[:16])
    return corpus


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make a corpus of synthetic speech")
    parser.add_argument("--size", default="demo", help=f"{', '.join(SIZES)}")
    parser.add_argument("--seed", type=int, default=1, help="Another one: other utterances")
    parser.add_argument("--corpus_dir", type=Path, required=True, help="Where the audio goes")
    parser.add_argument("--out", type=Path, default=Path("data"), help="Where the tables go")
    parser.add_argument("--nj", type=int, default=1, help="Number of processes")
    args = parser.parse_args()
    directory = args.corpus_dir / f"{args.size}_seed{args.seed}"
    try:
        corpus = make_corpus(args.size, args.seed, directory, args.nj)
    except KeyboardInterrupt:
        raise ValueError(f"{directory}: interrupted; run it again to go on") from None
    for part, utterances in corpus.items():
        data = DataDir(
            {u.utt_id: str(audio_path(directory, u)) for u in utterances},
            {u.utt_id: u.text for u in utterances},
            {u.utt_id: u.speaker.name for u in utterances},
        )
        data.save(args.out / part)
        words = sum(len(u.text.split()) for u in utterances)
        voices = len({u.speaker.name for u in utterances})
        logging.info(
            "%s/%s: %d utterances, %d words, %d speakers",
            *(args.out, part, len(utterances), words, voices),
        )


if __name__ == "__main__":
    run_main(main)
