"""From samples to CTC posteriors of full length, for ESPnet ASR models, skipping or stock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from espnet_layerskip._compat import TooShortUttError, check_short_utt


@dataclass(frozen=True)
class Posteriors:
    """What the CTC head says of the frames of one utterance, or of a part of it.

    Attributes:
        log_probs: (T, V), float, at full length; skipped frames with the gate's decision.
        keep_mask: (T,) bool, False = the frame skipped at a gate; None = no gate decided.
    """

    log_probs: torch.Tensor
    keep_mask: torch.Tensor | None = None

    def __len__(self) -> int:
        """Return T."""
        return len(self.log_probs)

    def __getitem__(self, frames: slice) -> Posteriors:
        """Return some of the frames."""
        keep_mask = None if self.keep_mask is None else self.keep_mask[frames]
        return Posteriors(self.log_probs[frames], keep_mask)


def extract_features(model: Any, wave: torch.Tensor) -> torch.Tensor:
    """Return the features (T, F) of one utterance.

    Done for each utterance alone: in a batch the frontend's STFT pads differently.

    Args:
        model: ESPnet ASR model in evaluation mode.
        wave: Samples (N,), float.

    Raises:
        TooShortUttError: If the STFT or the subsampling needs more.
    """
    n_fft = getattr(getattr(model.frontend, "stft", None), "n_fft", 0)
    if wave.numel() <= n_fft // 2:  # the STFT could not even pad it
        raise TooShortUttError(
            f"has {wave.numel()} samples and is too short for an STFT of {n_fft} samples",
            wave.numel(),
            n_fft // 2,
        )
    lengths = torch.tensor([wave.numel()], device=wave.device)
    feats, _ = model._extract_feats(wave[None], lengths)
    embed = getattr(model.encoder, "embed", None)
    if model.preencoder is None and embed is not None:
        too_short, limit = check_short_utt(embed, feats.size(1))
        if too_short:
            raise TooShortUttError(
                f"has {feats.size(1)} feature frames and is too short for the subsampling, which "
                f"needs more than {limit}",
                feats.size(1),
                limit,
            )
    return feats[0]  # type: ignore[no-any-return]


def log_posteriors(model: Any, feats: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode features in one batch and score them with the CTC head.

    Each utterance is normalised alone: ``utterance_mvn`` with ``norm_vars`` of ESPnet 202511
    takes a batch's padding into the variance.

    Args:
        model: ESPnet ASR model in evaluation mode.
        feats: Features of each utterance (T_i, F).

    Returns:
        Log-posteriors (B, T', V) at full length, skipped frames with the gate's blank
        decision, and lengths (B,) int64.
    """
    lens = torch.tensor([f.size(0) for f in feats], device=feats[0].device)
    if model.normalize is not None:
        feats = [  # a copy: ESPnet normalises in place
            model.normalize(f[None].clone(), n[None])[0][0]
            for f, n in zip(feats, lens, strict=True)
        ]
    with _normalised_features_as_input(model):
        out, olens = model.encode(pad_sequence(list(feats), batch_first=True), lens)
    out = out[0] if isinstance(out, tuple) else out
    with following_head(model):
        return model.ctc.log_softmax(out), olens


def kept_frames(model: Any) -> torch.Tensor | None:
    """Return the (B, T') bool of the encoder's last batch, False = the frame skipped at a gate.

    None where no gate decided: stock encoders, skipping off, an early exit.
    """
    trace = getattr(model.encoder, "last_skip", None)
    return None if trace is None else trace.keep_mask  # type: ignore[no-any-return]


@contextmanager
def following_head(model: Any) -> Iterator[None]:
    """Inside the block the CTC head scores what the encoder's last batch was.

    Skipped frames keep the gate's blank decision, and after an early exit it is the head
    of that layer. Nothing changes for a stock encoder.
    """
    with ExitStack() as stack:
        if hasattr(model.ctc, "layer"):
            stack.enter_context(model.ctc.layer(getattr(model.encoder, "exit_layer", None)))
        if hasattr(model.ctc, "skipped"):
            stack.enter_context(model.ctc.skipped(getattr(model.encoder, "last_skip", None)))
        yield


@contextmanager
def _normalised_features_as_input(model: Any) -> Iterator[None]:
    """Inside the block ``model.encode`` takes normalised features (B, T, F), not samples."""
    frontend, normalize = model.frontend, model.normalize
    model.frontend = model.normalize = None
    try:
        yield
    finally:
        model.frontend, model.normalize = frontend, normalize
