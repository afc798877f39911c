"""Seconds and FLOPs of OWSM-CTC's encoder at its real size, with a forced share of kept frames.

Random weights of egs2/owsm_ctc_v3.1 (27 layers, 1024 wide, 50k tokens): what the layers cost does
not depend on their numbers, only on how many frames they run. With ``--share_layers true`` the
layers share their weights: 2 GB in the place of about 8, and the same work; a layer alone (130 MB)
is more than most processors' caches hold.

Example::

    python local/speed.py --share_layers true --output exp/speed.json
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from espnet_layerskip._compat import CTC
from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.encoders.e_branchformer_ctc import Prompt
from espnet_layerskip.encoders.prefix import PrefixGate
from espnet_layerskip.evaluation.environment import environment_record, finish_record, typed
from espnet_layerskip.evaluation.flops import windows_flops
from espnet_layerskip.evaluation.timing import num_threads, summary, time_interleaved
from espnet_layerskip.files import run_main, write_text
from espnet_layerskip.method.gate import BlankGate

CONF: dict[str, Any] = {
    "input_size": 80,
    "output_size": 1024,
    "attention_heads": 16,
    "attention_layer_type": "selfattn",
    "pos_enc_layer_type": "abs_pos",
    "cgmlp_linear_units": 4096,
    "cgmlp_conv_kernel": 31,
    "num_blocks": 27,
    "input_layer": "conv2d8",
    "use_ffn": True,
    "macaron_ffn": True,
    "linear_units": 4096,
    "merge_conv_kernel": 31,
    "interctc_layer_idx": [6, 12, 15, 21],
    "interctc_use_conditioning": True,
    "use_cross_attention": [k % 3 == 0 for k in range(1, 28)],
}
VOCABULARY = 50002
FRAMES_PER_SECOND = 100
GATES = {"12": (12,), "15": (15,), "12, 15": (12, 15)}
RATIOS = (0.5, 0.3, 0.15)


@dataclass(frozen=True)
class Forced(BlankGate):
    """Asks the head as a gate does, then keeps runs of three frames, so many of all."""

    ratio: float = 1.0

    def __call__(self, blank_prob: torch.Tensor, valid_mask: torch.Tensor) -> torch.Tensor:
        """Return the frames (B, T) bool that go on."""
        place = torch.arange(valid_mask.size(1), device=valid_mask.device) // 3
        return valid_mask & (((place + 1) * self.ratio).floor() > (place * self.ratio).floor())


class ShapesOnly(TorchDispatchMode):  # type: ignore[misc]
    """Adds up the FLOPs of matrix products, convolutions and attention, which it does not run.

    They return memory as it is: the forced gates look at no number.
    """

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, or only tell the shape of what it would return."""
        kwargs = kwargs or {}
        attention = "scaled_dot_product" in str(func)
        formula = flop_registry.get(func.overloadpacket)
        if formula is None and not attention:
            if func.overloadpacket is torch.ops.aten.mul_:
                self.flops += windows_flops(*(getattr(one, "shape", one) for one in args))
            return func(*args, **kwargs)
        meta = tree_map_only(torch.Tensor, lambda t: t.to("meta"), (args, kwargs))
        out = func(*meta[0], **meta[1])
        out = tree_map_only(torch.Tensor, lambda t: torch.empty_like(t, device="cpu"), out)
        if attention:
            self.flops += sdpa_flop_count(*(t.shape for t in args[:3]))
        else:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out


def count(run: Callable[[], Any]) -> int:
    """Return the FLOPs of a pass; two are a multiply-accumulate."""
    with torch.no_grad(), ShapesOnly() as counter:
        run()
    return int(counter.flops)


def build(share_layers: bool, layers: int) -> tuple[Any, Any]:
    """Return the encoder (evaluation mode, fast form) and its CTC head."""
    torch.manual_seed(0)
    ours = ENCODERS["layerskip_e_branchformer_ctc"]
    if share_layers:
        few = {**CONF, "num_blocks": 2, "use_cross_attention": [False, True]}
        encoder = ours(**{**few, "interctc_layer_idx": []}).eval()
        encoder.interctc_layer_idx = CONF["interctc_layer_idx"]
    else:
        encoder = ours(**{**CONF, "num_blocks": layers}).eval()
    encoder.conditioning_layer = torch.nn.Linear(VOCABULARY, CONF["output_size"])
    encoder.optimize_for_inference()
    if share_layers:
        one, other = encoder._fast.layers
        cross = CONF["use_cross_attention"][:layers]
        encoder._fast.layers = [other if has else one for has in cross]
    return encoder, CTC(VOCABULARY, CONF["output_size"]).eval()


