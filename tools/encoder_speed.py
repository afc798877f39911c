#!/usr/bin/env python3
"""Time the encoder with skipping on, off and in ESPnet's class, interleaved, at many lengths.

::

    tools/encoder_speed.py --models d256 --seconds 3 10 30 --threads 1 2
    tools/encoder_speed.py --models exp/asr_x --data data/test --threads 1
    tools/encoder_speed.py --models d256 --seconds 10 --profile on
    tools/encoder_speed.py --models d256 --batch 1 8 32 --device cuda --precision bfloat16

A model is an experiment folder or zip, with its trained weights and real speech of ``--data``, or
one of ours with random weights and random features, whose gate is set to keep a share of the
frames. Skipping on and off take turns on every input, so that the machine's slow moments meet
both; so do on and ESPnet's class. With one thread of a CPU the time is that of the processor, not
of the clock. On a GPU a pass ends when the device has done it. Prints a table.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
from espnet_layerskip.encoders.convert import make_stock
from espnet_layerskip.evaluation.break_even import break_even
from espnet_layerskip.evaluation.flops import counted
from espnet_layerskip.evaluation.timing import num_threads, time_interleaved
from espnet_layerskip.method.ctc import LayerSkipCTC
from espnet_layerskip.method.settings import OFF, SkipSettings

CONF = {"rel_pos_type": "latest", "macaron_style": True, "use_cnn_module": True}
NAMES = ("input_size", "output_size", "attention_heads", "linear_units", "num_blocks")
NAMES = (*NAMES, "cnn_module_kernel", "stem_channels", "gate_layer_idx")
SIZES: dict[str, dict[str, Any]] = {
    "d96": dict(zip(NAMES, (40, 96, 4, 384, 8, 15, 32, [3]), strict=True)),
    "d256": dict(zip(NAMES, (80, 256, 4, 2048, 12, 31, 0, [4]), strict=True)),
    "d512": dict(zip(NAMES, (80, 512, 8, 2048, 12, 31, 0, [4]), strict=True)),
}
HEAD = "| model | seconds | batch | threads | min_skipped | kept % | ESPnet ms | off ms | on ms | "
HEAD += "off / on | on / off | ESPnet / on | FLOPs saved % | time saved % | realised % |"


class Contenders:
    """A model's encoder in three forms, and what they encode.

    Args:
        name: Of `SIZES`, or an experiment.
        args: The command line.
    """

    def __init__(self, name: str, args: argparse.Namespace):
        self.wave: np.ndarray | None = None
        self.share = args.kept
        if name in SIZES:
            torch.manual_seed(0)
            self.bins = SIZES[name]["input_size"]
            self.ours: Any = LayerSkipConformerEncoder(
                **SIZES[name], **CONF, spike_extension=[0, 0], skip_context=args.context
            )
            self.ctc: Any = LayerSkipCTC(args.vocabulary, self.ours.output_size()).eval()
            self.ours.eval().optimize_for_inference()
        else:
            from espnet_layerskip.evaluation.experiment import load_experiment
            from espnet_layerskip.evaluation.inputs import load_test_set
            from espnet_layerskip.evaluation.systems import System

            self.system = System(load_experiment(name), SkipSettings.from_items(args.skip))
            self.ours, self.ctc = self.system.encoder, self.system.model.ctc
            data = load_test_set(args.data, self.system.speech2text.sample_rate)
            self.wave = np.concatenate([one.samples for one in data.speech])
        self.stock = copy.deepcopy(self.ours)
        make_stock(self.stock)
        self.device, self.precision = torch.device(args.device), args.precision
        for module in (self.ours, self.stock, self.ctc):
            module.to(self.device)
        self.least = args.min_skipped

    def timed(self, run: Callable[[], Any]) -> Callable[[], Any]:
        """Return a function that runs in the wanted precision, until the device is done."""
        reduced = self.precision != "float32"

        def whole() -> Any:
            kind = self.device.type
            with torch.autocast(kind, getattr(torch, self.precision)) if reduced else nullcontext():
                result = run()
            if kind == "cuda":
                torch.cuda.synchronize(self.device)
            return result

        return whole

    def features(self, seconds: float, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (B, T, F) and lengths (B,), on the device."""
        x, lens = self._features(seconds, batch)
        return x.to(self.device), lens.to(self.device)

    @torch.inference_mode()
    def _features(self, seconds: float, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.wave is None:
            frames = round(100 * seconds)
            generator = torch.Generator().manual_seed(1)
            x = torch.randn(batch, frames, self.bins, generator=generator)
            return x, torch.full((batch,), frames)
        from espnet_layerskip.evaluation.inputs import Speech

        rate = self.system.speech2text.sample_rate
        size = round(rate * seconds)
        wave = np.resize(self.wave, max(len(self.wave), batch * size))
        parts = [Speech(str(i), wave[i * size : (i + 1) * size], rate) for i in range(batch)]
        return self.system.batch(parts)

    @torch.inference_mode()
    def settings(self, x: torch.Tensor, lens: torch.Tensor) -> SkipSettings:
        """Return how to skip; with random weights so that the wanted share is kept."""
        how = replace(self.ours.settings, min_spike_ratio=self.ours.min_spike_ratio)
        if self.wave is None:
            seen = self.ours.run(x, lens, self.ctc, SkipSettings(blank_threshold=0.999999))
            probs = seen.trace.gates[0].blank_prob.flatten().sort().values
            kept = max(1, round(self.share * len(probs)))
            how = replace(how, blank_threshold=float(probs[kept - 1]), min_spike_ratio=0.0)
        if self.least is None:
            clock = cpu_or_wall(torch.get_num_threads(), self.device)
            self.least = break_even(self.ours, self.ctc, x[:1, :400], how, clock=clock)
        return replace(how, min_skipped_frames=self.least)


def cpu_or_wall(threads: int, device: torch.device) -> Callable[[], float]:
    """Return a clock: with one thread of a CPU that of its processor time, else the wall's."""
    return time.thread_time if threads == 1 and device.type == "cpu" else time.perf_counter


def rows(name: str, args: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of a model."""
    for threads in args.threads:
        with num_threads(threads):
            found = Contenders(name, args)
            for batch in args.batch:
                for seconds in args.seconds:
                    yield row(name, found, args, seconds, batch, threads)


def row(
    name: str,
    found: Contenders,
    args: argparse.Namespace,
    seconds: float,
    batch: int,
    threads: int,
) -> str:
    """Return a line of the table."""
    x, lens = found.features(seconds, batch)
    how = found.settings(x, lens)
    cases: dict[str, Callable[[], Any]] = {
        "ESPnet": found.timed(lambda: found.stock(x, lens)),
        "off": found.timed(lambda: found.ours.run(x, lens, found.ctc, OFF)),
        "on": found.timed(lambda: found.ours.run(x, lens, found.ctc, how)),
    }
    _, full = counted(cases["off"])
    encoded, less = counted(cases["on"])
    kept = 1.0 if encoded.trace is None else 1.0 - encoded.trace.skip_ratio()
    if args.profile:
        print(profiled(cases[args.profile]))
    clock = cpu_or_wall(threads, found.device)
    with torch.inference_mode():
        start = clock()
        cases["off"]()
        repeats = min(args.repeats, max(5, round(args.budget / max(1e-4, clock() - start) / 3)))
        pair = {case: cases[case] for case in ("off", "on")}
        taken = time_interleaved([pair], repeats, warmup=2, clock=clock)
        if not args.no_espnet:  # apart: after it the caches would be cold for one of the two
            pair = {case: cases[case] for case in ("ESPnet", "on")}
            espnet_taken = time_interleaved([pair], 5, warmup=1, clock=clock)
    ms = {case: 1e3 * median(times) for case, times in taken.items()}
    ratio = median(a / b for a, b in zip(taken["off"], taken["on"], strict=True))
    saved, could = 1.0 - 1.0 / ratio, 1.0 - less / full
    espnet, against = "", ""
    if not args.no_espnet:
        espnet = f"{1e3 * median(espnet_taken['ESPnet']):.1f}"
        pairs = zip(espnet_taken["ESPnet"], espnet_taken["on"], strict=True)
        against = f"{median(a / b for a, b in pairs):.2f}"
    realised = f"{100 * saved / could:.0f}" if could > 0.02 else ""
    label = Path(name).stem + (f" {found.precision}" if found.precision != "float32" else "")
    return (
        f"| {label} | {seconds:g} | {batch} | {threads} | {found.least} | {100 * kept:.0f} | "
        f"{espnet} | {ms['off']:.2f} | {ms['on']:.2f} | {ratio:.2f} | {1 / ratio:.3f} | "
        f"{against} | {100 * could:.0f} | {100 * saved:.0f} | {realised} |"
    )


@torch.inference_mode()
def profiled(run: Callable[[], object], passes: int = 10) -> str:
    """Return PyTorch's table of a case's operators."""
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(passes):
            run()
    return str(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=20))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", nargs="+", default=["d96", "d256"], help=f"of {', '.join(SIZES)}, or EXP")
    add("--data", help="test set of an experiment: wav.scp and text")
    add("--skip", nargs="+", default=[], metavar="KEY=VALUE", help="of an experiment")
    add("--seconds", nargs="+", type=float, default=[3, 10, 30])
    add("--batch", nargs="+", type=int, default=[1])
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--device", default="cpu", help="cpu, cuda or cuda:N")
    add("--precision", choices=("float32", "bfloat16", "float16"), default="float32")
    add("--context", default="full", help="of random weights")
    add("--kept", type=float, default=0.15, help="share of frames kept by random weights")
    add("--vocabulary", type=int, default=500, help="of random weights")
    add("--min-skipped", type=int, help="frames; default: the break-even of this machine")
    add("--repeats", type=int, default=40, help="passes at most")
    add("--budget", type=float, default=6.0, help="seconds for a row, about")
    add("--no-espnet", action="store_true", help="leave ESPnet's class out")
    add("--profile", choices=("ESPnet", "off", "on"), help="print PyTorch's profile as well")
    args = parser.parse_args(argv)
    print(f"{HEAD}\n|{'---|' * HEAD.count(' |')}", flush=True)
    for name in args.models:
        for line in rows(name, args):
            print(line, flush=True)


if __name__ == "__main__":
    main()
