"""CTC heads for layer-skipping: plain or factorized, final and intermediate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F

from espnet_layerskip._compat import CTC
from espnet_layerskip.method.blank_regularized import blank_regularized_ctc_loss

if TYPE_CHECKING:
    from espnet_layerskip.method.frames import SkipTrace

BLANK = 0  # ESPnet's CTC blank is token 0
HEAD_TYPES = ("plain", "factorized")


def factorized_log_probs(logits: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities of the factorized CTC distribution (Hou et al., 2401.02046).

    p(blank) = sigmoid(a) and p(label v) = (1 - p(blank)) * softmax(z)_v, where a is the
    blank logit and z the label logits.

    Args:
        logits: (..., V), float; the blank logit at index 0, V >= 2.

    Returns:
        (..., V) log-probabilities that sum to one in the probability domain.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    blank, labels = logits[..., :1], logits[..., 1:]
    return torch.cat((F.logsigmoid(blank), F.logsigmoid(-blank) + labels.log_softmax(-1)), -1)


class LayerSkipCTC(CTC):
    """ESPnet's CTC head with a factorized form and heads for intermediate layers.

    ``ctc_lo`` keeps its name and shape, so checkpoints, ``--init_param`` and k2 decoding
    work on. With ``own_head_layers`` each of these layers has a projection of its own,
    ``interctc_lo.<layer>``; the others share ``ctc_lo``.

    Args:
        odim: Vocabulary size V, blank included at index 0.
        encoder_output_size: Encoder dimension D.
        dropout_rate: Dropout on the input of the projection, in training only (ESPnet's
            own head drops in evaluation too).
        reduce: As in ESPnet: True = batch average, False = one loss per utterance.
        zero_infinity: Zero the loss of utterances that have too few frames.
        head_type: "plain" (softmax over V) or "factorized" (sigmoid blank, label softmax).
            Both start at p(blank) = 0.5 on average; ESPnet's own starts at 1/V and leaves
            the first stage of CTC training much later.
        own_head_layers: 1-based encoder layers with a head of their own.
        self_loop_penalty: Price in the loss of every frame by which a label is longer than
            one (Yang et al., 2305.11558), >= 0; 0.0 = CTC.

    Raises:
        ValueError: For an unknown head type or a negative penalty.
    """

    def __init__(
        self,
        odim: int,
        encoder_output_size: int,
        dropout_rate: float = 0.0,
        reduce: bool = True,
        zero_infinity: bool = True,
        head_type: str = "factorized",
        own_head_layers: Sequence[int] = (),
        self_loop_penalty: float = 0.0,
    ):
        super().__init__(
            odim=odim,
            encoder_output_size=encoder_output_size,
            dropout_rate=dropout_rate,
            reduce=reduce,
            zero_infinity=zero_infinity,
        )
        if head_type not in HEAD_TYPES:
            raise ValueError(f"ctc head must be one of {HEAD_TYPES}, but got {head_type!r}")
        if not 0.0 <= self_loop_penalty < math.inf:
            raise ValueError(f"self_loop_penalty must be >= 0, but got {self_loop_penalty}")
        self.head_type = head_type
        self.self_loop_penalty = self_loop_penalty
        self.dropout = torch.nn.Dropout(dropout_rate)
        self.interctc_lo = torch.nn.ModuleDict(
            {str(i): torch.nn.Linear(encoder_output_size, odim) for i in own_head_layers}
        )
        if head_type == "plain":
            for proj in (self.ctc_lo, *self.interctc_lo.values()):
                torch.nn.init.zeros_(proj.bias)
                torch.nn.init.constant_(proj.bias[BLANK : BLANK + 1], math.log(odim - 1))
        self._layer_idx: int | None = None
        self._trace: SkipTrace | None = None

    @contextmanager
    def layer(self, layer_idx: int | None) -> Iterator[None]:
        """Use the head of an intermediate layer (1-based) inside the block; None = final."""
        previous, self._layer_idx = self._layer_idx, layer_idx
        try:
            yield
        finally:
            self._layer_idx = previous

    @contextmanager
    def skipped(self, trace: SkipTrace | None) -> Iterator[None]:
        """Inside the block, frames that skipped keep the gate's blank decision.

        ``softmax``, ``log_softmax`` and ``argmax`` then project only the frames that went
        through every layer, and the repeats of such frames. Another frame has the blank
        probability that the gate saw (the last one that it came to); its remaining mass is
        uniform over the labels.

        Args:
            trace: Of the same batch as the ``hs_pad`` given inside; None changes nothing.
        """
        previous, self._trace = self._trace, trace
        try:
            yield
        finally:
            self._trace = previous

    def projection(self) -> torch.nn.Linear:
        """Return the output projection of the selected layer."""
        key = str(self._layer_idx)
        # ModuleDict has no .get()
        proj = self.interctc_lo[key] if key in self.interctc_lo else self.ctc_lo  # noqa: SIM401
        return cast(torch.nn.Linear, proj)

    def blank_prob(self, hs_pad: torch.Tensor, layer_idx: int | None = None) -> torch.Tensor:
        """Return p(blank) (B, T), float32.

        The factorized head computes one logit per frame; the plain head needs them all.

        Args:
            hs_pad: Hidden states (B, T, D).
            layer_idx: 1-based layer they come from; None = final.
        """
        with self.layer(layer_idx):
            proj = self.projection()
        if self.head_type == "factorized":
            logit = F.linear(hs_pad, proj.weight[:1], proj.bias[:1])
            return logit.float().sigmoid().squeeze(-1)
        logits: torch.Tensor = proj(hs_pad)
        return logits.float().softmax(-1)[..., BLANK]

    def log_softmax(self, hs_pad: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities (B, T, V) of hidden states (B, T, D)."""
        if self._trace is None:
            return self._log_probs(self.projection()(hs_pad))
        keep = self._trace.spoken_mask
        if keep.shape != hs_pad.shape[:2]:
            raise ValueError(
                f"the skip trace is of a batch of shape {tuple(keep.shape)}, but the hidden "
                f"states have {tuple(hs_pad.shape[:2])}: give the trace of the same forward"
            )
        kept = self._log_probs(self.projection()(hs_pad[keep]))
        blank = self._trace.blank_prob().to(kept.dtype).clamp(max=1.0 - 1e-6)
        out = ((1.0 - blank) / (kept.size(-1) - 1)).log()[..., None].repeat(1, 1, kept.size(-1))
        out[..., BLANK] = blank.log()
        out[keep] = kept
        return out

    def softmax(self, hs_pad: torch.Tensor) -> torch.Tensor:
        """Return probabilities (B, T, V) of hidden states (B, T, D)."""
        return self.log_softmax(hs_pad).exp()

    def argmax(self, hs_pad: torch.Tensor) -> torch.Tensor:
        """Return the most probable token (B, T), int64, of hidden states (B, T, D)."""
        if self._trace is None:
            return self.log_softmax(hs_pad).argmax(-1)
        keep = self._trace.spoken_mask
        best = hs_pad.new_full(keep.shape, BLANK, dtype=torch.long)
        best[keep] = self._log_probs(self.projection()(hs_pad[keep])).argmax(-1)
        return best

    def forward(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        ys_pad: torch.Tensor,
        ys_lens: torch.Tensor,
    ) -> torch.Tensor:
        """Return the CTC loss; with a ``self_loop_penalty`` the blank-regularised one.

        Args:
            hs_pad: Hidden states (B, T, D).
            hlens: Their lengths (B,).
            ys_pad: Token ids (B, L), padding is ignored.
            ys_lens: Their lengths (B,).

        Returns:
            Scalar (sum over utterances / B) or, with ``reduce=False``, (B,) losses / B as
            ESPnet does.
        """
        logits = self.projection()(self.dropout(hs_pad))
        log_probs = self._log_probs(logits).float().transpose(0, 1)
        ys_true = torch.cat([ys_pad[i, :n] for i, n in enumerate(ys_lens)])
        if self.self_loop_penalty:
            loss = blank_regularized_ctc_loss(
                log_probs, ys_true, hlens, ys_lens, self.self_loop_penalty
            )
        else:
            loss = self.ctc_loss(log_probs, ys_true, hlens, ys_lens)
        loss = loss / log_probs.size(1)
        return (loss.sum() if self.reduce else loss).to(hs_pad.dtype)

    def _log_probs(self, logits: torch.Tensor) -> torch.Tensor:
        if self.head_type == "factorized":
            return factorized_log_probs(logits)
        return logits.log_softmax(-1)