def case(
    encoder: Any, ctc: Any, seconds: int, gates: tuple[int, ...], ratio: float, context: str
) -> Callable[[], Any]:
    """Return a pass over one utterance whose gates keep a share of its frames.

    In a cascade the first gate drops half of what the last one has dropped.
    """
    n, width = seconds * FRAMES_PER_SECOND, CONF["output_size"]
    x, lens = torch.randn(1, n, CONF["input_size"]), torch.tensor([n])
    prompt = Prompt(torch.randn(1, 2, width), torch.randn(1, 1, width))
    shares = [(1 + ratio) / 2, ratio][-len(gates) :] if gates else []
    made = {
        k: PrefixGate(Forced(0.5, (0, 0), 0.0, share), 2)
        for k, share in zip(gates, shares, strict=True)
    }

    def run() -> Any:
        encoder.gates = lambda settings, skip=None: made
        encoder.settings = encoder.settings.from_json({"skip_context": context}).over(
            encoder.settings
        )
        with torch.no_grad():
            return encoder.run(x, lens, ctc, prompt=prompt)

    return run


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run all cases, interleaved, and return what the page shows."""
    record = environment_record()
    encoder, ctc = build(args.share_layers == "true", args.layers)
    rows, stems = [], {}
    for seconds in args.seconds:
        n = seconds * FRAMES_PER_SECOND
        x, lens = torch.randn(1, n, CONF["input_size"]), torch.tensor([n])
        stems[seconds] = count(partial(encoder.subsample, x, lens))
        make = partial(case, encoder, ctc, seconds)
        cases = {("none", 1.0, "-"): make((), 1.0, "packed")}
        for name, gates in GATES.items():
            for ratio in RATIOS:
                cases[(name, ratio, "packed")] = make(gates, ratio, "packed")
        cases[("12", 0.3, "full")] = make((12,), 0.3, "full")
        flops = {key: count(run) for key, run in cases.items()}
        times: dict[int, dict[Any, list[float]]] = {}
        for threads in args.threads:
            with num_threads(threads):
                if args.repeats:
                    named = {str(key): run for key, run in cases.items()}
                    found = time_interleaved([named], repeats=args.repeats)
                    times[threads] = {key: found[str(key)] for key in cases}
                else:  # one pass, for a machine that cannot spare more
                    times[threads] = {key: one_pass(run) for key, run in cases.items()}
            logging.info("%d s of audio, %d thread(s): done", seconds, threads)
        for key, total in flops.items():
            rows.append(
                {
                    "audio_s": seconds,
                    **dict(zip(("gates", "kept", "context"), key, strict=True)),
                    "flops": total,
                    "seconds": {t: summary(found[key]) for t, found in times.items()},
                }
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    weights = sum(p.numel() for p in encoder.parameters()) + sum(
        p.numel() for p in ctc.parameters()
    )
    return {
        "environment": finish_record(record),
        "command": args.command,
        "layers": args.layers,
        "share_layers": args.share_layers == "true",
        "parameters_held": weights,
        "peak_gib": peak,
        "subsampling_flops": stems,
        "rows": rows,
    }


def one_pass(run: Callable[[], Any]) -> list[float]:
    """Return the seconds of one pass."""
    start = time.perf_counter()
    run()
    return [time.perf_counter() - start]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Speed of OWSM-CTC's encoder at its real size")
    parser.add_argument("--output", type=Path, required=True, help="JSON")
    parser.add_argument("--share_layers", choices=("true", "false"), default="false")
    parser.add_argument("--layers", type=int, default=27)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2], help="none: FLOPs only")
    parser.add_argument("--repeats", type=int, default=5, help="0: one pass, not warmed up")
    args = parser.parse_args()
    args.command = typed(["python", *sys.argv])
    write_text(args.output, json.dumps(measure(args), indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)
