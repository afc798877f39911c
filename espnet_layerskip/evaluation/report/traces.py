"""What the gate saw and did in every utterance, against what the final layer says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from espnet_layerskip._compat import TooShortUttError
from espnet_layerskip.decoding.greedy import collapse
from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.inputs import Speech, TestSet
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.inference.posteriors import extract_features
from espnet_layerskip.method.ctc import BLANK
from espnet_layerskip.method.frames import Encoded
from espnet_layerskip.method.settings import OFF, SkipSettings

Spike = tuple[int, str, float]
"""A token found: the encoder frame where it begins, its name, its highest probability."""


@dataclass(frozen=True)
class Variant:
    """What one setting makes of an utterance.

    Attributes:
        depth: (T,) int64, layers that each frame ran.
        text: Transcript.
        spikes: Tokens found.
    """

    depth: np.ndarray
    text: str
    spikes: list[Spike]


@dataclass(frozen=True)
class GateDecision:
    """One gate in one utterance of T encoder frames.

    Attributes:
        layer_idx: 1-based layer after which the gate sits.
        threshold: A frame is blank where p(blank) is above it.
        blank_prob: (T,) float32, what the gate saw, or would see in an utterance that runs whole.
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
        spikes: Tokens found with skipping on.
        spikes_off: Tokens found with skipping off.
        num_layers: Layers of the encoder.
        num_repeats: Frames that skip as repeats of a label, for which another frame speaks.
        whole: True where the utterance ran every layer only because it is too short for skipping
            to save time (``min_skipped_frames``).
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
    spikes: list[Spike]
    spikes_off: list[Spike]
    num_layers: int
    num_repeats: int
    whole: bool = False

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
    """Trace every utterance that is long enough for the encoder.

    Raises:
        ValueError: If the experiment's gate is off, or every utterance is too short.
    """
    on, off = System(experiment, SkipSettings()), System(experiment, OFF)
    if on.settings.full_depth:
        raise ValueError(
            "the experiment's configuration has blank_threshold: 1.0, which turns its gate off: "
            "set encoder_conf: blank_threshold (for instance 0.9) in its config.yaml"
        )
    look = System(experiment, replace(on.settings, min_skipped_frames=0))
    traces = []
    for speech in data.speech:
        try:
            traces.append(_trace(on, off, look, speech, data.text[speech.utt_id]))
        except TooShortUttError:
            continue  # has no frames; decoding the test set names it
    if not traces:
        raise ValueError(f"all of {len(data.speech)} utterances are too short for the encoder")
    return traces


def log_mel(experiment: Experiment, speech: Speech) -> np.ndarray:
    """Return the frontend's features (T, F), before normalisation."""
    with torch.inference_mode():
        feats = extract_features(experiment.model, torch.from_numpy(speech.samples))
    return np.asarray(feats)


@torch.inference_mode()
def try_settings(
    experiment: Experiment, speech: Speech, settings: Sequence[SkipSettings]
) -> list[Variant]:
    """Return what each setting makes of an utterance."""
    found = []
    for how in settings:
        system = System(experiment, how)
        encoded = system.encode(system.batch([speech]))
        depth = encoded.depth(system.num_layers)[0].numpy()
        found.append(Variant(depth, system.text(encoded), _tokens(system, encoded)))
    return found


@torch.inference_mode()
def _trace(on: System, off: System, look: System, speech: Speech, ref: str) -> Trace:
    batch = on.batch([speech])
    full, skipped = off.encode(batch), on.encode(batch)
    [final] = full.log_softmax(off.model.ctc)
    found, whole = skipped.trace, False
    if found is None or found.num_skipped() == 0:
        looked = look.encode(batch).trace  # where it is too short no gate has looked
        assert looked is not None
        found, whole = found or looked, looked.num_skipped() > 0
    depth, kept = skipped.depth(on.num_layers)[0].numpy(), skipped.trace
    repeats = 0 if kept is None else int((kept.spoken_mask & ~kept.keep_mask).sum())
    thresholds = on.settings.thresholds(on.encoder.gate_layer_idx)
    gates: list[GateDecision] = []
    seen = np.ones_like(depth, bool)
    for gate in found.gates:
        blank_prob, keep = gate.blank_prob[0].numpy(), gate.keep_mask[0].numpy()
        gates.append(
            GateDecision(
                gate.layer_idx,
                thresholds[gate.layer_idx],
                blank_prob,
                seen,
                np.ones_like(keep) if whole else keep,
            )
        )
        seen = keep
    num_feats, num_frames = int(batch[1]), len(final)
    hop_seconds = speech.seconds / max(1, num_feats - 1)
    return Trace(
        utt_id=speech.utt_id,
        seconds=speech.seconds,
        frame_seconds=max(1, round(num_feats / num_frames)) * hop_seconds,
        hop_seconds=hop_seconds,
        ref=ref,
        num_ref_tokens=len(on.experiment.tokens(ref)),
        text_on=on.text(skipped),
        text_off=off.text(full),
        gates=gates,
        depth=depth,
        final_blank_prob=final[:, BLANK].exp().float().numpy(),
        final_is_blank=(final.argmax(-1) == BLANK).numpy(),
        spikes=_tokens(on, skipped),
        spikes_off=_tokens(off, full),
        num_layers=on.num_layers,
        num_repeats=repeats,
        whole=whole,
    )


def _tokens(system: System, encoded: Encoded) -> list[Spike]:
    """Return the tokens on the best path of one encoded utterance."""
    [log_probs] = encoded.log_softmax(system.model.ctc)
    return _spikes(log_probs, system.speech2text.converter.ids2tokens)


def _spikes(log_probs: torch.Tensor, names: Callable[[list[int]], list[str]]) -> list[Spike]:
    """Return (first frame, name, highest probability) of each token on the best path."""
    best = log_probs.max(-1)
    [(tokens, starts)] = collapse(best.indices[None], torch.tensor([len(log_probs)]))
    spikes = []
    for start, token, name in zip(starts, tokens, names(tokens), strict=True):
        run = (best.indices[start:] == token).long().cumprod(0).sum()
        spikes.append((start, name, float(best.values[start : start + int(run)].max().exp())))
    return spikes
