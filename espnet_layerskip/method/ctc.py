"""CTC heads for layer-skipping: plain or factorized, final and intermediate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F

from espnet_layerskip._compat import CTC
from espnet_layerskip.method.blank_regularized import blank_regularized_ctc_loss
from espnet_layerskip.method.settings import BLANK as BLANK
from espnet_layerskip.method.trace import SkipTrace

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
    keep working. With ``own_head_layers`` each of these layers has a projection of its own,
    ``interctc_lo.<layer>``; the others share ``ctc_lo``.

    Args:
        odim: Vocabulary size V, blank included at index 0.
        encoder_output_size: Encoder dimension D.
        dropout_rate: Dropout on the input of the projection, in training only (ESPnet's
            own head drops in evaluation too).
        ctc_type: "builtin"; ESPnet's other losses take logits of a softmax.
        reduce: As in ESPnet: True = batch average, False = one loss per utterance.
        ignore_nan_grad: As in ESPnet, another name of ``zero_infinity``, and goes before it.
        zero_infinity: Zero the loss of utterances that have too few frames.
        brctc_risk_strategy, brctc_group_strategy, brctc_risk_factor: Of ESPnet's ``ctc_type:
            brctc``; not looked at.
        head_type: "plain" (softmax over V) or "factorized" (sigmoid blank, label softmax).
            Both start at p(blank) = 0.5 on average; ESPnet's own starts at 1/V,
            and its training takes much longer to find the labels.
        own_head_layers: 1-based encoder layers with a head of their own.
        self_loop_penalty: Price in the loss of every frame by which a label is longer than
            one (Yang et al., 2305.11558), >= 0; 0.0 = CTC.

    Raises:
        ValueError: For another ``ctc_type``, an unknown head type or a negative penalty.
    """

    def __init__(
        self,
        odim: int,
        encoder_output_size: int,
        dropout_rate: float = 0.0,
        ctc_type: str = "builtin",
        reduce: bool = True,
        ignore_nan_grad: bool | None = None,
        zero_infinity: bool = True,
        brctc_risk_strategy: str = "exp",
        brctc_group_strategy: str = "end",
        brctc_risk_factor: float = 0.0,
        head_type: str = "factorized",
        own_head_layers: Sequence[int] = (),
        self_loop_penalty: float = 0.0,
    ):
        if ctc_type != "builtin":
            raise ValueError(f"our CTC head needs ctc_type: builtin, but got {ctc_type!r}")
        super().__init__(
            odim=odim,
            encoder_output_size=encoder_output_size,
            dropout_rate=dropout_rate,
            ctc_type=ctc_type,
            reduce=reduce,
            ignore_nan_grad=ignore_nan_grad,
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

    def projection(self, layer_idx: int | None = None) -> torch.nn.Linear:
        """Return the output projection of a layer (1-based); None = the final one."""
        key = str(layer_idx)
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
        proj = self.projection(layer_idx)
        if self.head_type == "factorized" and isinstance(proj, torch.nn.Linear):
            logit = F.linear(hs_pad, proj.weight[:1], proj.bias[:1])
            return logit.float().sigmoid().squeeze(-1)
        logits: torch.Tensor = proj(hs_pad)  # a quantized one has no rows to take
        if self.head_type == "factorized":
            return logits[..., BLANK].float().sigmoid()
        return logits.float().softmax(-1)[..., BLANK]

    def log_softmax(
        self,
        hs_pad: torch.Tensor,
        layer_idx: int | None = None,
        trace: SkipTrace | None = None,
    ) -> torch.Tensor:
        """Return log-probabilities (B, T, V).

        With a trace only frames that went through every layer, and repeats of such frames, are
        projected. Every other frame gets the blank probability that the last gate it reached
        saw; the rest of its mass is spread evenly over the labels.

        Args:
            hs_pad: Hidden states (B, T, D).
            layer_idx: 1-based layer they come from; None = final.
            trace: What was skipped in the same forward; None = nothing.

        Raises:
            ValueError: If the trace is of another batch.
        """
        proj = self.projection(layer_idx)
        if trace is None:
            return self._log_probs(proj(hs_pad))
        keep = _spoken(trace, hs_pad)
        kept = self._log_probs(proj(hs_pad[keep]))
        wide = torch.promote_types(kept.dtype, torch.float32)  # 1 - 1e-6 is 1 in 16 bits
        blank = trace.blank_prob().to(wide).clamp(max=1.0 - 1e-6)
        label = ((1.0 - blank) / (kept.size(-1) - 1)).log().to(kept.dtype)
        out = label[..., None].repeat(1, 1, kept.size(-1))
        out[..., BLANK] = blank.log().to(kept.dtype)
        out[keep] = kept
        return out

    def softmax(
        self,
        hs_pad: torch.Tensor,
        layer_idx: int | None = None,
        trace: SkipTrace | None = None,
    ) -> torch.Tensor:
        """Return probabilities (B, T, V); see `log_softmax`."""
        return self.log_softmax(hs_pad, layer_idx, trace).exp()

    def argmax(
        self,
        hs_pad: torch.Tensor,
        layer_idx: int | None = None,
        trace: SkipTrace | None = None,
    ) -> torch.Tensor:
        """Return the most probable tokens (B, T), int64; see `log_softmax`."""
        if trace is None:
            return self.log_softmax(hs_pad, layer_idx).argmax(-1)
        keep = _spoken(trace, hs_pad)
        best = hs_pad.new_full(keep.shape, BLANK, dtype=torch.long)
        best[keep] = self._log_probs(self.projection(layer_idx)(hs_pad[keep])).argmax(-1)
        return best

    def forward(
        self,
        hs_pad: torch.Tensor,
        hlens: torch.Tensor,
        ys_pad: torch.Tensor,
        ys_lens: torch.Tensor,
        layer_idx: int | None = None,
    ) -> torch.Tensor:
        """Return the CTC loss; with a ``self_loop_penalty`` the blank-regularised one.

        Args:
            hs_pad: Hidden states (B, T, D).
            hlens: Their lengths (B,).
            ys_pad: Token ids (B, L), padding is ignored.
            ys_lens: Their lengths (B,).
            layer_idx: 1-based layer the states come from; None = final.

        Returns:
            Scalar (sum over utterances / B) or, with ``reduce=False``, (B,) losses / B as
            ESPnet does.
        """
        logits = self.projection(layer_idx)(self.dropout(hs_pad))
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


def _spoken(trace: SkipTrace, hs_pad: torch.Tensor) -> torch.Tensor:
    keep = trace.spoken_mask
    if keep.shape != hs_pad.shape[:2]:
        raise ValueError(
            f"the skip trace is of a batch of shape {tuple(keep.shape)}, but the hidden "
            f"states have {tuple(hs_pad.shape[:2])}: pass the trace of the same forward"
        )
    return keep


# What the method asks of a head. ESPnet's own has one projection and ignores traces.


def head_blank_prob(ctc: Any, h: torch.Tensor, layer_idx: int) -> torch.Tensor:
    """Return p(blank) (B, T) float32 of states (B, T, D), by our head or by ESPnet's own."""
    if isinstance(ctc, LayerSkipCTC):
        return ctc.blank_prob(h, layer_idx)
    return ctc.softmax(h)[..., BLANK].float()  # type: ignore[no-any-return]


def head_softmax(ctc: Any, h: torch.Tensor, layer_idx: int) -> torch.Tensor:
    """Return the token probabilities (B, T, V) of states (B, T, D), as `head_blank_prob`."""
    return ctc.softmax(h, layer_idx) if isinstance(ctc, LayerSkipCTC) else ctc.softmax(h)  # type: ignore[no-any-return]


def head_log_softmax(
    ctc: Any, h: torch.Tensor, layer_idx: int | None, trace: SkipTrace | None
) -> torch.Tensor:
    """Return log-probabilities (B, T, V) of states (B, T, D), as `head_blank_prob`."""
    if isinstance(ctc, LayerSkipCTC):
        return ctc.log_softmax(h, layer_idx, trace)
    return ctc.log_softmax(h)  # type: ignore[no-any-return]


def head_argmax(
    ctc: Any, h: torch.Tensor, layer_idx: int | None, trace: SkipTrace | None
) -> torch.Tensor:
    """Return the most probable tokens (B, T) of states (B, T, D), as `head_blank_prob`."""
    if isinstance(ctc, LayerSkipCTC):
        return ctc.argmax(h, layer_idx, trace)
    return ctc.argmax(h)  # type: ignore[no-any-return]
