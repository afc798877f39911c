"""Samples to features in a graph, as ESPnet's default frontend and normalisation make them.

The short-time Fourier transform is a convolution: ONNX's own STFT took five times as long in
onnxruntime.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from espnet_layerskip.export.graph import Graph


def unsupported_frontend(model: Any) -> list[str]:
    """Return why the parts of an ESPnet model in front of its encoder cannot be exported."""
    frontend, normalize = model.frontend, model.normalize
    stft, enhance = getattr(frontend, "stft", None), getattr(frontend, "frontend", None)
    reasons = []
    if type(frontend).__name__ != "DefaultFrontend" or stft is None:
        reasons.append(f"the frontend is {type(frontend).__name__}, not ESPnet's default")
    elif not stft.onesided or getattr(frontend.logmel, "log_base", None) is not None:
        reasons.append("the frontend has another spectrum or logarithm than ESPnet's default")
    if getattr(enhance, "use_wpe", False) or getattr(enhance, "use_beamformer", False):
        reasons.append("the frontend enhances speech (WPE or a beamformer)")
    if normalize is not None and type(normalize).__name__ not in ("GlobalMVN", "UtteranceMVN"):
        reasons.append(f"the normalisation is {type(normalize).__name__}")
    for name in ("preencoder", "postencoder"):
        if (part := getattr(model, name, None)) is not None:
            reasons.append(f"the model has a {name} ({type(part).__name__})")
    return reasons


def features(g: Graph, model: Any, speech: str, lens: str) -> tuple[str, str]:
    """Return features (B, F, T), not normalised, and their lengths (B,).

    Args:
        g: The graph.
        model: ESPnet ASR model for which `unsupported_frontend` finds nothing.
        speech: Samples (B, N).
        lens: Their lengths (B,) int64.
    """
    stft, melmat = model.frontend.stft, model.frontend.logmel.melmat
    # the window, in the middle of n_fft, may be shorter: what is outside is not read
    left = (stft.n_fft - stft.win_length) // 2
    right = stft.n_fft - stft.win_length - left
    if stft.center:
        reach = stft.n_fft // 2
        speech = _reflected(g, speech, lens, reach - left, reach - right)
        lens = g.op("Add", lens, g.ints(2 * reach))
    elif left or right:
        stop = g.op("Sub", g.length(speech, 1), g.ints(right))
        speech = g.slice(speech, g.ints(left), stop, axis=1)
    hop = g.ints(stft.hop_length)
    lens = g.op("Add", g.op("Div", g.op("Sub", lens, g.ints(stft.n_fft)), hop), g.ints(1))
    kernel = _fourier(stft)
    parts = g.op(
        "Conv", g.op("Unsqueeze", speech, g.ints(1)), g.const(kernel), strides=[stft.hop_length]
    )
    real, imaginary = g.split(g.op("Mul", parts, parts), [len(kernel) // 2] * 2, axis=1)
    mel = g.op("MatMul", g.const(melmat.t().numpy()), g.op("Add", real, imaginary))
    return g.op("Log", g.op("Max", mel, g.const(1e-10))), lens


def valid(g: Graph, length: str, lens: str) -> str:
    """Return which of (B, length) are real, bool."""
    return g.op("Less", g.range(length), g.op("Unsqueeze", lens, g.ints(1)))


def normalised(g: Graph, module: Any, feats: str, lens: str) -> str:
    """Return the features (B, F, T) after GlobalMVN, UtteranceMVN or nothing, zero on padding.

    Args:
        g: The graph.
        module: ESPnet's.
        feats: Features (B, F, T).
        lens: Their lengths (B,).
    """
    mask = g.op("Unsqueeze", valid(g, g.length(feats, 2), lens), g.ints(1))
    mask = g.op("Cast", mask, to=1)
    if module is None:
        return g.op("Mul", feats, mask)
    if type(module).__name__ == "GlobalMVN":
        column = (1, -1, 1)
        if module.norm_means:
            feats = g.op("Sub", feats, g.const(module.mean.float().numpy().reshape(column)))
        if module.norm_vars:
            feats = g.op("Div", feats, g.const(module.std.float().numpy().reshape(column)))
        return g.op("Mul", feats, mask)
    feats = g.op("Mul", feats, mask)
    count = g.op("Unsqueeze", g.op("Cast", lens, to=1), g.ints(1, 2))

    def mean(x: str) -> str:
        return g.op("Div", g.op("ReduceSum", x, g.ints(2)), count)

    centred = g.op("Mul", g.op("Sub", feats, mean(feats)), mask)
    if module.norm_vars:
        variance = mean(g.op("Mul", centred, centred))
        std = g.op("Max", g.op("Sqrt", variance), g.const(module.eps))
        feats = g.op("Div", centred if module.norm_means else feats, std)
        return feats
    return centred if module.norm_means else feats


def _fourier(stft: Any) -> np.ndarray[Any, Any]:
    """Return the windowed Fourier transform as a kernel (2 * bins, 1, win_length)."""
    n_fft, width = stft.n_fft, stft.win_length
    window = torch.ones(width, dtype=torch.float64)
    if stft.window is not None:
        window = getattr(torch, f"{stft.window}_window")(width, dtype=torch.float32).double()
    if stft.normalized:
        window = window * n_fft**-0.5
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)
    places = (n_fft - width) // 2 + torch.arange(width)
    angle = 2.0 * torch.pi / n_fft * ((bins[:, None] * places) % n_fft)
    kernel = torch.cat((angle.cos(), angle.sin())) * window
    return kernel[:, None].float().numpy()


def _reflected(g: Graph, speech: str, lens: str, left: int, right: int) -> str:
    """Return samples (B, left + N + right), each utterance reflected at its own ends."""
    padded = g.op("Pad", speech, g.ints(0, left, 0, right), mode="reflect")
    # the end of an utterance that is shorter than the batch is reflected over the padding
    steps = g.const(np.arange(right)[None], np.int64)
    last = g.op("Unsqueeze", lens, g.ints(1))
    source = g.op("Sub", g.op("Sub", last, g.ints(2)), steps)
    target = g.op("Add", g.op("Add", last, g.ints(left)), steps)
    tail = g.op("GatherElements", speech, source, axis=1)
    return g.op("ScatterElements", padded, target, tail, axis=1)
