"""The ASR model: multi-task CTC, distillation and gate statistics around a skipping encoder."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from espnet_layerskip._compat import CTC, ESPnetASRModel, signature_with
from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.encoders.loading import note_missing
from espnet_layerskip.method.ctc import BLANK, LayerSkipCTC
from espnet_layerskip.method.frames import Encoded
from espnet_layerskip.method.settings import check_choice, read_extension
from espnet_layerskip.training.consistency import consistency_loss, two_views
from espnet_layerskip.training.distillation import (
    FRAME_SELECTIONS,
    distillation_terms,
    select_frames,
)

INTERCTC_HEADS = ("shared", "own")


class LayerSkipASRModel(ESPnetASRModel):  # type: ignore[misc]
    """ESPnetASRModel with a factorized head, an intermediate head and distillation.

    Loss: ESPnet's hybrid loss (with its own ``interctc_weight`` for the intermediate CTC
    losses, at the encoder's gate layers and ``interctc_layer_idx``) plus, averaged over the
    gate layers, ``kd_blank_weight`` and ``kd_label_weight`` times the two terms of
    KL(final || intermediate), summed over the selected frames and divided by the batch
    size, as the CTC loss is. The paper trains both CTC losses together and distils the
    final distribution (Hou et al., 2401.02046); weights and frame selection are ours.

    Logged beside ESPnet's own: ``loss_kd_blank_layerK``, ``loss_kd_label_layerK``,
    ``skip_ratio``, ``gate_precision_layerK`` and ``gate_recall_layerK`` (skipped frames
    against frames whose final decision is blank, from batches at full depth), and in
    validation ``cer_ctc_skip`` (CER of the same batch with skipping on).

    Args:
        ...: Those of ESPnetASRModel, and:
        ctc_head: "factorized" or "plain".
        interctc_head: "shared" (the final head serves the gates too, as in ESPnet's
            intermediate CTC) or "own".
        self_loop_penalty: Price in all CTC losses of every frame by which a label is longer
            than one, for more blank frames (Yang et al., 2305.11558); 0.0 = off.
        consistency_weight: Weight of the consistency between two SpecAugment views of each
            utterance (CR-CTC, Yao et al., 2410.05101; there 0.2), which doubles time and
            memory of a batch; 0.0 = off, one view.
        kd_blank_weight: Weight of the blank term; 0.0 = off.
        kd_label_weight: Weight of the label term; 0.0 = off.
        kd_frames: "all" or "spikes" (the teacher's spikes and their neighbours).
        kd_spike_extension: [left, right] neighbours with ``kd_frames: spikes``.

    Raises:
        ValueError: For an unknown choice or an impossible combination.
    """

    def __init__(
        self,
        *args: Any,
        ctc_head: str = "factorized",
        interctc_head: str = "shared",
        self_loop_penalty: float = 0.0,
        consistency_weight: float = 0.0,
        kd_blank_weight: float = 0.0,
        kd_label_weight: float = 0.0,
        kd_frames: str = "all",
        kd_spike_extension: Sequence[int] = (1, 1),
        **kwargs: Any,
    ):
        bound = inspect.signature(ESPnetASRModel).bind(*args, **kwargs)
        bound.apply_defaults()
        stock = bound.arguments
        encoder, token_list, sym_blank = (stock[n] for n in ("encoder", "token_list", "sym_blank"))
        check_choice("interctc_head", interctc_head, INTERCTC_HEADS)
        check_choice("kd_frames", kd_frames, FRAME_SELECTIONS)
        for name, value in (
            ("consistency_weight", consistency_weight),
            ("kd_blank_weight", kd_blank_weight),
            ("kd_label_weight", kd_label_weight),
        ):
            if value < 0.0:
                raise ValueError(f"{name} must be >= 0, but got {value}")
        if consistency_weight > 0.0 and getattr(stock["specaug"], "time_warp", None) is not None:
            raise ValueError(
                "consistency_weight compares two views frame by frame: set specaug_conf "
                "apply_time_warp: false, which would move their frames apart"
            )
        if not isinstance(encoder, LayerSkipEncoder):
            raise ValueError(
                "model: layerskip needs an encoder with skipping (encoder: layerskip_conformer), "
                f"but got {type(encoder).__name__}; use model: espnet with a stock encoder"
            )
        if stock["ctc_weight"] == 0.0:
            raise ValueError("model: layerskip needs ctc_weight > 0: its gates are CTC heads")
        if list(token_list).index(sym_blank) != BLANK:
            raise ValueError(
                f"{sym_blank} must be token {BLANK} of the token list (ESPnet's CTC blank), but "
                f"it is token {list(token_list).index(sym_blank)}"
            )
        own = encoder.gate_layer_idx if interctc_head == "own" else ()
        if own and not max(stock["interctc_weight"], kd_blank_weight, kd_label_weight) > 0.0:
            raise ValueError(
                "interctc_head: own needs interctc_weight, kd_blank_weight or kd_label_weight "
                "above 0: nothing else trains the heads of the gates"
            )
        stock["ctc"] = head_like(stock["ctc"], ctc_head, own, self_loop_penalty)
        super().__init__(**stock)
        self.ctc.register_load_state_dict_pre_hook(note_missing)  # as the encoder by itself
        self.consistency_weight = consistency_weight
        self.kd_blank_weight = kd_blank_weight
        self.kd_label_weight = kd_label_weight
        self.kd_frames = kd_frames
        self.kd_spike_extension = read_extension(kd_spike_extension, "kd_spike_extension") or (0, 0)

    __signature__ = signature_with(ESPnetASRModel, __init__.__kwdefaults__ or {})

    def forward(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Return loss, statistics and batch size, as ESPnetASRModel does.

        Args:
            speech: (B, N) samples, or (B, T, F) features.
            speech_lengths: (B,).
            text: (B, L) token ids, padded with ``ignore_id``.
            text_lengths: (B,).
            kwargs: Auxiliary CTC targets; ``utt_id`` is among them.
        """
        views = self.training and self.consistency_weight > 0.0
        if views:
            speech, speech_lengths, text, text_lengths = two_views(
                speech, speech_lengths, text, text_lengths
            )
            kwargs = {k: two_views(v)[0] if torch.is_tensor(v) else v for k, v in kwargs.items()}
        # In validation the loss and the teacher need full depth; skipping is scored apart.
        call = _Call(self, skip=None if self.training else False, intermediates=True)
        loss, stats, weight = call.forward(speech, speech_lengths, text, text_lengths, **kwargs)
        encoded = call.encoded
        kd_loss, kd_stats = self._distil(encoded)
        stats.update(kd_stats)
        if kd_loss is not None:
            loss = loss + kd_loss
            stats["loss"] = loss.detach()
        if views:
            _, final = _final_frames(encoded)
            consistency = consistency_loss(self.ctc.log_softmax(encoded.out), final)
            loss = loss + self.consistency_weight * consistency
            stats["loss_consistency"] = consistency.detach()
            stats["loss"] = loss.detach()
        if self.training and encoded.trace is not None:
            stats["skip_ratio"] = loss.new_tensor(encoded.trace.skip_ratio())
        if not self.training and self.encoder.gate_layer_idx:
            stats.update(self._validate_skipping(speech, speech_lengths, text, loss))
        # (1,) each: ESPnet averages them over the processes of a training
        stats = {k: v.reshape(1) if torch.is_tensor(v) else v for k, v in stats.items()}
        return loss, stats, weight

    def _distil(self, encoded: Encoded) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Return the weighted distillation loss (None = off) and the terms for the log."""
        states = dict(encoded.intermediates)
        gates = [i for i in self.encoder.gate_layer_idx if i in states]
        stats: dict[str, torch.Tensor] = {}
        if not gates:
            return None, stats
        kd_on = self.kd_blank_weight > 0.0 or self.kd_label_weight > 0.0
        valid, taught = _final_frames(encoded)
        with torch.no_grad():
            teacher = self.ctc.log_softmax(encoded.out)
        frames = select_frames(teacher, taught, self.kd_frames, self.kd_spike_extension)
        total = encoded.out.new_zeros(())
        for layer_idx in gates:
            with torch.set_grad_enabled(kd_on and self.training):
                student = self.ctc.log_softmax(states[layer_idx], layer_idx)
            blank, label = (
                (term * frames).sum() / teacher.size(0)
                for term in distillation_terms(teacher, student)
            )
            total = total + self.kd_blank_weight * blank + self.kd_label_weight * label
            stats[f"loss_kd_blank_layer{layer_idx}"] = blank.detach()
            stats[f"loss_kd_label_layer{layer_idx}"] = label.detach()
            if encoded.trace is None:
                stats.update(self._gate_accuracy(layer_idx, teacher, student, valid))
        return (total / len(gates) if kd_on else None), stats

    def _gate_accuracy(
        self, layer_idx: int, teacher: torch.Tensor, student: torch.Tensor, valid: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Precision and recall of "p(blank) > threshold" against the final blank decision."""
        thresholds = self.encoder.settings.thresholds(self.encoder.gate_layer_idx)
        threshold = thresholds.get(layer_idx, 1.0)
        gated = (student.detach()[..., BLANK].exp() > threshold) & valid
        blank = (teacher.argmax(-1) == BLANK) & valid
        hits = (gated & blank).sum().float()
        return {
            f"gate_precision_layer{layer_idx}": hits / gated.sum().clamp(min=1),
            f"gate_recall_layer{layer_idx}": hits / blank.sum().clamp(min=1),
        }

    def _validate_skipping(
        self,
        speech: torch.Tensor,
        speech_lengths: torch.Tensor,
        text: torch.Tensor,
        loss: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return skip ratio and CER of a validation batch with skipping on."""
        call = _Call(self, skip=True, intermediates=False)
        call.encode(speech, speech_lengths)
        trace = call.encoded.trace
        stats = {"skip_ratio": loss.new_tensor(trace.skip_ratio() if trace is not None else 0.0)}
        if self.error_calculator is not None:
            tokens = call.encoded.argmax(self.ctc)
            cer = self.error_calculator(tokens.cpu(), text.cpu(), is_ctc=True)
            if cer is not None:
                stats["cer_ctc_skip"] = loss.new_tensor(cer)
        return stats


class _Call(LayerSkipASRModel):
    """A model for one call: it shares all parameters, and the result of the pass stays on it.

    ESPnet's ``forward`` hands on the states of the encoder, but not what was skipped.

    Args:
        model: Whose parameters are used.
        options: Those of the encoder's ``run``.
    """

    encoded: Encoded

    def __init__(self, model: LayerSkipASRModel, **options: Any):
        self.__dict__.update(model.__dict__)
        self.__dict__["encoder"] = _Pass(self, model.encoder, options)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what ESPnet's model does."""
        return ESPnetASRModel.forward(self, *args, **kwargs)

    def encode(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor
    ) -> tuple[Any, torch.Tensor]:
        """Frontend and encoder, as in ESPnet; notes the result."""
        found, olens = super().encode(speech, speech_lengths)
        out = found[0] if isinstance(found, tuple) else found  # behind a postencoder another
        self.__dict__["encoded"] = replace(self.encoded, out=out, lens=olens)
        return found, olens

    def _calc_ctc_loss(
        self,
        encoder_out: torch.Tensor,
        encoder_out_lens: torch.Tensor,
        ys_pad: torch.Tensor,
        ys_pad_lens: torch.Tensor,
    ) -> tuple[torch.Tensor, float | None]:
        """CTC loss and CER as ESPnet's, through the head of the layer that is given."""
        layer_idx = next((k for k, h in self.encoded.intermediates if h is encoder_out), None)
        loss = self.ctc(encoder_out, encoder_out_lens, ys_pad, ys_pad_lens, layer_idx)
        cer = None
        if not self.training and self.error_calculator is not None:
            tokens = self.ctc.argmax(encoder_out, layer_idx)
            cer = self.error_calculator(tokens.cpu(), ys_pad.cpu(), is_ctc=True)
        return loss, cer


class _Pass:
    """An encoder for one call, as ESPnet's ``encode`` calls it."""

    def __init__(self, call: _Call, encoder: Any, options: dict[str, Any]):
        self.call, self.encoder, self.options = call, encoder, options

    def __call__(self, xs_pad: torch.Tensor, ilens: torch.Tensor, ctc: Any = None) -> Any:
        found = self.encoder.run(xs_pad, ilens, ctc, **self.options)
        self.call.__dict__["encoded"] = found
        return found.for_espnet(), found.lens, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)


def _final_frames(encoded: Encoded) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the real frames and those of them with a final distribution, both (B, T) bool."""
    length, olens = encoded.out.size(1), encoded.lens.to(encoded.out.device)
    valid = torch.arange(length, device=olens.device) < olens[:, None]
    return valid, valid if encoded.keep_mask is None else encoded.keep_mask


def head_like(
    ctc: CTC, head_type: str, own_head_layers: Sequence[int], self_loop_penalty: float = 0.0
) -> LayerSkipCTC:
    """Return our head with the sizes and options of the one which ESPnet built.

    Raises:
        ValueError: If ESPnet's head uses another loss than the builtin one, or for a wrong option.
    """
    if ctc.ctc_type != "builtin":
        raise ValueError(
            f"model: layerskip needs ctc_conf ctc_type: builtin, but got {ctc.ctc_type!r}"
        )
    return LayerSkipCTC(
        odim=ctc.ctc_lo.out_features,
        encoder_output_size=ctc.ctc_lo.in_features,
        dropout_rate=ctc.dropout_rate,
        reduce=ctc.reduce,
        zero_infinity=ctc.ctc_loss.zero_infinity,
        head_type=head_type,
        own_head_layers=own_head_layers,
        self_loop_penalty=self_loop_penalty,
    )
