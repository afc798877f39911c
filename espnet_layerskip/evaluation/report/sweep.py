"""The same weights at many settings, and other experiments: accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from espnet_layerskip.evaluation.compare import RowResult
from espnet_layerskip.evaluation.compare_report import compare_records
from espnet_layerskip.evaluation.grid import THRESHOLDS, grid
from espnet_layerskip.evaluation.rows import Row, check_names, experiment_rows, standard_rows
from espnet_layerskip.evaluation.scoring import MAX_WER_POINTS, Interval, paired_bootstrap
from espnet_layerskip.method.settings import SkipSettings

SWEPT = THRESHOLDS[::2]  # fewer than calibrate tries: here every row is timed as well
OFF_NAME, ON_NAME = "skipping off", "skipping on"
STOCK_KIND, OFF_KIND, EXIT_KIND, SWEEP_KIND, ON_KIND = "stock", "off", "exit", "sweep", "on"


@dataclass(frozen=True)
class Point:
    """One measured row, ready to be drawn.

    Attributes:
        name: What the table calls it.
        kind: STOCK_KIND, OFF_KIND, EXIT_KIND, SWEEP_KIND or ON_KIND.
        own: True for the weights that the report is about.
        settings: As they were run.
        wer: In percent, with its 95 % interval.
        change: WER against skipping off of the weights that the report is about.
        gflops: Encoder FLOPs per second of audio, in 1e9.
        time_ms: Median encoder time per second of audio with the shortest and the longest
            pass, in milliseconds.
        skip_ratio: Share of frames that skipped at least one layer.
        record: Everything, for the table and the JSON file.
    """

    name: str
    kind: str
    own: bool
    settings: SkipSettings
    wer: Interval
    change: Interval
    gflops: float
    time_ms: Interval
    skip_ratio: float
    record: dict[str, Any]

    @property
    def is_swept(self) -> bool:
        """True for our weights at one of the thresholds and extensions, the configured included."""
        return self.own and self.kind in (SWEEP_KIND, ON_KIND)

    @property
    def threshold(self) -> float:
        """Blank threshold, the mean one where gates differ; 1.0 = off."""
        found = self.settings.blank_threshold or 1.0
        return fmean(found) if isinstance(found, tuple) else found

    @property
    def short_name(self) -> str:
        """What a figure writes beside the row: the threshold of swept rows, else the name."""
        found = self.settings.blank_threshold
        if not self.is_swept or found is None:
            return self.name
        return ",".join(f"{p:g}" for p in (found if isinstance(found, tuple) else (found,)))

    @property
    def failure(self) -> str:
        """Why the row is no speed-up; empty if it may be one."""
        status = str(self.record["status"])
        return "" if status == "ok" else status.removeprefix("failed: ")


def sweep_rows(
    exp: str, stored: SkipSettings, exits: Sequence[int], others: Sequence[str]
) -> list[Row]:
    """Return all rows: off, on, exits, thresholds x extensions, other experiments.

    Args:
        exp: The experiment with a gate.
        stored: Its own settings, resolved.
        exits: Its gate layers.
        others: ``[LABEL=]EXPDIR[,EXPDIR...]`` of other experiments; several are seeds.

    Raises:
        ValueError: If another experiment cannot be read or two rows have the same name.
    """
    rows = standard_rows((exp,), exits)
    rows += [Row(in_words(s), (exp,), s) for s in grid(stored, SWEPT) if s.over(stored) != stored]
    for spec in others:
        rows += experiment_rows(spec)
    return check_names(rows)


def points_of(
    results: Sequence[RowResult],
    exp: str,
    audio_seconds: float,
    max_wer_points: float = MAX_WER_POINTS,
) -> list[Point]:
    """Return a point for every row that was measured.

    Args:
        results: What was measured.
        exp: The experiment with a gate.
        audio_seconds: Of the test set.
        max_wer_points: A row whose WER is further above full depth's has failed.

    Raises:
        ValueError: If skipping off failed: everything is compared with it.
    """
    off = next(r for r in results if r.row.name == OFF_NAME)
    if not off.seeds:
        raise ValueError(f"{exp} could not be decoded: {off.failure}")
    baseline = off.utterance_errors()
    points = []
    records = compare_records(results, audio_seconds, max_wer_points)
    for result, record in zip(results, records, strict=True):
        if not result.seeds:
            continue
        errors, num_words = result.utterance_errors(), result.num_words()
        interval = partial(paired_bootstrap, num_ref=num_words, speakers=result.speakers)
        timing = record["encoder_time_per_second"]
        points.append(
            Point(
                name=result.row.name,
                kind=_kind(result),
                own=result.row.exps == (exp,),
                settings=result.seeds[0].system.settings,
                wer=interval(errors, [0.0] * len(errors)),
                change=interval(errors, baseline),
                gflops=record["encoder_flops_per_second"] / 1e9,
                time_ms=Interval(timing["median_ms"], timing["min_ms"], timing["max_ms"]),
                skip_ratio=record["skip_ratio"],
                record=record,
            )
        )
    return points


def sweep_lines(points: Sequence[Point]) -> dict[tuple[int, int], list[Point]]:
    """Return the points of our gate by spike extension, each list by rising threshold."""
    lines: dict[tuple[int, int], list[Point]] = {}
    for point in sorted(points, key=lambda p: p.threshold):
        if point.is_swept and point.settings.spike_extension:
            lines.setdefault(point.settings.spike_extension, []).append(point)
    return dict(sorted(lines.items()))


def measured_settings(points: Sequence[Point]) -> list[Point]:
    """Return the rows that the page's slider goes through: ours, by extension and threshold.

    Skipping off is the last of each extension.
    """
    off = [p for p in points if p.own and p.kind == OFF_KIND][:1]
    return [p for line in sweep_lines(points).values() for p in (*line, *off)]


def in_words(settings: SkipSettings) -> str:
    """Return settings for people.

    Example:
        >>> in_words(SkipSettings(0.9, (1, 1)))
        'threshold 0.9, extension 1,1'
    """
    return settings.describe().replace(" ", ", ").replace("=", " ")


def _kind(result: RowResult) -> str:
    if result.is_stock:
        return STOCK_KIND
    if result.full_depth:
        return OFF_KIND
    if result.row.settings.exit_layer is not None:
        return EXIT_KIND
    return ON_KIND if result.row.settings == SkipSettings() else SWEEP_KIND
