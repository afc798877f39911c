"""Where the time goes from wave file to text: a stopwatch around the parts of a pipeline."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from espnet_layerskip.encoders.fast.layout import Layout
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.inference import features
from espnet_layerskip.method import walk
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


def profile(
    systems: Mapping[str, Any],
    gate_layer: int,
    inputs: Mapping[str, Sequence[Callable[[], Any]]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, Any]]:
    """Take the time of rows of the end-to-end scope apart, interleaved.

    Args:
        systems: Ours or ESPnet's, by the name of the row.
        gate_layer: Layers up to this one are "lower".
        inputs: What each row runs, batch by batch.
        repeats: Passes; one more before them is not measured.
        clock: Seconds, monotonic.

    Returns:
        Of each row, median over the passes, in seconds a batch: "total_s", "encoder_s",
        "parts_s" by part, and the gate's share of the encoder's time.
    """
    passes: dict[str, list[tuple[dict[str, float], float]]] = {name: [] for name in systems}
    for i in range(repeats + 1):
        for name, system in systems.items():
            watch = Stopwatch(clock)
            with watching(watch, system, gate_layer):
                start = clock()
                for run in inputs[name]:
                    watch.measure("other", run)
                total = clock() - start
            if i:
                passes[name].append((watch.seconds, total))
    return {name: _record(taken, len(inputs[name])) for name, taken in passes.items()}


def _record(taken: Sequence[tuple[dict[str, float], float]], batches: int) -> dict[str, Any]:
    seconds = {p: statistics.median(s[p] for s, _ in taken) / batches for p in PARTS}
    encoder = sum(seconds[part] for part in ENCODER_PARTS)
    return {
        "total_s": statistics.median(total for _, total in taken) / batches,
        "encoder_s": encoder,
        "gate_share_of_encoder": seconds["gate"] / encoder if encoder else None,
        "parts_s": seconds,
    }


@contextmanager
def watching(watch: Stopwatch, system: Any, gate_layer: int) -> Iterator[None]:
    """Inside the block, count the parts of our pipeline or of ESPnet's.

    Args:
        watch: Counts.
        system: A `System`, or ESPnet's search.
        gate_layer: Layers up to this one are "lower".
    """
    model, encoder = system.model, system.encoder
    with ExitStack() as stack:

        def around(owner: Any, name: str, part: str | Callable[..., str]) -> None:
            stack.enter_context(watch.around(owner, name, part))

        def level(number: int) -> str:
            return "lower" if number < gate_layer else "upper"

        around(model.ctc, "log_softmax", "head")
        if not isinstance(system, System):
            around(model, "_extract_feats", "frontend")
            if model.normalize is not None:
                around(model.normalize, "forward", "frontend")
            around(encoder, "forward", "encoder_other")
            around(encoder.embed, "forward", "stem")
            for number, layer in enumerate(encoder.encoders):
                around(layer, "forward", level(number))
            around(system.speech2text.beam_search, "forward", "search")
            yield
            return

        def of_layout(layout: Layout, frames: Frames, reach: int = 0) -> str:
            return "lower" if frames.frozen is None else "gate"

        around(features, "compute_features", "frontend")
        around(features, "normalise", "frontend")
        around(encoder, "run", "encoder_other")
        around(encoder, "subsample", "stem")
        fast = encoder.fast_form()
        layers = encoder.encoders if fast is None else fast.layers
        number_of = {id(layer): number for number, layer in enumerate(layers)}
        owner, name = (encoder, "run_layer") if fast is None else (type(layers[0]), "__call__")
        around(owner, name, lambda layer, frames: level(number_of[id(layer)]))
        around(walk, "look", "gate")
        around(walk, "decide", "gate")
        around(LayerState, "drop", "gate")
        around(LayerState, "full", "gate")
        # what the layers above a gate have to know of the gaps
        around(Layout, "__init__", of_layout)
        around(type(system.speech2text.ctc_decoder), "__call__", "search")
        yield
