"""Shifted copies of speech: noise, rooms, telephones and levels that a test set does not have.

`espnet_layerskip.evaluation.shift_names` has their names. Every copy depends only on the
samples, the name of the utterance, the shift and a seed, so that it can be made again; ``babble``
also on the other utterances of the set. All results lie in [-1, 1]: what is beyond is clipped, as
a converter does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt

from espnet_layerskip.evaluation.inputs import Speech, TestSet
from espnet_layerskip.evaluation.shift_names import VOICES, Shift
from espnet_layerskip.inference.audio import Samples, resample

FLAT_BELOW = 50.0  # Hz: coloured noise rises no further there
MU, TELEPHONE_RATE, BAND = 255.0, 8000, (300.0, 3400.0)  # ITU-T G.711; Hz
EARLY, EARLY_ENERGY = 0.05, 0.5  # s; of the first of a room's tail, where the direct sound has 1


def shift_samples(
    shift: Shift,
    samples: Samples,
    rate: int,
    utt_id: str,
    seed: int = 0,
    babble: Callable[[np.random.Generator], Sequence[Samples]] | None = None,
) -> Samples:
    """Return the shifted copy, float32 in [-1, 1]; as long as it was, but for ``speed``.

    Args:
        shift: What is done to it.
        samples: Of the utterance (N,), float32 in [-1, 1].
        rate: In Hz.
        utt_id: Its name.
        seed: Other seeds give other noise, rooms and voices.
        babble: Gives some other utterances (N_i,) of the same rate; for ``babble`` only.
    """
    key = hashlib.sha256(f"{seed} {shift.name} {utt_id}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(key, "big"))
    x, amount = np.asarray(samples, dtype=np.float64), shift.amount
    if not len(x):
        return samples
    if shift.kind == "noise":
        x = _mixed(x, coloured_noise(len(x), rate, rng), amount)
    elif shift.kind == "babble":
        assert babble is not None
        x = _mixed(x, _babble(len(x), babble(rng), rng), amount)
    elif shift.kind == "reverb":
        x = reverberated(x, rate, amount, rng)
    elif shift.kind == "telephone":
        x = telephone(x, rate)
    elif shift.kind == "clip":
        limit = np.abs(x).max() * 10 ** (-amount / 20)
        x = np.clip(x, -limit, limit)
    elif shift.kind == "speed":
        x = resample(samples, amount, 1.0).astype(np.float64)
    else:
        x = x * 10 ** (amount / 20)
    return np.clip(x, -1.0, 1.0).astype(np.float32)


def shifted(data: TestSet, shift: Shift, seed: int = 0) -> TestSet:
    """Return a copy of a test set; names, transcripts and speakers stay.

    Raises:
        ValueError: For babble, if the set has a single utterance.
    """
    samples = {one.utt_id: one.samples for one in data.speech}
    speakers = {utt_id: data.utt2spk[utt_id] for utt_id in samples}
    speech = []
    for one in data.speech:
        others = voices(one.utt_id, speakers, samples.__getitem__)
        changed = shift_samples(shift, one.samples, one.rate, one.utt_id, seed, others)
        speech.append(Speech(one.utt_id, changed, one.rate))
    return replace(data, speech=speech)


def voices(
    utt_id: str, utt2spk: Mapping[str, str], read: Callable[[str], Samples]
) -> Callable[[np.random.Generator], list[Samples]]:
    """Return what draws the utterances of babble: of other speakers where there are any.

    Args:
        utt_id: The utterance that they will be heard behind.
        utt2spk: Speaker of each utterance of the set.
        read: Gives the samples of an utterance.
    """

    def draw(rng: np.random.Generator) -> list[Samples]:
        names = sorted(utt2spk)
        others = [u for u in names if utt2spk[u] != utt2spk[utt_id]]
        others = others or [u for u in names if u != utt_id]
        if not others:
            raise ValueError(
                f"babble needs other utterances than {utt_id}: give a larger set, or leave the "
                "shift out"
            )
        return [read(others[i]) for i in rng.integers(len(others), size=VOICES)]

    return draw


def coloured_noise(length: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return stationary noise (N,): its power falls with frequency, by 0 to 6 dB an octave.

    Args:
        length: N, in samples.
        rate: In Hz.
        rng: Draws the slope (from white to brown) and the noise.
    """
    slope = rng.uniform(0.0, 2.0)
    freqs = np.maximum(np.fft.rfftfreq(length, 1.0 / rate), FLAT_BELOW)
    spectrum = np.fft.rfft(rng.standard_normal(length)) * freqs ** (-slope / 2)
    spectrum[0] = 0.0
    return np.asarray(np.fft.irfft(spectrum, length))


def reverberated(x: np.ndarray, rate: int, rt60: float, rng: np.random.Generator) -> np.ndarray:
    """Return x (N,) as it sounds in a room: the direct sound, then noise that dies away.

    The tail begins 2 ms after the direct sound, which keeps its place. Its first 50 ms have half
    the energy of the direct sound, so that a longer tail is a louder one. The level is that of x.

    Args:
        x: Samples.
        rate: In Hz.
        rt60: Seconds until the tail has fallen by 60 dB.
        rng: Draws the room.
    """
    seconds = np.arange(max(1, round(rt60 * rate))) / rate
    tail = rng.standard_normal(len(seconds)) * 10 ** (-3.0 * seconds / rt60)
    tail[: max(1, round(0.002 * rate))] = 0.0
    early = np.square(tail[: round(EARLY * rate)]).sum()
    room = tail * np.sqrt(EARLY_ENERGY / max(early, 1e-12))
    room[0] = 1.0
    heard = fftconvolve(x, room)[: len(x)]
    return np.asarray(heard * (_rms(x) / max(_rms(heard), 1e-12)))


def telephone(x: np.ndarray, rate: int) -> np.ndarray:
    """Return x (N,) as a telephone carries it: 300-3400 Hz at 8 kHz, 8 bits by mu-law.

    Args:
        x: Samples.
        rate: In Hz, of x and of the result.
    """
    narrow = resample(x.astype(np.float32), rate, TELEPHONE_RATE).astype(np.float64)
    narrow = sosfilt(butter(4, BAND, "bandpass", fs=TELEPHONE_RATE, output="sos"), narrow)
    narrow = np.clip(narrow, -1.0, 1.0)
    code = np.rint(127.5 * (np.sign(narrow) * np.log1p(MU * np.abs(narrow)) / np.log1p(MU) + 1.0))
    level = code / 127.5 - 1.0
    heard = np.sign(level) * np.expm1(np.abs(level) * np.log1p(MU)) / MU
    wide = resample(heard.astype(np.float32), TELEPHONE_RATE, rate).astype(np.float64)
    return np.pad(wide, (0, max(0, len(x) - len(wide))))[: len(x)]


def _mixed(x: np.ndarray, noise: np.ndarray, ratio_db: float) -> np.ndarray:
    """Return x with noise: the ratio is of mean powers over the whole utterance, in dB."""
    return x + noise * (_rms(x) / max(_rms(noise), 1e-12) * 10 ** (-ratio_db / 20))


def _babble(length: int, others: Sequence[Samples], rng: np.random.Generator) -> np.ndarray:
    """Return others, equally loud, each from a place of its own, round and round: (N,)."""
    total = np.zeros(length)
    for other in others:
        if _rms(other) > 0.0:
            around = np.roll(other, int(rng.integers(len(other)))) / _rms(other)
            total += np.resize(around, length)
    return total


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if len(x) else 0.0
