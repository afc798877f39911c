"""What the gate saw and did in every utterance, against what the final layer says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from espnet_layerskip._compat import TooShortUttError
from espnet_layerskip.decoding.greedy import collapse
from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.inputs import Speech, TestSet
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.inference.posteriors import extract_features
from espnet_layerskip.method.ctc import BLANK
from espnet_layerskip.method.settings import OFF, SkipSettings


@dataclass(frozen=True)
class GateDecision:
    """One gate in one utterance of T encoder frames.

    Attributes:
        layer_idx: 1-based layer after which the gate sits.
        threshold: A frame is blank where p(blank) is above it.
        blank_prob: (T,) float32, what the gate saw.
        seen: (T,) bool, True = the frame reached this gate.
        keep_mask: (T,) bool, True = the frame went on.
    """

    layer_idx: int
    threshold: float
    blank_prob: np.ndarray
    seen: np.ndarray
    keep_mask: np.ndarray


@dataclass(frozen=True)
class Trace:
    """One utterance, decoded greedily with skipping on and off.

    Attributes:
        utt_id: Its name.
        seconds: Its duration.
        frame_seconds: Seconds from one encoder frame to the next.
        hop_seconds: Seconds from one feature frame to the next.
        ref: Reference transcript.
        num_ref_tokens: Reference tokens of the model's own kind.
        text_on: Transcript with skipping on.
        text_off: Transcript with skipping off.
        gates: From the lowest layer up.
        depth: (T,) int64, layers that each frame ran.
        final_blank_prob: (T,) float32, of the final layer with skipping off.
        final_is_blank: (T,) bool, its decision.
        spikes: (encoder frame, token, probability) of each token found with skipping on.
        num_layers: Layers of the encoder.
        num_repeats: Frames that skip as repeats of a label, for which another frame speaks.
    """

    utt_id: str
    seconds: float
    frame_seconds: float
    hop_seconds: float
    ref: str
    num_ref_tokens: int
    text_on: str
    text_off: str
    gates: list[GateDecision]
    depth: np.ndarray
    final_blank_prob: np.ndarray
    final_is_blank: np.ndarray
    spikes: list[tuple[int, str, float]]
    num_layers: int
    num_repeats: int

    @property
    def num_frames(self) -> int:
        """Encoder frames T."""
        return len(self.depth)

    @property
    def keep_mask(self) -> np.ndarray:
        """(T,) bool, True = the frame ran every layer."""
        return self.gates[-1].keep_mask

    @property
    def skip_ratio(self) -> float:
        """Share of the frames that skipped at least one layer."""
        return float(1.0 - self.keep_mask.mean())

    @property
    def token_rate(self) -> float:
        """Reference tokens per second of audio."""
        return self.num_ref_tokens / self.seconds


def trace_test_set(experiment: Experiment, data: TestSet) -> list[Trace]:
    """Trace every utterance.

    Raises:
        ValueError: If the experiment's gate is off, or an utterance is too short.
    """
    on, off = System(experiment, SkipSettings()), System(experiment, OFF)
    if on.settings.full_depth:
        raise ValueError(
            "the experiment's configuration has blank_threshold: 1.0, which turns its gate off: "
            "set encoder_conf: blank_threshold (for instance 0.9) in its config.yaml"
        )
    traces = []
    for speech in data.speech:
        try:
            traces.append(_trace(on, off, speech, data.text[speech.utt_id]))
        except TooShortUttError as e:
            raise ValueError(f"{speech.utt_id} {e}: remove it from the test set") from e
    return traces


def log_mel(experiment: Experiment, speech: Speech) -> np.ndarray:
    """Return the frontend's features (T, F), before normalisation."""
    with torch.inference_mode():
        feats = extract_features(experiment.model, torch.from_numpy(speech.samples))
    return np.asarray(feats)


@torch.inference_mode()
def _trace(on: System, off: System, speech: Speech, ref: str) -> Trace:
    batch = on.batch([speech])
    full, skipped = off.encode(batch), on.encode(batch)
    [final], [log_probs] = full.log_softmax(off.model.ctc), skipped.log_softmax(on.model.ctc)
    assert skipped.trace is not None
    thresholds = on.settings.thresholds(on.encoder.gate_layer_idx)
    gates: list[GateDecision] = []
    for gate in skipped.trace.gates:
        blank_prob, keep = gate.blank_prob[0].numpy(), gate.keep_mask[0].numpy()
        seen = gates[-1].keep_mask if gates else np.ones_like(keep)
        gates.append(
            GateDecision(gate.layer_idx, thresholds[gate.layer_idx], blank_prob, seen, keep)
        )
    tokenizer = on.speech2text.tokenizer
    num_feats, num_frames = int(batch[1]), len(log_probs)
    hop_seconds = speech.seconds / max(1, num_feats - 1)
    return Trace(
        utt_id=speech.utt_id,
        seconds=speech.seconds,
        frame_seconds=max(1, round(num_feats / num_frames)) * hop_seconds,
        hop_seconds=hop_seconds,
        ref=ref,
        num_ref_tokens=len(ref if tokenizer is None else list(tokenizer.text2tokens(ref))),
        text_on=on.text(skipped),
        text_off=off.text(full),
        gates=gates,
        depth=skipped.depth(on.num_layers)[0].numpy(),
        final_blank_prob=final[:, BLANK].exp().float().numpy(),
        final_is_blank=(final.argmax(-1) == BLANK).numpy(),
        spikes=_spikes(log_probs, on.speech2text.converter.ids2tokens),
        num_layers=on.num_layers,
        num_repeats=int((skipped.trace.spoken_mask & ~skipped.trace.keep_mask).sum()),
    )


def _spikes(
    log_probs: torch.Tensor, names: Callable[[list[int]], list[str]]
) -> list[tuple[int, str, float]]:
    """Return (first frame, name, highest probability) of each token on the best path."""
    best = log_probs.max(-1)
    [(tokens, starts)] = collapse(best.indices[None], torch.tensor([len(log_probs)]))
    spikes = []
    for start, token, name in zip(starts, tokens, names(tokens), strict=True):
        run = (best.indices[start:] == token).long().cumprod(0).sum()
        spikes.append((start, name, float(best.values[start : start + int(run)].max().exp())))
    return spikes
