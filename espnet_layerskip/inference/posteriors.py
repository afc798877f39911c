"""From samples to CTC posteriors of full length, for ESPnet ASR models, skipping or stock."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from espnet_layerskip._compat import (
    ESPnetASRModel,
    LinearProjection,
    TooShortUttError,
    check_short_utt,
)
from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.inference import features
from espnet_layerskip.inference.segments import Posteriors
from espnet_layerskip.method.frames import Encoded
from espnet_layerskip.method.settings import SkipSettings


class Clock:
    """Adds up the time that a call spends in the encoder, in ``seconds``."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Count the time of the block; on a GPU that of the work, not of its start."""
        wait = torch.cuda.synchronize if device.type == "cuda" else nullcontext
        wait()
        began = time.perf_counter()
        yield
        wait()
        self.seconds += time.perf_counter() - began


def extract_features(model: Any, wave: torch.Tensor, name: str = "the utterance") -> torch.Tensor:
    """Return the features (T, F) of one utterance.

    Done for each utterance alone: in a batch the frontend's STFT pads differently.

    Args:
        model: ESPnet ASR model in evaluation mode.
        wave: Samples (N,), float.
        name: Of the utterance, for errors.

    Raises:
        TooShortUttError: If the STFT or the subsampling needs more.
        ValueError: For features that are not finite.
    """
    n_fft = getattr(getattr(model.frontend, "stft", None), "n_fft", 0)
    if wave.numel() <= n_fft // 2:  # the STFT could not even pad it
        raise TooShortUttError(
            f"has {wave.numel()} samples and is too short for an STFT of {n_fft} samples",
            wave.numel(),
            n_fft // 2,
        )
    feats = features.compute_features(model, wave)
    _check_finite(feats, f"{name}: its features are")
    embed = getattr(model.encoder, "embed", None)
    if model.preencoder is None and embed is not None:
        too_short, limit = check_short_utt(embed, len(feats))
        if too_short:
            raise TooShortUttError(
                f"has {len(feats)} feature frames and is too short for the subsampling, which "
                f"needs more than {limit}",
                len(feats),
                limit,
            )
    return feats


def encode(
    model: Any,
    feats: Sequence[torch.Tensor],
    settings: SkipSettings | None = None,
    clock: Clock | None = None,
    intermediates: bool = False,
) -> Encoded:
    """Encode features in one batch.

    Each utterance is normalised alone: ``utterance_mvn`` with ``norm_vars`` of ESPnet 202511
    takes a batch's padding into the variance.

    Args:
        model: ESPnet ASR model in evaluation mode.
        feats: Features of each utterance (T_i, F).
        settings: How to skip; what they leave open, and None, is as the encoder's own. Not
            looked at for a stock encoder.
        clock: Is told the time of the encoder.
        intermediates: As of `run_encoder`.

    Returns:
        The states at full length, behind the postencoder if the model has one.

    Raises:
        ValueError: For states that are not finite.
    """
    x, lens = prepare(model, feats)
    with (clock or Clock()).running(x.device):
        encoded = run_encoder(model, x, lens, settings, intermediates)
    _check_finite(encoded.out, "the output of the encoder is")
    return postencode(model, encoded)


def _check_finite(values: torch.Tensor, what: str) -> None:
    """Refuse NaN and infinity, of which any transcript would be an invention.

    Raises:
        ValueError: Says what they are in.
    """
    if not bool(torch.isfinite(values).all()):
        raise ValueError(
            f"{what} not finite (NaN or infinity): the samples, the feature statistics or the "
            "precision overflow"
        )


def can_pad(model: Any) -> bool:
    """Return whether an utterance gives the same alone and in a padded batch.

    Stock encoders, and what stands before or behind an encoder, may see the padding.
    """
    before = model.preencoder is None or isinstance(model.preencoder, LinearProjection)
    alone = before and model.postencoder is None
    return alone and getattr(model.encoder, "padding_invariant", False)


