"""ESPnet's log-mel frontend and normalisations for one utterance, without its masks of padding.

One utterance has no padding, but ESPnet makes masks for it that are frames x frames large: at 30 s
four fifths of the frontend's time. The numbers are the same to the last bit.
"""

from __future__ import annotations

from typing import Any

import torch

from espnet_layerskip._compat import ESPnetASRModel

ENHANCEMENTS = (  # of ESPnet 202511 and of 202611
    "espnet.nets.pytorch_backend.frontends.frontend.Frontend",
    "espnet2.legacy.nets.pytorch_backend.frontends.frontend.Frontend",
)


def compute_features(model: Any, wave: torch.Tensor) -> torch.Tensor:
    """Return what a model's frontend makes of one utterance.

    Args:
        model: ESPnet ASR model in evaluation mode. What is not ESPnet's ``frontend: default``
            runs as it is.
        wave: Samples (N,), float.

    Returns:
        Features (T, F), not normalised.
    """
    frontend = model.frontend
    if not _is_log_mel(model):
        lengths = torch.tensor([wave.numel()], device=wave.device)
        return model._extract_feats(wave[None], lengths)[0][0]  # type: ignore[no-any-return]
    spectrum, _ = frontend.stft(wave[None])  # (1, T, bins, 2), without lengths: no mask
    squared = spectrum.square()
    feats, _ = frontend.logmel(squared[..., 0] + squared[..., 1])
    return feats[0]  # type: ignore[no-any-return]


def normalise(module: Any, feats: torch.Tensor) -> torch.Tensor:
    """Return the features of one utterance as a model's ``normalize`` makes them.

    Args:
        module: UtteranceMVN and GlobalMVN of ESPnet are computed here, others are called.
        feats: (T, F); not changed.
    """
    if _is(module, "espnet2.layers.global_mvn.GlobalMVN"):
        if module.norm_means:
            feats = feats - module.mean.to(feats)
        return feats / module.std.to(feats) if module.norm_vars else feats
    if _is(module, "espnet2.layers.utterance_mvn.UtteranceMVN"):
        length = len(feats)
        centred = feats - feats.sum(0, keepdim=True) / length
        out = centred if module.norm_means else feats
        if not module.norm_vars:
            return out
        variance = centred.pow(2).sum(0, keepdim=True) / length
        return out / variance.sqrt().clamp(min=module.eps)
    lengths = torch.tensor([len(feats)], device=feats.device)
    return module(feats[None].clone(), lengths)[0][0]  # type: ignore[no-any-return]  # in place


def _is_log_mel(model: Any) -> bool:
    """Return whether features of one channel are ESPnet's STFT and log-mel filters."""
    if getattr(type(model), "_extract_feats", None) is not ESPnetASRModel._extract_feats:
        return False
    frontend = model.frontend
    return (
        _is(frontend, "espnet2.asr.frontend.default.DefaultFrontend")
        and _is(frontend.stft, "espnet2.layers.stft.Stft")
        and _is(frontend.logmel, "espnet2.layers.log_mel.LogMel")
        # its enhancement, which is for several channels
        and (frontend.frontend is None or _is(frontend.frontend, *ENHANCEMENTS))
        and not model.autocast_frontend
    )


def _is(module: Any, *names: str) -> bool:
    """Return whether a module is of exactly one of these classes, which need no import for it."""
    return f"{type(module).__module__}.{type(module).__qualname__}" in names
