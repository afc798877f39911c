"""What a call takes: samples as rows of floats in [-1, 1], their names, settings. No PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from espnet_layerskip.method.settings import SkipSettings

LOUDEST, INTEGERS = 100.0, 1e10  # between them samples have the scale of 16 to 32 bit integers


def check_samples(wave: Any, name: str) -> Any:
    """Return samples (N,) as PyTorch and NumPy take them; refuse what are none.

    Args:
        wave: Array or tensor (N,), float in [-1, 1].
        name: Of the utterance, for the error.

    Returns:
        What came, where that will do. An array of another byte order, of more than 64 bits, with
        gaps, backwards or read-only is copied; a tensor is without its gradient, bfloat16 as
        float32.

    Raises:
        ValueError: For anything else: other shapes, integers and their scale, paths.
    """
    dtype = getattr(wave, "dtype", "")
    kind = str(getattr(dtype, "name", dtype))
    if not kind or wave.ndim != 1 or "float" not in kind:
        got = f"{kind} {tuple(wave.shape)}" if kind else f"{type(wave).__name__} {wave!r:.40}"
        raise ValueError(
            f"{name}: samples (N,) are needed, an array of floats in [-1, 1], but got {got} (files "
            "are read by soundfile.read(path, dtype='float32')[0]; 16-bit integers / 32768)"
        )
    if getattr(wave, "requires_grad", False):
        wave = wave.detach()
    peak = max(float(wave.max()), -float(wave.min())) if len(wave) else 0.0
    if LOUDEST < peak < INTEGERS:
        raise ValueError(
            f"{name}: samples in [-1, 1] are needed, but the largest is {peak:g}: divide them by "
            "32768 if they were 16-bit integers"
        )
    if isinstance(wave, np.ndarray):
        native = np.dtype(np.float64) if wave.itemsize > 8 else wave.dtype.newbyteorder("=")
        return np.require(wave.astype(native, copy=False), None, ["C", "W"])
    return wave.float() if "bfloat16" in kind else wave


def as_array(wave: Any) -> np.ndarray:
    """Return samples that `check_samples` returned as an array (N,), float."""
    return wave.cpu().numpy() if hasattr(wave, "cpu") else np.asarray(wave)


def names_of(speech: Any, utt_ids: Sequence[str] | None) -> Sequence[str]:
    """Return the names of utterances, for messages.

    Args:
        speech: A list of samples.
        utt_ids: Their names; None = by their places.

    Raises:
        ValueError: If it is no list, or there is another number of names.
    """
    if not hasattr(speech, "__len__") or isinstance(speech, str | dict) or hasattr(speech, "dtype"):
        raise ValueError(
            f"samples (N,) or a list of them are needed, but got {type(speech).__name__} "
            f"{speech!r:.40}"
        )
    if utt_ids is not None and len(utt_ids) != len(speech):
        raise ValueError(f"{len(speech)} utterances need as many utt_ids, but got {len(utt_ids)}")
    return utt_ids or [f"utterance {i} of the batch" for i in range(len(speech))]


def check_settings(settings: SkipSettings | None, encoder: Any) -> SkipSettings | None:
    """Return the settings of a call, complete.

    Raises:
        ValueError: If the encoder cannot skip so; a stock one cannot skip.
    """
    if settings is not None and not isinstance(settings, SkipSettings):
        raise ValueError(f"settings must be a SkipSettings, but got {settings!r}")
    return None if settings is None else settings.resolved(encoder)
