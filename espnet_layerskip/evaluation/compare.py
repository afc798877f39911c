"""Compare experiments: accuracy over seeds with intervals, skip ratio, encoder time and FLOPs.

Scope: the encoder only, batch 1, the whole test set; transcripts by greedy search in the
same process. Experiments are loaded once, decodings are kept (see `cache`), times are taken
anew and interleaved between all rows, with the first experiment of each row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

from espnet_layerskip.evaluation.cache import (
    DecodingCache,
    code_digest,
    digest,
    speech_digest,
)
from espnet_layerskip.evaluation.conditions import make_conditions
from espnet_layerskip.evaluation.decode import Decoded, decode, one_pass_groups
from espnet_layerskip.evaluation.experiment import Experiment, load_experiment
from espnet_layerskip.evaluation.inputs import TestSet, load_test_set, spread_over_durations
from espnet_layerskip.evaluation.progress import Log
from espnet_layerskip.evaluation.rows import Row
from espnet_layerskip.evaluation.scoring import (
    SPLITS,
    Counts,
    check_hypotheses,
    error_rate,
    score,
)
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.evaluation.timing import num_threads, time_interleaved
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.settings import can_skip

BUSY = 0.2  # where the passes of most rows differ by more, the machine does something else too
FAILURES = (ValueError, RuntimeError, OSError)  # of one row: they do not cost the others


@dataclass(frozen=True)
class SeedResult:
    """One experiment of a row on the test set.

    Attributes:
        system: What ran.
        decoded: What came of it.
        scores: Errors of each utterance, by "wer", "cer" (a space is a character, as in ESPnet)
            and "ter" (in the model's own tokens).
    """

    system: System
    decoded: Decoded
    scores: dict[str, dict[str, Counts]]


@dataclass(frozen=True)
class RowResult:
    """A measured row.

    Attributes:
        row: What was asked for.
        seeds: One result for each experiment; empty where the row failed.
        times: By length of the inputs in seconds (0 = the utterances as they are): encoder times
            of passes with the first experiment, in seconds, and the duration of their audio; {} =
            not timed.
        failure: Why there is no result; empty = there is one.
        speakers: Speaker of each utterance.
    """

    row: Row
    seeds: tuple[SeedResult, ...] = ()
    times: Mapping[float, tuple[list[float], float]] = field(default_factory=dict)
    failure: str = ""
    speakers: tuple[str, ...] = ()

    def rates(self, kind: str) -> list[float]:
        """Return "wer", "cer" or "ter" in percent, for each experiment."""
        return [error_rate(seed.scores[kind].values()) for seed in self.seeds]

    def utterance_errors(self) -> list[float]:
        """Return the word errors of each utterance, averaged over the experiments."""
        per_seed = [[c.errors for c in seed.scores["wer"].values()] for seed in self.seeds]
        return [sum(errors) / len(per_seed) for errors in zip(*per_seed, strict=True)]

    def num_words(self) -> list[int]:
        """Return the reference words of each utterance."""
        return [c.words for c in self.seeds[0].scores["wer"].values()]

    def skipped(self) -> SkipCount:
        """Return what was skipped, over all experiments."""
        return sum((seed.decoded.skipped for seed in self.seeds), SkipCount())

    @property
    def full_depth(self) -> bool:
        """True if every frame runs every layer."""
        return bool(self.seeds) and self.seeds[0].system.settings.full_depth

    @property
    def weights(self) -> list[str]:
        """SHA-256 of the checkpoints."""
        return [seed.system.experiment.sha256 for seed in self.seeds]

    @property
    def is_stock(self) -> bool:
        """True for an encoder without gates."""
        return bool(self.seeds) and not can_skip(self.seeds[0].system.encoder)


def unsteadiness(times: Mapping[str, Sequence[float]]) -> float:
    """Return by how much passes of the same row differ: their range, as a part of their median.

    Args:
        times: Passes by row; the row in the middle counts.

    >>> unsteadiness({"a": [1.0, 1.0, 1.1], "b": [2.0, 2.0, 2.0], "c": [1.0, 2.0, 3.0]})
    0.10000000000000009
    """
    return median((max(passes) - min(passes)) / median(passes) for passes in times.values())


def too_short(results: Sequence[RowResult]) -> list[str]:
    """Return the utterances that are too short for an encoder of these rows."""
    return sorted({utt for r in results for seed in r.seeds for utt in seed.decoded.too_short})


class Comparison:
    """Measures rows on one test set.

    Args:
        data_dir: With wav.scp, text and utt2spk.
        cache: Where decodings are kept.
        model_file: Checkpoint name in every experiment; None takes each one's default.
        log: Takes lines about the progress.

    Raises:
        ValueError: If the test set cannot be read.
    """

    def __init__(
        self,
        data_dir: Path,
        cache: DecodingCache,
        model_file: str | None = None,
        log: Log = print,
    ):
        self.cache, self.model_file, self.log = cache, model_file, log
        self.data: TestSet = load_test_set(data_dir)
        self.experiments: dict[str, Experiment] = {}
        self.num_decoded = 0
        self._fixed_key = speech_digest(self.data), code_digest()

    def measure(
        self,
        rows: Sequence[Row],
        repeats: int,
        threads: int,
        max_timed: int | None = None,
        lengths: Sequence[float] = (),
    ) -> list[RowResult]:
        """Decode and score every row, then time all of them; a row that fails says why.

        Utterances that are too short for an encoder are decoded to nothing, which counts as
        errors, and are not timed.

        Args:
            rows: Rows with names of their own.
            repeats: Timed passes; 0 = no timing.
            threads: PyTorch threads while timing.
            max_timed: Utterances of a timed pass, spread evenly over the durations; None =
                the whole test set.
            lengths: Time inputs of these durations in seconds instead, made of whole utterances
                of a speaker.

        Raises:
            ValueError: If the test set cannot make inputs of these lengths.
        """
        conditions = make_conditions(self.data, lengths if repeats else (), [1], None)
        by_length = {c.audio_seconds: [one for [one] in c.groups] for c in conditions}
        systems = {row.name: self._systems(row) for row in rows}
        usable = [s for found in systems.values() if not isinstance(found, str) for s in found]
        decoded = self._decode(usable)
        results = [self._result(row, systems[row.name], decoded) for row in rows]
        timed = {r.row.name: r.seeds[0].system for r in results if r.seeds}
        if repeats == 0 or not timed:
            return results
        short = too_short(results)
        speech = [one for one in self.data.speech if one.utt_id not in short]
        inputs = by_length or {0.0: spread_over_durations(speech, max_timed)}
        times: dict[str, dict[float, tuple[list[float], float]]] = {}
        for length, speech in inputs.items():
            about = f"inputs of about {length:g} s" if lengths else "utterances"
            self.log(
                f"timing: {len(timed)} rows, {len(speech)} {about}, {repeats} repeats, "
                f"{threads} threads"
            )
            cases = [
                {name: partial(s.encode, s.batch([one])) for name, s in timed.items()}
                for one in speech
            ]
            with num_threads(threads):
                taken = self._time(cases, repeats)
            for name, passes in taken.items():
                times.setdefault(name, {})[length] = passes, sum(one.seconds for one in speech)
        return [replace(result, times=times.get(result.row.name, {})) for result in results]

    def _time(
        self, cases: Sequence[Mapping[str, Callable[[], object]]], repeats: int
    ) -> dict[str, list[float]]:
        """Time; once more if the machine was busy, and then take the steadier of the two."""
        taken = time_interleaved(cases, repeats)
        if (spread := unsteadiness(taken)) <= BUSY:
            return taken
        self.log(f"  the machine was busy (passes differ by {100 * spread:.0f} %): timing again")
        return min(taken, time_interleaved(cases, repeats), key=unsteadiness)

    def load(self, exp: str) -> Experiment:
        """Return an experiment, loaded once.

        Raises:
            ValueError: If it cannot be used, or not with this test set.
        """
        if exp not in self.experiments:
            self.experiments[exp] = load_experiment(exp, self.model_file)
        rate, data_rate = self.experiments[exp].speech2text.sample_rate, self.data.speech[0].rate
        if rate != data_rate:
            raise ValueError(
                f"{exp} takes {rate} Hz, but the test set has {data_rate} Hz: resample it, and "
                "compare experiments of one sampling rate"
            )
        return self.experiments[exp]

    def _systems(self, row: Row) -> list[System] | str:
        """Return a system for each experiment of a row, or why there is none."""
        self.log(f"row: {row.name} ({', '.join(row.exps)}) {row.describe()}")
        try:
            return [System(self.load(exp), row.settings, row.precision) for exp in row.exps]
        except FAILURES as e:
            return str(e)

    def _decode(self, systems: Sequence[System]) -> dict[str, Decoded | str]:
        """Return by key what was decoded, now or before, or why it could not be."""
        by_key = {self._key(system): system for system in systems}
        kept = {key: self.cache.get(key) for key in by_key}
        found: dict[str, Decoded | str] = {k: d for k, d in kept.items() if d is not None}
        for group in one_pass_groups(s for key, s in by_key.items() if key not in found):
            self.log(f"decoding with {len(group)} settings in one pass")
            keys = [self._key(system) for system in group]
            try:
                decoded = decode(group, self.data)
            except (ValueError, RuntimeError) as e:
                found |= dict.fromkeys(keys, str(e))
                continue
            for key, one in zip(keys, decoded, strict=True):
                self.cache.put(key, one)
                found[key] = one
            self.num_decoded += len(group)
        return found

    def _result(
        self, row: Row, systems: Sequence[System] | str, decoded: Mapping[str, Decoded | str]
    ) -> RowResult:
        """Score a row."""
        try:
            if isinstance(systems, str):
                raise ValueError(systems)
            seeds = tuple(self._seed(s, decoded[self._key(s)]) for s in systems)
            speakers = tuple(self.data.utt2spk[utt] for utt in self.data.text)
            return RowResult(row, seeds, speakers=speakers)
        except ValueError as e:
            self.log(f"row {row.name} failed: {e}")
            return RowResult(row, failure=str(e))

    def _seed(self, system: System, decoded: Decoded | str) -> SeedResult:
        if isinstance(decoded, str):
            raise ValueError(decoded)
        check_hypotheses(self.data.text, decoded.hyps)
        splits = {**SPLITS, "ter": system.experiment.tokens}
        scores = {kind: score(self.data.text, decoded.hyps, how) for kind, how in splits.items()}
        return SeedResult(system, decoded, scores)

    def _key(self, system: System) -> str:
        experiment = system.experiment
        config = repr(sorted(vars(experiment.speech2text.asr_train_args).items()))
        if (files := experiment.speech2text.model_files) is not None:
            config = config.replace(files.tmpdir.name, "")  # of a zip, another one each time
        how = repr(system.settings), system.precision
        parts = (experiment.sha256, config, *how, *self._fixed_key)
        return digest(part.encode() for part in parts)[:32]
