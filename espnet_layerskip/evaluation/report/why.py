"""Why skipping saves what it saves: from the frames that skip to the time that is gained."""

from __future__ import annotations

from dataclasses import dataclass

from espnet_layerskip.evaluation.report.comparison import lengths, time_ms
from espnet_layerskip.evaluation.report.sweep import Point


@dataclass(frozen=True)
class Step:
    """One step of the explanation.

    Attributes:
        name: What is shown.
        percent: How much it is; negative = it costs more; None = it failed, so nothing counts.
        because: Why it is not more.
    """

    name: str
    percent: float | None
    because: str

    @property
    def shown(self) -> str:
        """How much it is, in words."""
        if self.percent is None:
            return "failed"
        if round(self.percent) < 0:
            return f"none, {-self.percent:.0f} % more"
        return f"{self.percent:.0f} %"


def explain(on: Point, off: Point, gates: list[int], layers: int, stem_share: float) -> list[Step]:
    """Return the steps: frames skipped, layers not run, arithmetic saved, time saved.

    Args:
        on: Skipping on.
        off: The same weights with skipping off.
        gates: Gate layers that decide.
        layers: Layers of the encoder.
        stem_share: Share of the subsampling in the encoder's FLOPs at full depth.
    """
    ceiling = 100.0 * float(on.record["ceiling"])
    flops = 100.0 * (1.0 - on.gflops / off.gflops)
    steps = [
        Step("Frames that skip", 100.0 * on.skip_ratio, _gates(gates, on)),
        Step("Work of the layers left out", ceiling, _layers(gates, layers)),
        Step("Encoder arithmetic (FLOPs) saved", flops, _flops(ceiling, flops, stem_share, on)),
    ]
    if on.failure:
        return [*steps, Step("Encoder time saved", None, f"Does not count: {on.failure}.")]
    return [*steps, _time_step(on, off, flops)]


def _time_step(on: Point, off: Point, flops: float) -> Step:
    """Return the time saved: of the longest inputs where a comparison timed some lengths."""
    saved = {}
    for length in lengths(on) or [""]:
        ms, full = time_ms(on, length), time_ms(off, length)
        if ms is not None and full is not None:
            saved[length] = 100.0 * (1.0 - ms / full)
    *shorter, (longest, time) = saved.items()
    if not longest:
        return Step("Encoder time saved", time, _time(flops, time))
    others = "".join(f" On {n} s: {Step('', saving, '').shown}." for n, saving in shorter)
    return Step(f"Encoder time saved on {longest} s of audio", time, _time(flops, time) + others)


def _gates(gates: list[int], on: Point) -> str:
    after = " and ".join(map(str, gates))
    rule = (
        f"They skip every layer above the gate{'s' if len(gates) > 1 else ''} after layer {after}."
    )
    least = on.settings.min_skipped_frames
    if least:
        rule += f" Utterances of which fewer than {least} frames would skip run whole."
    return rule


def _layers(gates: list[int], layers: int) -> str:
    if len(gates) == 1:
        return (
            f"A skipped frame leaves out {layers - gates[0]} of {layers} layers; the others run "
            "for every frame."
        )
    above = ", ".join(str(layers - gate) for gate in gates)
    return f"A skipped frame leaves out {above} of {layers} layers, by the gate that drops it."


def _flops(ceiling: float, flops: float, stem_share: float, on: Point) -> str:
    possible = ceiling * (1.0 - stem_share)
    text = (
        f"The subsampling, {100 * stem_share:.0f} % of the arithmetic, runs for every frame: "
        f"{ceiling:.0f} % of the rest are {possible:.0f} %."
    )
    if flops > possible + 1.0:
        return f"{text} More is saved because attention grows with the square of the frames."
    if flops < possible - 1.0 and on.settings.skip_context == "full":
        return f"{text} Less is saved because the kept frames still look at the skipped ones."
    return text


def _time(flops: float, time: float) -> str:
    costs = (
        "Asking the gate, gathering frames and the fixed cost of each operation remain, so short "
        "utterances gain little"
    )
    if time <= 0.0:
        return f"Nothing is gained here. {costs}."
    if time >= flops:
        return "At least as much as the arithmetic."
    return f"{100 * time / flops:.0f} % of what the arithmetic promises. {costs}."
