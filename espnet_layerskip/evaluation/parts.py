"""Where the time goes from wave file to text: a stopwatch around the parts of a pipeline."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from espnet_layerskip.encoders.fast.layout import Layout
from espnet_layerskip.evaluation.entries import Entry
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.method.frames import Frames, LayerState

# In the order of the pipeline; "other" is reading the file, text and Python in between.
PARTS = ("frontend", "stem", "lower", "gate", "upper", "encoder_other", "head", "search", "other")
ENCODER_PARTS = ("stem", "lower", "gate", "upper", "encoder_other")


class Stopwatch:
    """Adds up the time spent in functions by part; of a nested call the inner part counts.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock = clock
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._nested: list[float] = []

    def measure(self, part: str | Callable[..., str], run: Callable[..., Any], *args: Any) -> Any:
        """Call ``run(*args)`` and count its time for a part (or what ``part(*args)`` says)."""
        name = part if isinstance(part, str) else part(*args)
        self._nested.append(0.0)
        start = self.clock()
        try:
            return run(*args)
        finally:
            spent = self.clock() - start
            self.seconds[name] += spent - self._nested.pop()
            if self._nested:
                self._nested[-1] += spent

    @contextmanager
    def around(self, owner: Any, name: str, part: str | Callable[..., str]) -> Iterator[None]:
        """Inside the block, count the calls of a function of an object, module or class."""
        own = name in vars(owner)
        original = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            return self.measure(part, lambda *a: original(*a, **kwargs), *args)

        setattr(owner, name, timed)
        try:
            yield
        finally:
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)


@dataclass(frozen=True)
class Profile:
    """Where the time of one row goes, median over the passes, in seconds a batch.

    Attributes:
        seconds: By part.
        total: Of the whole.
    """

    seconds: dict[str, float]
    total: float

    def to_json(self) -> dict[str, Any]:
        """Return plain types, with the gate's share of the encoder's time."""
        encoder = sum(self.seconds[part] for part in ENCODER_PARTS)
        return {
            "total_s": self.total,
            "encoder_s": encoder,
            "gate_share_of_encoder": self.seconds["gate"] / encoder if encoder else None,
            "parts_s": self.seconds,
        }


def profile(
    entries: Mapping[str, Entry],
    gate_layer: int,
    inputs: Mapping[str, Sequence[Callable[[], Any]]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Profile]:
    """Take the time of rows of the end-to-end scope apart, interleaved.

    Args:
        entries: The rows.
        gate_layer: Layers up to this one are "lower".
        inputs: What each row runs, batch by batch, as `Entry.bind` gave it.
        repeats: Passes; one more before them is not measured.
        clock: Seconds, monotonic.
    """
    passes: dict[str, list[tuple[dict[str, float], float]]] = {name: [] for name in entries}
    for i in range(repeats + 1):
        for name, entry in entries.items():
            entry.prepare()
            watch = Stopwatch(clock)
            with watching(watch, entry.source, gate_layer):
                start = clock()
                for run in inputs[name]:
                    watch.measure("other", run)
                total = clock() - start
            if i:
                passes[name].append((watch.seconds, total))
    found = {}
    for name, taken in passes.items():
        batches = len(inputs[name])
        seconds = {p: statistics.median(s[p] for s, _ in taken) / batches for p in PARTS}
        found[name] = Profile(seconds, statistics.median(t for _, t in taken) / batches)
    return found


@contextmanager
def watching(watch: Stopwatch, source: Any, gate_layer: int) -> Iterator[None]:
    """Inside the block, count the parts of our pipeline or of ESPnet's.

    Args:
        watch: Counts.
        source: A `System`, prepared, or an ESPnet Speech2Text.
        gate_layer: Layers up to this one are "lower".
    """
    ours = isinstance(source, System)
    model: Any = source.model if ours else source.asr_model
    encoder: Any = model.encoder
    layers = list(encoder.encoders)

    def level(number: int) -> str:
        return "lower" if number < gate_layer else "upper"

    with ExitStack() as stack:

        def around(owner: Any, name: str, part: str | Callable[..., str]) -> None:
            stack.enter_context(watch.around(owner, name, part))

        around(model, "_extract_feats", "frontend")
        if model.normalize is not None:
            around(model.normalize, "forward", "frontend")
        around(encoder, "forward", "encoder_other")
        around(model.ctc, "log_softmax", "head")
        if not ours:
            around(encoder.embed, "forward", "stem")
            for number, layer in enumerate(layers):
                around(layer, "forward", level(number))
            around(source.beam_search, "forward", "search")
            yield
            return
        decoder = source.experiment.speech2text.ctc_decoder
        around(encoder, "subsample", "stem")
        run = list(getattr(encoder, "fast_layers", lambda: None)() or layers)
        number_of = {id(layer): number for number, layer in enumerate(run)}
        around(encoder, "run_layer", lambda layer, frames: level(number_of[id(layer)]))
        around(encoder, "view", "gate")
        around(encoder, "decide", "gate")
        around(LayerState, "drop", "gate")
        around(Frames, "full", "gate")
        # what the layers above a gate have to know of the gaps
        around(Layout, "__init__", lambda _, frames: "lower" if frames.frozen is None else "gate")
        around(type(decoder), "__call__", "search")
        yield
