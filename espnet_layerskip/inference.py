"""Speech2Text: ESPnet's inference class with layer skipping and frame-synchronous decoders."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_layerskip._compat import TooShortUttError, inference_module
from espnet_layerskip.calibration.stored import Calibration, use_calibration
from espnet_layerskip.checkpoint import load_checkpoint
from espnet_layerskip.decoding import CTCDecoder, Hypothesis, make_decoder
from espnet_layerskip.decoding.encoder_clock import EncoderClock
from espnet_layerskip.decoding.espnet_arguments import (
    espnet_arguments,
    take_search_arguments,
    training_config,
)
from espnet_layerskip.decoding.espnet_search import as_hypothesis, drop_in_search
from espnet_layerskip.decoding.frame_drop import OFF, check_drop_threshold
from espnet_layerskip.decoding.posteriors import (
    extract_features,
    following_head,
    log_posteriors,
)
from espnet_layerskip.decoding.skip_count import SkipCount, count_skips
from espnet_layerskip.decoding.times import frame_seconds, word_times
from espnet_layerskip.options import DECODER_TYPES, check_choice, set_fast_form, set_skipping
from espnet_layerskip.pretrained import ModelFiles, find_model
from espnet_layerskip.registry import register
from espnet_layerskip.skipping import LayerSkipMixin

register()

ESPnetSpeech2Text: Any = inference_module().Speech2Text

Wave = np.ndarray | torch.Tensor
NBest = list[tuple[str | None, list[str], list[int], Any]]

logger = logging.getLogger(__name__)

# Of the searches over CTC posteriors, where none is given.
DROP_THRESHOLD = 0.99


class Speech2Text(ESPnetSpeech2Text):  # type: ignore[misc]
    """ESPnet's Speech2Text for skipping and for stock models.

    Calling it with one utterance returns ESPnet's n-best list
    ``[(text, token, token_int, hypothesis), ...]``. After each call ``last_skips`` holds
    one :class:`SkipCount` an utterance, and ``encoder_seconds`` has grown by the time that
    the encoder took.

    Differences from ESPnet: the checkpoint has to fit the model in every key and holds
    tensors only; an utterance too short for the subsampling gives an empty transcript and
    a warning; ``ctc_window_margin`` defaults to 0 (exact; 202611 approximates by default);
    a CTC-only model is searched with ``ctc_weight=1.0``. Multi-speaker models, and
    Hugging Face decoders, are left to ESPnet's own class.

    Args:
        asr_train_config: config.yaml of the training; default: beside ``asr_model_file``.
        asr_model_file: Checkpoint (``.pth``); None = random weights.
        decoder_type: "espnet" (its beam search, CTC and attention), or of the CTC head
            alone, batched: "greedy" (best path), "prefix_beam" (prefix beam search) or
            "ngram" (that with an n-gram, a lexicon or both).
        drop_threshold: Frames with p(blank) above it, and frames that skipped layers, are
            dropped before a search; see :func:`~.decoding.frame_drop.drop_frames`. "off",
            or in (0.5, 1]; None = 0.99, and off for "espnet".
        lexicon: Words to decode to, of "ngram"; see :func:`~.decoding.lexicon.read_lexicon`.
        blank_threshold: In (0, 1], "off", None = as configured, or "auto" = the calibrated
            setting that is stored beside the checkpoint (``espnet-layerskip calibrate``), as
            configured where there is none. ``calibration`` then holds what was read.
        spike_extension: (left, right) frames, or None = as configured.
        skip_context: packed, packed_original or full, or None = as configured.
        exit_layer: Gate layer after which every frame stops, or None = no early exit.
        precision: Of the encoder: float32, bfloat16 or int8 (matrix products, on a CPU).
        optimize: Run the encoder in its fast form where it has one (see
            `LayerSkipConformerEncoder.optimize_for_inference`); float32 output is the same.
        kwargs: Those of ESPnet's Speech2Text. ``ngram_file``, ``ngram_weight``, ``penalty``
            and ``beam_size`` mean for the other decoders what they mean for ESPnet's.

    Raises:
        ValueError: For an option value or a checkpoint that does not fit the model.
        TypeError: For an argument that this ESPnet version does not know.

    Example::

        speech2text = Speech2Text("exp/asr/config.yaml", "exp/asr/valid.cer_ctc.ave.pth",
                                  decoder_type="greedy", blank_threshold=0.95)
        text, tokens, token_ids, hypothesis = speech2text(samples)[0]
    """

    def __init__(
        self,
        asr_train_config: Path | str | None = None,
        asr_model_file: Path | str | None = None,
        *,
        decoder_type: str = "espnet",
        drop_threshold: float | str | None = None,
        lexicon: Path | str | None = None,
        blank_threshold: float | str | None = None,
        spike_extension: Sequence[int] | str | None = None,
        skip_context: str | None = None,
        exit_layer: int | str | None = None,
        precision: str = "float32",
        optimize: bool = True,
        **kwargs: Any,
    ):
        self.decoder_type = check_choice("decoder_type", decoder_type, DECODER_TYPES)
        config = training_config(asr_train_config, asr_model_file)
        if drop_threshold is None:
            drop_threshold = OFF if decoder_type == "espnet" else DROP_THRESHOLD
        self.drop_threshold = check_drop_threshold(drop_threshold)
        search = {} if decoder_type == "espnet" else take_search_arguments(decoder_type, kwargs)
        kwargs = espnet_arguments(ESPnetSpeech2Text, kwargs, config)
        quantize = kwargs.pop("quantize_asr_model", False)
        super().__init__(asr_train_config=config, asr_model_file=None, **kwargs)
        if asr_model_file is not None:
            load_checkpoint(self.asr_model, asr_model_file)
        self.calibration: Calibration | None = None
        if blank_threshold == "auto" and asr_model_file is not None:
            self.calibration = use_calibration(self.asr_model.encoder, asr_model_file)
        if self.calibration and (spike_extension, skip_context, exit_layer) != (None, None, None):
            logger.warning("options beside blank_threshold 'auto' win over what was calibrated")
        set_skipping(
            self.asr_model.encoder, blank_threshold, spike_extension, skip_context, exit_layer
        )
        if quantize:
            self._quantize(
                kwargs.get("quantize_modules", ["Linear"]), kwargs.get("quantize_dtype", "qint8")
            )
        set_fast_form(self.asr_model.encoder, precision, optimize and not quantize)
        self.ctc_decoder: CTCDecoder | None = None
        if decoder_type != "espnet":
            self.ctc_decoder = make_decoder(
                decoder_type,
                self.asr_model.token_list,
                list if self.tokenizer is None else self.tokenizer.text2tokens,
                nbest=self.nbest,
                drop_threshold=self.drop_threshold,
                lexicon=lexicon,
                **search,
            )
        elif self.drop_threshold < OFF:
            drop_in_search(self.beam_search, self.asr_model, self.drop_threshold)
        self.model_files: ModelFiles | None = None  # keeps what was unpacked from a zip
        self.last_skips: list[SkipCount] = []
        self._clock = EncoderClock(self.asr_model.encoder)
        self._preprocess: Any = None

    @property
    def encoder_seconds(self) -> float:
        """Time spent in the encoder since construction, in seconds."""
        return self._clock.seconds

    @property
    def sample_rate(self) -> int:
        """Rate in Hz of the audio that the model takes (ESPnet's default is 16000)."""
        rate = (getattr(self.asr_train_args, "frontend_conf", None) or {}).get("fs", 16000)
        if isinstance(rate, str) and rate.lower().endswith("k"):
            return round(float(rate[:-1]) * 1000)
        return int(rate)

    @property
    def frame_seconds(self) -> float | None:
        """Duration of an encoder frame in seconds; None where the frontend does not say."""
        encoder_conf = getattr(self.asr_train_args, "encoder_conf", None) or {}
        return frame_seconds(self.asr_model, encoder_conf, self.sample_rate)

    @torch.inference_mode()
    def __call__(self, speech: Wave | Sequence[Wave]) -> Any:
        """Transcribe one utterance, or several.

        Args:
            speech: Samples (N,), float in [-1, 1]; or a list of them, see ``decode_batch``.

        Returns:
            The n-best list of (text, token, token_int, hypothesis); a list of those for a
            list. As in ESPnet, ``(nbest, {layer_idx: tokens})`` from the search over an
            encoder that returns intermediate outputs.
        """
        if isinstance(speech, np.ndarray | torch.Tensor):
            return self._decode([speech], ["utterance"])[0]
        return self.decode_batch(speech)

    @torch.inference_mode()
    def decode_batch(
        self, speech: Sequence[Wave], utt_ids: Sequence[str] | None = None
    ) -> list[Any]:
        """Transcribe several utterances, with ``decoder_type="greedy"`` in one batch.

        Features are computed for each utterance alone (the frontend pads a batch's STFT
        differently), then padded and encoded together, so that a transcript does not
        depend on the batch. Stock encoders are not padding-invariant: they, and the beam
        search, take one utterance at a time.

        Args:
            speech: Utterances, each (N,), float in [-1, 1].
            utt_ids: Their names for warnings.

        Returns:
            For each utterance its n-best list.
        """
        names = utt_ids or [f"utterance {i} of the batch" for i in range(len(speech))]
        return self._decode(speech, names)

    def batch_decode(self, speech: Any, speech_lengths: Any = None) -> list[Any]:
        """Transcribe a list, or a padded array (B, N) with lengths, as ESPnet 202611 does."""
        if speech_lengths is not None:
            speech = [row[: int(n)] for row, n in zip(speech, speech_lengths, strict=True)]
        return self.decode_batch(list(speech))

    def preprocess(self, utt_id: str, samples: np.ndarray) -> np.ndarray:
        """Apply the training's preprocessor in its evaluation mode to samples (N,)."""
        if self._preprocess is None:
            from espnet_layerskip.task import LayerSkipASRTask

            built = LayerSkipASRTask.build_preprocess_fn(self.asr_train_args, False)
            self._preprocess = built or (lambda utt_id, data: data)
        out: np.ndarray = self._preprocess(utt_id, {"speech": samples})["speech"]
        return out

    @staticmethod
    def from_pretrained(model_tag: str | Path | None = None, **kwargs: Any) -> Speech2Text:
        """Build from an experiment directory, a packed zip or a tag of espnet_model_zoo.

        Args:
            model_tag: Path or tag; None: ``kwargs`` name the files.
            kwargs: Those of Speech2Text.
        """
        if model_tag is None:
            return Speech2Text(**kwargs)
        if Path(model_tag).exists():
            return load_model(model_tag, kwargs.pop("asr_model_file", None), **kwargs)
        try:
            from espnet_model_zoo.downloader import (  # type: ignore[import-not-found]
                ModelDownloader,
            )
        except ImportError as e:
            raise ValueError(
                f"{model_tag} is not a path, and a model tag needs: pip install espnet_model_zoo"
            ) from e
        return Speech2Text(**{**kwargs, **ModelDownloader().download_and_unpack(str(model_tag))})

    def _decode(self, speech: Sequence[Wave], names: Sequence[str]) -> list[Any]:
        self.last_skips = [SkipCount()] * len(speech)
        results: list[Any] = [[("", [], [], Hypothesis())] for _ in speech]
        waves = {}
        for i, wave in enumerate(speech):
            wave = torch.as_tensor(wave)
            if wave.dim() != 1:
                raise ValueError(f"{names[i]}: samples (N,) are needed, got {tuple(wave.shape)}")
            waves[i] = wave.to(self.device, getattr(torch, self.dtype))
        feats = {}
        for i, wave in waves.items():
            try:
                feats[i] = extract_features(self.asr_model, wave)
            except TooShortUttError as e:
                logger.warning("%s %s: its transcript is empty", names[i], e)
        together = isinstance(self.asr_model.encoder, LayerSkipMixin) and self.ctc_decoder
        for group in [list(feats)] if together and feats else [[i] for i in feats]:
            if self.ctc_decoder is None:
                found = super().__call__(waves[group[0]])
                # ESPnet returns its own hypotheses, with type checks; ours have the times
                results[group[0]] = (
                    (self._ours, found[1]) if isinstance(found, tuple) else self._ours
                )
                self.last_skips[group[0]] = self._searched
            else:
                decoded = self._frame_sync(self.ctc_decoder, [feats[i] for i in group])
                for i, (nbest, count) in zip(group, decoded, strict=True):
                    results[i], self.last_skips[i] = nbest, count
        return results

    def _frame_sync(
        self, decoder: CTCDecoder, feats: list[torch.Tensor]
    ) -> list[tuple[NBest, SkipCount]]:
        """Encode features (T_i, F) in one batch and decode them."""
        log_probs, olens = log_posteriors(self.asr_model, feats)
        counts = count_skips(self.asr_model.encoder, olens)
        trace = getattr(self.asr_model.encoder, "last_skip", None)
        decoded = decoder(log_probs, olens, None if trace is None else trace.keep_mask)
        return [
            ([self.entry(hyp) for hyp in hyps[: self.nbest]], count)
            for hyps, count in zip(decoded, counts, strict=True)
        ]

    def entry(self, hyp: Hypothesis) -> tuple[str | None, list[str], list[int], Hypothesis]:
        """Return the four of ESPnet's n-best list; the hypothesis with its strings and times."""
        token = self.converter.ids2tokens(hyp.token_int)
        text = None if self.tokenizer is None else self.tokenizer.tokens2text(token)
        seconds = self.frame_seconds
        starts, ends = (
            [] if seconds is None else [frame * seconds for frame in frames]
            for frames in (hyp.token_frames, hyp.token_ends)
        )
        token_type = getattr(self.asr_train_args, "token_type", None)
        words = word_times(token, starts, ends, token_type)
        hyp = dataclasses.replace(
            hyp, token=token, text=text or "", token_times=starts, words=words
        )
        return text, token, hyp.token_int, hyp

    def _decode_single_sample(self, enc: torch.Tensor) -> Any:
        """ESPnet's search over one utterance (T, D), on posteriors that know what skipped."""
        olens = torch.tensor([enc.size(0)])
        [self._searched] = count_skips(self.asr_model.encoder, olens)
        with following_head(self.asr_model):
            found = super()._decode_single_sample(enc)
            self._ours = [
                self.entry(as_hypothesis(hyp, token_int, self.asr_model, enc))
                for _, _, token_int, hyp in found
            ]
            return found

    def _quantize(self, modules: Sequence[str], dtype: str) -> None:
        """Quantize encoder and decoder in place; our head and the search keep their modules."""
        for module in (self.asr_model.encoder, self.asr_model.decoder):
            if module is not None:
                torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
                    module,
                    qconfig_spec={getattr(torch.nn, name) for name in modules},
                    dtype=getattr(torch, dtype),
                    inplace=True,
                )


def load_model(
    path: str | Path, model_file: str | Path | None = None, **kwargs: Any
) -> Speech2Text:
    """Build a Speech2Text from an experiment directory or a zip of ``espnet2.bin.pack``.

    Args:
        path: EXPDIR or ZIP.
        model_file: Checkpoint; see :func:`~espnet_layerskip.pretrained.find_model`.
        kwargs: Those of Speech2Text.

    Raises:
        ValueError: If something is missing or does not fit.
    """
    files = find_model(path, model_file)
    speech2text = Speech2Text(files.train_config, files.model_file, **kwargs)
    speech2text.model_files = files
    return speech2text
