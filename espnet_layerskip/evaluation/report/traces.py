"""What the gate saw and did in every utterance, against what the final layer says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from espnet_layerskip._compat import TooShortUttError
from espnet_layerskip.decoding.greedy import collapse
from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.inputs import Speech, TestSet
from espnet_layerskip.evaluation.settings import OFF, SkipSettings
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.inference.posteriors import extract_features, log_posteriors

BLANK = 0


@dataclass(frozen=True)
class GateDecision:
    """One gate in one utterance of T encoder frames.

    Attributes:
        layer_idx: 1-based layer after which the gate sits.
        blank_prob: (T,) float32, what the gate saw.
        seen: (T,) bool, True = the frame reached this gate.
        keep_mask: (T,) bool, True = the frame went on.
    """

    layer_idx: int
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
        threshold: Blank threshold of the gates.
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
    threshold: float
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
    model = experiment.speech2text.asr_model
    with torch.no_grad():
        feats: np.ndarray = extract_features(model, torch.from_numpy(speech.samples)).numpy()
    return feats


@torch.no_grad()
def _trace(on: System, off: System, speech: Speech, ref: str) -> Trace:
    feats = extract_features(on.model, torch.from_numpy(speech.samples))
    off.prepare()
    full, _ = log_posteriors(off.model, [feats])
    on.prepare()
    skipped, olens = log_posteriors(on.model, [feats])
    trace = on.encoder.last_skip
    assert trace is not None
    ids = skipped.argmax(-1)
    [(tokens, frames)] = collapse(ids, olens)
    [(off_tokens, _)] = collapse(full.argmax(-1), olens)
    speech2text = on.experiment.speech2text
    names = speech2text.converter.ids2tokens(tokens)
    tokenizer = speech2text.tokenizer

    def text(token_ids: list[int]) -> str:
        found = speech2text.converter.ids2tokens(token_ids)
        return " ".join(found) if tokenizer is None else str(tokenizer.tokens2text(found))

    gates: list[GateDecision] = []
    for gate in trace.gates:
        keep = gate.keep_mask[0].numpy()
        seen = gates[-1].keep_mask if gates else np.ones_like(keep)
        gates.append(GateDecision(gate.layer_idx, gate.blank_prob[0].numpy(), seen, keep))
    num_frames = int(olens)
    hop_seconds = speech.seconds / max(1, feats.size(0) - 1)
    subsampling = max(1, round(feats.size(0) / num_frames))
    return Trace(
        utt_id=speech.utt_id,
        seconds=speech.seconds,
        frame_seconds=subsampling * hop_seconds,
        hop_seconds=hop_seconds,
        ref=ref,
        num_ref_tokens=len(ref if tokenizer is None else list(tokenizer.text2tokens(ref))),
        text_on=text(tokens),
        text_off=text(off_tokens),
        gates=gates,
        depth=trace.depth(on.num_layers)[0].numpy(),
        final_blank_prob=full[0, :, BLANK].exp().float().numpy(),
        final_is_blank=(full[0].argmax(-1) == BLANK).numpy(),
        spikes=[
            (frame, name, _peak(skipped[0, :, token], ids[0] == token, frame))
            for frame, name, token in zip(frames, names, tokens, strict=True)
        ],
        num_layers=on.num_layers,
        threshold=float(on.settings.threshold or 1.0),
        num_repeats=int((trace.spoken_mask & ~trace.keep_mask).sum()),
    )


def _peak(log_prob: torch.Tensor, same: torch.Tensor, start: int) -> float:
    """Return the highest probability of a token in the run of frames that begins at start."""
    end = start
    while end < len(same) and bool(same[end]):
        end += 1
    return float(log_prob[start:end].max().exp())
