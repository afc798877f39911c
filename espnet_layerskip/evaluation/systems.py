"""Systems to measure: a trained model with one encoder and one way to skip."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.flops import counted
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.rows import KEEP, describe
from espnet_layerskip.inference.audio import AudioBlocks, Utterance
from espnet_layerskip.inference.options import set_fast_form
from espnet_layerskip.inference.posteriors import (
    Clock,
    encode,
    encode_whole,
    extract_features,
    postencode,
    prepare,
    run_encoder,
)
from espnet_layerskip.inference.recognize import recognize
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.method.frames import Encoded
from espnet_layerskip.method.settings import SkipSettings, can_skip

Batch = tuple[torch.Tensor, torch.Tensor]
"""What an encoder takes: features (B, T, F) after frontend and normalisation, lengths (B,)."""


class System:
    """A model with one encoder and one skipping setting.

    It shares the parameters with its experiment, and nothing that is set: systems of one
    experiment run side by side.

    Args:
        experiment: Where the model comes from.
        settings: How to skip; None values keep what the experiment says.
        precision: Of the encoder.
        encoder: Another encoder of the same weights; default: the model's own.

    Raises:
        ValueError: For settings or a precision that the encoder cannot have.
    """

    def __init__(
        self,
        experiment: Experiment,
        settings: SkipSettings = KEEP,
        precision: str = "float32",
        encoder: Any = None,
    ):
        encoder = experiment.encoder if encoder is None else encoder
        self.experiment, self.precision = experiment, precision
        self.settings = settings.resolved(encoder)
        if precision != "float32":
            encoder = copy.deepcopy(encoder)
            set_fast_form(encoder, precision)
        self.encoder: Any = copy.copy(encoder)
        if can_skip(encoder):
            self.encoder.settings = self.settings
        self.speech2text = experiment.speech2text.with_encoder(self.encoder)
        self.model: Any = self.speech2text.asr_model

    @property
    def num_layers(self) -> int:
        """Number of encoder layers L."""
        return len(self.encoder.encoders)

    @property
    def how(self) -> str:
        """How it skips, as on the command line; gates are named where they are not all."""
        whole, gates = self.settings, getattr(self.encoder, "gate_layer_idx", ())
        every = whole.gates_in_use == tuple(gates)
        return describe(replace(whole, gates_in_use=None) if every else whole, self.precision)

    def describe(self) -> str:
        """Return the encoder's class and form and how it skips, in one line."""
        form = "" if getattr(self.encoder, "fast_form", lambda: None)() is None else ", fast form"
        how = self.how if can_skip(self.encoder) else "full depth"
        return f"{type(self.encoder).__name__}{form}, {how}"

    @torch.inference_mode()
    def batch(self, speech: Sequence[Speech]) -> Batch:
        """Return the encoder's input for a batch of speech.

        Raises:
            TooShortUttError: If an utterance is too short for the encoder.
        """
        waves = [self.speech2text.preprocess(one.utt_id, one.samples) for one in speech]
        feats = [extract_features(self.model, torch.from_numpy(wave)) for wave in waves]
        return prepare(self.model, feats)

    @torch.inference_mode()
    def encode(self, batch: Batch) -> Encoded:
        """Run the encoder alone."""
        return run_encoder(self.model, *batch)

    @torch.inference_mode()
    def subsample(self, batch: Batch) -> None:
        """Run only what no skipping can save; of a layer-skipping encoder."""
        self.encoder.subsample(*batch)

    @torch.inference_mode()
    def posteriors(self, waves: Sequence[torch.Tensor]) -> tuple[torch.Tensor, Encoded]:
        """Run frontend, encoder and head on samples; with a stock encoder all as ESPnet does.

        Args:
            waves: Utterances (N_i,), float32.

        Returns:
            Log-posteriors (B, T', V), and what the encoder returned.
        """
        if can_skip(self.encoder):
            encoded = encode(self.model, [extract_features(self.model, wave) for wave in waves])
        else:
            encoded = encode_whole(self.model, waves, Clock())
        return encoded.log_softmax(self.model.ctc), encoded

    def recognize(self, utterances: Sequence[Utterance]) -> list[str]:
        """Transcribe files in one batch, as the verb ``transcribe`` does.

        Raises:
            ValueError: If one of them fails.
        """
        return texts_of(self.speech2text, utterances)

    def transcribe(self, speech: Speech) -> tuple[str, SkipCount, int]:
        """Return the transcript of one utterance, what was skipped, and the encoder's FLOPs.

        Under ESPnet's search FLOPs are not counted (0).

        Raises:
            TooShortUttError: If it is too short for the encoder.
        """
        batch = self.batch([speech])
        if self.speech2text.ctc_decoder is None:
            wave = self.speech2text.preprocess(speech.utt_id, speech.samples)
            [found] = self.speech2text.recognize([wave])
            return found.nbest[0][0] or "", found.skips, 0
        encoded, flops = counted(lambda: self.encode(batch))
        return self.text(encoded), self.skips(encoded), flops

    @torch.inference_mode()
    def text(self, encoded: Encoded) -> str:
        """Return the transcript of one encoded utterance; not for ESPnet's search."""
        states = postencode(self.model, encoded)
        log_probs = states.log_softmax(self.model.ctc)
        [[best, *_]] = self.speech2text.ctc_decoder(log_probs, states.lens, states.keep_mask)
        return self.speech2text.entry(best)[0] or ""

    def skips_of(self, speech: Sequence[Speech]) -> SkipCount:
        """Return what a batch of speech skips."""
        return self.skips(self.encode(self.batch(speech)))

    def skips(self, encoded: Encoded) -> SkipCount:
        """Return what an encoded batch skipped."""
        depth = encoded.depth(self.num_layers)
        return SkipCount.of(depth[depth > 0], self.num_layers)  # 0 on padding


def texts_of(speech2text: Any, utterances: Sequence[Utterance]) -> list[str]:
    """Transcribe files in one batch, as the verb ``transcribe`` does.

    Args:
        speech2text: Of a trained or an exported model.
        utterances: The files.

    Raises:
        ValueError: If one of them fails.
    """
    rate = speech2text.sample_rate
    texts = []
    for result in recognize(
        speech2text, utterances, lambda utt: AudioBlocks(utt, rate), len(utterances)
    ):
        if result.error is not None:
            raise ValueError(f"{result.utt_id} failed: {result.error}")
        texts.append(result.nbest[0][0] or "")
    return texts