def has_own_encode(model: Any) -> bool:
    """Return whether a model without skipping encodes in its own way, unknown to `encode`."""
    known = isinstance(model, ESPnetASRModel) and type(model).encode is ESPnetASRModel.encode
    own = not known or "encode" in vars(model)
    return own and not isinstance(model.encoder, LayerSkipEncoder)


def encode_whole(model: Any, waves: Sequence[torch.Tensor], clock: Clock) -> Encoded:
    """Encode samples as a model does by itself (see `has_own_encode`), in a padded batch.

    Args:
        model: ESPnet ASR model in evaluation mode.
        waves: Samples (N_i,), the longest first.
        clock: Is told the time, that of the frontend included.
    """
    lens = torch.tensor([wave.numel() for wave in waves], device=waves[0].device)
    with clock.running(lens.device), lock_of(model):
        speech = pad_sequence(list(waves), batch_first=True)
        found, olens = model.encode(speech=speech, speech_lengths=lens)
    encoded = _stock(found, olens)
    _check_finite(encoded.out, "the output of the encoder is")
    return encoded


def prepare(model: Any, feats: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the encoder takes, (B, T, F) and lengths (B,); see `encode`."""
    lens = torch.tensor([f.size(0) for f in feats], device=feats[0].device)
    if model.normalize is not None:
        feats = [features.normalise(model.normalize, f) for f in feats]
    x = pad_sequence(list(feats), batch_first=True)
    if model.preencoder is not None:
        x, lens = model.preencoder(x, lens)
    return x, lens


def run_encoder(
    model: Any,
    x: torch.Tensor,
    lens: torch.Tensor,
    settings: SkipSettings | None = None,
    intermediates: bool = False,
) -> Encoded:
    """Run the encoder alone, ours or stock, on what `prepare` returned; see `encode`.

    Args:
        model: As of `encode`.
        x: (B, T, F).
        lens: (B,).
        settings: As of `encode`.
        intermediates: Return the states of ``interctc_layer_idx`` too; a stock encoder always
            does.
    """
    encoder = model.encoder
    if isinstance(encoder, LayerSkipEncoder):
        layers = getattr(encoder, "interctc_layer_idx", ()) if intermediates else ()
        found = encoder.run(x, lens, model.ctc, settings, intermediates=bool(layers))
        states = tuple((k, h) for k, h in found.intermediates if k in layers)
        return replace(found, intermediates=states)
    # as ESPnetASRModel.encode decides
    options = ("interctc_use_conditioning", "ctc_trim")
    head = {"ctc": model.ctc} if any(getattr(encoder, name, False) for name in options) else {}
    with lock_of(model):
        found, olens, _ = encoder(x, lens, **head)
    return _stock(found, olens)


def _stock(found: Any, olens: torch.Tensor) -> Encoded:
    """Return what an encoder of ESPnet, or its model, gives."""
    out, states = found if isinstance(found, tuple) else (found, ())
    return Encoded(out, olens, tuple(states))


def postencode(model: Any, encoded: Encoded) -> Encoded:
    """Return the states behind the model's postencoder, if it has one."""
    if model.postencoder is None:
        return encoded
    out, lens = model.postencoder(encoded.out, encoded.lens)
    return replace(encoded, out=out, lens=lens)


_LOCKS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


def lock_of(model: Any) -> threading.RLock:
    """Return the lock of a model: ESPnet's own modules and its search note things down as they run.

    Our encoders need none.
    """
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(model, threading.RLock())  # type: ignore[no-any-return]


def num_layers(model: Any) -> int:
    """Return the number of encoder layers L; 0 for an encoder of another kind."""
    return len(getattr(model.encoder, "encoders", ()))


def split(log_probs: torch.Tensor, encoded: Encoded, layers: int) -> list[Posteriors]:
    """Return the posteriors of each utterance, cut to its own length.

    Args:
        log_probs: (B, T', V) of ``encoded``.
        encoded: A batch.
        layers: Number of encoder layers L.
    """
    depth, keep_mask = encoded.depth(layers), encoded.keep_mask
    return [
        Posteriors(log_probs[i, :n], None if keep_mask is None else keep_mask[i, :n], depth[i, :n])
        for i, n in enumerate(encoded.lens.tolist())
    ]
