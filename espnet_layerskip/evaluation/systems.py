"""Systems to measure: a trained model with one encoder and one skipping setting."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from espnet_layerskip._compat import TooShortUttError
from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.settings import SkipSettings, can_skip
from espnet_layerskip.inference.posteriors import extract_features, log_posteriors
from espnet_layerskip.inference.skip_count import SkipCount


@dataclass(frozen=True)
class Batch:
    """What an encoder takes: features after frontend and normalisation.

    Attributes:
        feats: (B, T, F), float32, padded with zeros.
        lens: (B,), int64.
    """

    feats: torch.Tensor
    lens: torch.Tensor


class System:
    """A model with one encoder and one skipping setting; several may share the model.

    Args:
        experiment: Where model and stored settings come from.
        settings: Skipping settings; None values keep what the experiment says.
        encoder: Another encoder of the same weights; default: the model's own.

    Raises:
        ValueError: For settings that the encoder cannot have.
    """

    def __init__(
        self, experiment: Experiment, settings: SkipSettings, encoder: torch.nn.Module | None = None
    ):
        self.experiment = experiment
        self.model: Any = experiment.speech2text.asr_model
        self.encoder: Any = experiment.encoder if encoder is None else encoder
        self.settings = settings.resolved(self.encoder, experiment.stored)
        if settings.precision is not None:
            self.encoder = copy.deepcopy(self.encoder)
            self.encoder.optimize_for_inference(settings.precision)
        self.prepare()

    @property
    def num_layers(self) -> int:
        """Number of encoder layers L."""
        return len(self.encoder.encoders)

    @property
    def num_params(self) -> int:
        """Parameters of the whole model, as it is decoded with greedy search."""
        return sum(p.numel() for p in self.model.parameters())

    def prepare(self) -> None:
        """Put this system's encoder and settings into the shared model."""
        self.model.encoder = self.encoder
        self.settings.apply(self.encoder)

    def batch(self, speech: Sequence[Speech]) -> Batch:
        """Return the encoder's input for a batch of speech, by frontend and normalisation."""
        model, feats = self.model, []
        with torch.no_grad():
            for one in speech:
                x = extract_features(model, torch.from_numpy(one.samples))[None]
                lens = torch.tensor([x.size(1)])
                for module in (model.normalize, model.preencoder):
                    if module is not None:
                        x, lens = module(x, lens)
                feats.append(x[0, : int(lens)])
        return Batch(
            pad_sequence(feats, batch_first=True), torch.tensor([f.size(0) for f in feats])
        )

    def encode(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return encoder_out (B, T', D) and its lengths (B,); call `prepare` first.

        It is the forward alone, without hooks that somebody may have registered.
        """
        # as ESPnetASRModel.encode decides
        wanted = ("interctc_use_conditioning", "ctc_trim")
        gated = any(getattr(self.encoder, name, False) for name in wanted)
        with torch.inference_mode():
            head = {"ctc": self.model.ctc} if gated else {}
            out, olens, _ = self.encoder.forward(batch.feats, batch.lens, **head)
        return out, olens

    def posteriors(self, waves: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Run frontend, encoder and head on samples; call `prepare` first.

        Args:
            waves: Utterances (N_i,), float32.

        Returns:
            Log-posteriors (B, T', V) and their lengths (B,).
        """
        with torch.inference_mode():
            return log_posteriors(self.model, [extract_features(self.model, w) for w in waves])

    def describe(self) -> str:
        """Return the encoder's class and form and how it skips, in one line."""
        form = "" if getattr(self.encoder, "fast_layers", lambda: None)() is None else ", fast form"
        settings = self.settings.describe() if can_skip(self.encoder) else "full depth"
        return f"{type(self.encoder).__name__}{form}, {settings}"

    def stem(self, batch: Batch) -> None:
        """Run only what no skipping can save: subsampling and positions."""
        embed = self.encoder.embed
        with torch.inference_mode():
            if isinstance(self.encoder, LayerSkipConformerEncoder):  # may be in its fast form
                self.encoder.subsample(batch.feats, batch.lens)
            elif hasattr(embed, "conv"):  # ESPnet's Conv2dSubsampling family
                embed(batch.feats, torch.ones(batch.feats.size(0), 1, batch.feats.size(1)) > 0)
            else:
                embed(batch.feats)

    def transcribe(self, speech: Speech) -> tuple[str, SkipCount]:
        """Return the transcript of one utterance and its skipped frames."""
        self.prepare()
        speech2text = self.experiment.speech2text
        found = speech2text(speech2text.preprocess(speech.utt_id, speech.samples))
        nbest = found[0] if isinstance(found, tuple) else found  # ESPnet's search
        return nbest[0][0] or "", speech2text.last_skips[0]

    def warm_up(self, speech: Sequence[Speech]) -> None:
        """Encode the longest of some speech, so that what is computed once is not counted."""
        self.prepare()
        with suppress(TooShortUttError):
            self.encode(self.batch([max(speech, key=lambda s: s.samples.size)]))

    def skipped(self, batch: Batch) -> Skipped:
        """Encode once and return what was skipped."""
        self.prepare()
        _, olens = self.encode(batch)
        return skipped_of(self.encoder, int(olens.sum()))


@dataclass(frozen=True)
class Skipped:
    """What an encoder skipped of real frames; it can be added up.

    Attributes:
        num_frames: Encoder frames.
        num_skipped: Those that skipped at least one layer.
        layers_run: Layers run, summed over the frames.
        layers: Layers at full depth, summed over the frames.
    """

    num_frames: int = 0
    num_skipped: int = 0
    layers_run: int = 0
    layers: int = 0

    def __add__(self, other: Skipped) -> Skipped:
        return Skipped(
            self.num_frames + other.num_frames,
            self.num_skipped + other.num_skipped,
            self.layers_run + other.layers_run,
            self.layers + other.layers,
        )

    @property
    def ratio(self) -> float:
        """Share s of frames that skipped at least one layer."""
        return self.num_skipped / max(1, self.num_frames)

    @property
    def ceiling(self) -> float:
        """Share of the blocks' work not done: s * (L - K) / L for one gate after layer K.

        With several gates it is the mean over the frames of the share of layers not run.
        It bounds the blocks' linear work: the whole encoder also has its subsampling, and
        attention is quadratic in the frames, so that long inputs can save more.
        """
        return 1.0 - self.layers_run / self.layers if self.layers else 0.0


def skipped_of(encoder: Any, num_frames: int) -> Skipped:
    """Return what the encoder's last forward, over ``num_frames`` encoder frames, skipped."""
    num_layers = len(encoder.encoders)
    trace = getattr(encoder, "last_skip", None)
    if trace is not None:
        run = int(trace.depth(num_layers).sum())
        return Skipped(num_frames, trace.num_skipped(), run, num_frames * num_layers)
    exit_layer = getattr(encoder, "exit_layer", None)
    if exit_layer is None:
        return Skipped(num_frames, 0, num_frames * num_layers, num_frames * num_layers)
    return Skipped(num_frames, num_frames, num_frames * exit_layer, num_frames * num_layers)
