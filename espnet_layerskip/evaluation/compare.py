"""Compare experiments: accuracy over seeds with intervals, skip ratio, encoder time and FLOPs.

Scope: the encoder only, batch 1, the whole test set; transcripts by greedy search in the
same process. Experiments are loaded once, decodings are kept (see `cache`), times are taken
anew and interleaved between all rows, with the first experiment of each row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from espnet_layerskip.evaluation.cache import (
    DecodingCache,
    cache_key,
    code_digest,
    speech_digest,
)
from espnet_layerskip.evaluation.decode import Decoded, Scores, decode_test_set, score
from espnet_layerskip.evaluation.experiment import Experiment, load_experiment
from espnet_layerskip.evaluation.inputs import Speech, TestSet, load_test_set, spread_over_durations
from espnet_layerskip.evaluation.one_pass import decode_with_each
from espnet_layerskip.evaluation.rows import Row
from espnet_layerskip.evaluation.scoring import error_rate
from espnet_layerskip.evaluation.settings import SkipSettings, can_skip
from espnet_layerskip.evaluation.systems import Skipped, System
from espnet_layerskip.evaluation.timing import Case, Timing, num_threads, time_interleaved


@dataclass(frozen=True)
class SeedResult:
    """One experiment of a row on the test set."""

    exp: str
    system: System
    decoded: Decoded
    scores: Scores


@dataclass(frozen=True)
class RowResult:
    """A measured row.

    Attributes:
        row: What was asked for.
        seeds: One result for each experiment; empty where the row failed.
        timing: Encoder time of a pass with the first experiment; None = not timed.
        timed_seconds: Duration of the audio of such a pass.
        failure: Why there is no result; empty = there is one.
    """

    row: Row
    seeds: tuple[SeedResult, ...] = ()
    timing: Timing | None = None
    timed_seconds: float = 0.0
    failure: str = ""

    def rates(self, kind: str) -> list[float]:
        """Return "wer", "cer" or "ter" in percent, for each experiment."""
        return [error_rate(seed.scores.total(kind)) for seed in self.seeds]

    def utterance_errors(self) -> list[float]:
        """Return the word errors of each utterance, averaged over the experiments."""
        per_seed = [[c.errors for c in seed.scores.wer.values()] for seed in self.seeds]
        return [sum(errors) / len(per_seed) for errors in zip(*per_seed, strict=True)]

    def num_words(self) -> list[int]:
        """Return the reference words of each utterance."""
        return [c.words for c in self.seeds[0].scores.wer.values()]

    def skipped(self) -> Skipped:
        """Return what was skipped, over all experiments."""
        return sum((seed.decoded.skipped for seed in self.seeds), Skipped())

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


class Comparison:
    """Measures rows on one test set.

    Args:
        data_dir: With wav.scp, text and utt2spk.
        cache: Where decodings are kept.
        model_file: Checkpoint name in every experiment; None takes each one's default.
        log: Is told what is going on.
    """

    def __init__(
        self,
        data_dir: Path,
        cache: DecodingCache,
        model_file: str | None = None,
        log: Callable[[str], object] = print,
    ):
        self.data_dir, self.cache, self.model_file, self.log = data_dir, cache, model_file, log
        self.experiments: dict[str, Experiment] = {}
        self.num_decoded = 0
        self._data: TestSet | None = None
        self._fixed_key: tuple[str, str] = ("", "")

    def measure(
        self, rows: Sequence[Row], repeats: int, threads: int, max_timed: int | None = None
    ) -> list[RowResult]:
        """Decode and score every row, then time all of them; a row that fails says why.

        Args:
            rows: Rows with names of their own.
            repeats: Timed passes; 0 = no timing.
            threads: PyTorch threads while timing.
            max_timed: Utterances of a timed pass, spread evenly over the durations; None =
                the whole test set.

        Raises:
            ValueError: If the test set cannot be read.
        """
        self._decode_in_one_pass(rows)
        results = [self._measure_row(row) for row in rows]
        timed = [r for r in results if r.seeds]
        if repeats == 0 or not timed:
            return results
        speech = spread_over_durations(self.test_set().speech, max_timed)
        self.log(
            f"timing: {len(timed)} rows, {len(speech)} utterances, {repeats} repeats, "
            f"{threads} threads"
        )
        with num_threads(threads):
            times = _time(timed, speech, repeats)
        seconds = sum(s.seconds for s in speech)
        return [replace(r, timing=times.get(r.row.name), timed_seconds=seconds) for r in results]

    def load(self, exp: str) -> tuple[Experiment, TestSet]:
        """Return an experiment and the test set at its sampling rate, each loaded once.

        Raises:
            ValueError: If one of them cannot be used.
        """
        experiment = self._experiment(exp)
        return experiment, self._test_set(experiment.speech2text.sample_rate)

    def test_set(self) -> TestSet:
        """Return the test set that `measure` read."""
        if self._data is None:
            raise ValueError("no test set was read: call measure first, with a row that loads")
        return self._data

    def _decode_in_one_pass(self, rows: Sequence[Row]) -> None:
        """Put into the cache what rows have in common: full depth and settings of one gate.

        What cannot be decoded is left to its row, which says why.
        """
        wanted: dict[str, dict[SkipSettings, None]] = {}  # each once, in order
        for row in rows:
            for exp in row.exps:
                with suppress(ValueError, RuntimeError, OSError):
                    experiment, data = self.load(exp)
                    settings = row.settings.resolved(experiment.encoder, experiment.stored)
                    if _shares_layers(experiment, settings) and not self._cached(exp, settings):
                        wanted.setdefault(exp, {})[settings] = None
        for exp, of_exp in wanted.items():
            if len(of_exp) > 1:
                self.log(f"one pass: {exp} with {len(of_exp)} settings")
                with suppress(ValueError, RuntimeError):
                    experiment, data = self.load(exp)
                    found = decode_with_each(experiment, data, list(of_exp), allow_too_short=False)
                    for settings, decoded in found.items():
                        self._keep(exp, settings, decoded)

    def _measure_row(self, row: Row) -> RowResult:
        self.log(f"row: {row.name} ({', '.join(row.exps)}) {row.settings.describe()}")
        try:
            loaded = [self._experiment(exp) for exp in row.exps]
        except (ValueError, RuntimeError, OSError) as e:
            return self._failed(row, e)
        data = self._test_set(loaded[0].speech2text.sample_rate)
        try:
            seeds = zip(row.exps, loaded, strict=True)
            return RowResult(row, tuple(self._seed(exp, e, row, data) for exp, e in seeds))
        except (ValueError, RuntimeError) as e:
            return self._failed(row, e)

    def _failed(self, row: Row, error: Exception) -> RowResult:
        self.log(f"row {row.name} failed: {error}")
        return RowResult(row, failure=str(error))

    def _seed(self, exp: str, experiment: Experiment, row: Row, data: TestSet) -> SeedResult:
        rate = experiment.speech2text.sample_rate
        if rate != data.speech[0].rate:
            raise ValueError(
                f"{exp} takes {rate} Hz, but the first row takes {data.speech[0].rate} Hz: "
                "compare experiments of one sampling rate"
            )
        system = System(experiment, row.settings)
        decoded = self._cached(exp, system.settings)
        if decoded is None:
            decoded = decode_test_set(system, data)
            self._keep(exp, system.settings, decoded)
        return SeedResult(exp, system, decoded, score(system, data, decoded))

    def _cached(self, exp: str, settings: SkipSettings) -> Decoded | None:
        return self.cache.get(self._key(exp, settings))

    def _keep(self, exp: str, settings: SkipSettings, decoded: Decoded) -> None:
        self.num_decoded += 1
        self.cache.put(self._key(exp, settings), decoded)

    def _key(self, exp: str, settings: SkipSettings) -> str:
        experiment = self.experiments[exp]
        config = repr(sorted(vars(experiment.speech2text.asr_train_args).items()))
        return cache_key([experiment.sha256, config, settings.describe(), *self._fixed_key])

    def _experiment(self, exp: str) -> Experiment:
        if exp not in self.experiments:
            self.experiments[exp] = load_experiment(exp, self.model_file)
        return self.experiments[exp]

    def _test_set(self, sample_rate: int) -> TestSet:
        if self._data is None:
            self._data = load_test_set(self.data_dir, sample_rate)
            self._fixed_key = (speech_digest(self._data), code_digest())
        return self._data


def _shares_layers(experiment: Experiment, settings: SkipSettings) -> bool:
    """Return whether settings differ from full depth only in what a gate drops."""
    return (
        can_skip(experiment.encoder)
        and settings.exit_layer is None
        and settings.precision is None
        and settings.context == experiment.stored.context
    )


def _time(
    results: Sequence[RowResult], speech: Sequence[Speech], repeats: int
) -> dict[str, Timing]:
    inputs = []
    for one in speech:
        cases = {}
        for result in results:
            system = result.seeds[0].system
            batch = system.batch([one])
            cases[result.row.name] = Case(partial(system.encode, batch), system.prepare)
        inputs.append(cases)
    return time_interleaved(inputs, repeats)
