"""Speech2Text: ESPnet's inference class with layer skipping and frame-synchronous decoders."""

from __future__ import annotations

import copy
import logging
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_layerskip._compat import inference_module
from espnet_layerskip.decoding import CTCDecoder, Hypothesis, make_decoder
from espnet_layerskip.decoding.confidence import check_temperature
from espnet_layerskip.decoding.frame_drop import DROP_NOTHING, choose_drop_threshold
from espnet_layerskip.inference import espnet_search
from espnet_layerskip.inference.calibration import calibrated_temperature, choose_skipping
from espnet_layerskip.inference.entry import Entry, make_entry
from espnet_layerskip.inference.espnet_arguments import (
    buildable,
    espnet_arguments,
    take_search_arguments,
    training_config,
)
from espnet_layerskip.inference.frame_sync import FrameSynchronous, Wave
from espnet_layerskip.inference.label_sync import search_utterances
from espnet_layerskip.inference.options import DECODER_TYPES, quantize_dynamic, set_fast_form
from espnet_layerskip.inference.pretrained import ModelFiles, download_model, find_model, named
from espnet_layerskip.inference.recognize import Recognized
from espnet_layerskip.inference.samples import check_samples, check_settings, names_of
from espnet_layerskip.inference.segments import make_segmentation
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.inference.times import frame_samples, sample_rate
from espnet_layerskip.method.settings import SkipSettings, check_choice
from espnet_layerskip.registry import register
from espnet_layerskip.training.checkpoint import config_without_init, load_checkpoint

register()

ESPnetSpeech2Text: Any = inference_module().Speech2Text

logger = logging.getLogger(__name__)
_COUNTING = threading.Lock()


class Speech2Text(ESPnetSpeech2Text):  # type: ignore[misc]
    """ESPnet's Speech2Text for skipping and for stock models.

    Calling it with one utterance returns ESPnet's n-best list
    ``[(text, token, token_int, hypothesis), ...]``; ``recognize`` returns what was skipped
    too. Several threads may call one object at once. ``last_skips`` holds a
    :class:`SkipCount` for each utterance of the call that ended last, ``encoder_seconds`` the
    time of all calls.

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
            configured where there is none. ``calibration`` then holds what was read, and one
            line of the log says what is used.
        spike_extension: (left, right) frames, or None = as configured.
        skip_context: packed, packed_original or full, or None = as configured.
        exit_layer: Gate layer after which every frame stops, or None = no early exit.
        precision: Of the encoder: float32, bfloat16 or int8 (matrix products, on a CPU).
        optimize: Run the encoder in its fast form where it has one (see
            `LayerSkipConformerEncoder.optimize_for_inference`; a stock encoder is put into our
            class, except for decoder_type "espnet"); float32 output is the same.
        segment_size: Audio of more than twice as many seconds is cut into segments of this
            length, which overlap, and its CTC frames are put together again; see
            :mod:`~.decoding.segments`. "off" = never; None = 15, where the frontend says how
            long a frame is. "espnet" takes audio as a whole, and refuses more than 2 minutes.
        hop_size: Seconds from the start of a segment to the start of the next; None = 1.2
            less than ``segment_size``.
        confidence_temperature: Of the words' confidences, see
            :func:`~.decoding.confidence.tempered`; None = as calibrated, else 1.
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
        blank_threshold: float | str | None = "auto",
        spike_extension: Sequence[int] | str | None = None,
        skip_context: str | None = None,
        exit_layer: int | str | None = None,
        precision: str = "float32",
        optimize: bool = True,
        segment_size: float | str | None = None,
        hop_size: float | str | None = None,
        confidence_temperature: float | None = None,
        **kwargs: Any,
    ):
        check_temperature(confidence_temperature)
        self.decoder_type = check_choice("decoder_type", decoder_type, DECODER_TYPES)
        config = training_config(asr_train_config, asr_model_file)
        self.drop_threshold = choose_drop_threshold(drop_threshold, decoder_type)
        search = take_search_arguments(decoder_type, kwargs, lexicon)
        kwargs = espnet_arguments(ESPnetSpeech2Text, kwargs, config)
        quantize = kwargs.pop("quantize_asr_model", False)
        if asr_model_file is None:
            with buildable(config):
                super().__init__(asr_train_config=config, asr_model_file=None, **kwargs)
        else:
            with config_without_init(config) as without, buildable(config):
                super().__init__(asr_train_config=without, asr_model_file=None, **kwargs)
            load_checkpoint(self.asr_model, asr_model_file)
        self.calibration = choose_skipping(
            self.asr_model.encoder,
            asr_model_file,
            blank_threshold,
            SkipSettings(
                blank_threshold=blank_threshold,  # type: ignore[arg-type]
                spike_extension=spike_extension,  # type: ignore[arg-type]
                skip_context=skip_context,
                exit_layer=exit_layer,  # type: ignore[arg-type]
            ),
        )
        self.confidence_temperature = confidence_temperature or calibrated_temperature(
            self.calibration, asr_model_file, self.asr_model.encoder, blank_threshold
        )
        if quantize:
            quantize_dynamic(self.asr_model, kwargs)
        fast, convert = optimize and not quantize, decoder_type != "espnet"
        set_fast_form(self.asr_model.encoder, precision, fast, convert)
        self._segmentation = make_segmentation(
            segment_size,
            hop_size,
            frame_samples(self.asr_model, self.asr_train_args),
            self.sample_rate,
        )
        self.ctc_decoder: CTCDecoder | None = None  # None: ESPnet's search
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
            self._frame_sync = FrameSynchronous(
                self.asr_model, self.ctc_decoder, self._segmentation, self.on_device
            )
        else:
            espnet_search.check_search(self.beam_search, self.drop_threshold < DROP_NOTHING)
        self.model_files: ModelFiles | None = None  # keeps what was unpacked from a zip
        self.last_skips: list[SkipCount] = []
        self.encoder_seconds = 0.0
        self._preprocess: Any = None

    @property
    def sample_rate(self) -> int:
        """Rate in Hz of the audio that the model takes (ESPnet's default is 16000)."""
        return sample_rate(self.asr_train_args)

    @property
    def frame_seconds(self) -> float | None:
        """Duration of an encoder frame in seconds; None where the frontend does not say."""
        samples = frame_samples(self.asr_model, self.asr_train_args)
        return None if samples is None else samples / self.sample_rate

    @property
    def longest_whole(self) -> float:
        """Seconds above which audio is cut, or refused by ESPnet's search; may be infinite."""
        if self._segmentation is None:
            return math.inf
        if self.ctc_decoder is None:
            return espnet_search.LONGEST
        return self._segmentation.longest_whole / self.sample_rate

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
            return self.recognize([speech], ["utterance"])[0].for_espnet()
        return self.decode_batch(speech)

    @torch.inference_mode()
    def decode_batch(
        self,
        speech: Sequence[Wave],
        utt_ids: Sequence[str] | None = None,
        batch_size: int | None = None,
    ) -> list[Any]:
        """Transcribe several utterances in batches of similar length.

        Features are computed for each utterance alone (the frontend pads a batch's STFT
        differently), then padded and encoded together, so that a transcript does not
        depend on the batch. Encoders that see their padding (stock ones, and ours with
        ``rel_pos_type: legacy``) take one utterance at a time. So does ESPnet's search in
        202511, with ``drop_threshold``, and where a part of it cannot score batches.

        Args:
            speech: Utterances, each (N,), float in [-1, 1].
            utt_ids: Their names for warnings.
            batch_size: Utterances of a batch; None = all in one, and of a long one a segment.

        Returns:
            For each utterance its n-best list; from ESPnet's search in batches never with the
            tokens of intermediate layers, as there.
        """
        found = self.recognize(speech, utt_ids, batch_size)
        if self.ctc_decoder is None and espnet_search.can_batch(self):
            return [r.nbest for r in found]
        return [r.for_espnet() for r in found]

    @torch.inference_mode()
    def recognize(
        self,
        speech: Sequence[Wave],
        utt_ids: Sequence[str] | None = None,
        batch_size: int | None = None,
        settings: SkipSettings | None = None,
    ) -> list[Recognized]:
        """Transcribe several utterances; as ``decode_batch``, and tell what was skipped.

        Args:
            speech: As of ``decode_batch``.
            utt_ids: As of ``decode_batch``.
            batch_size: As of ``decode_batch``.
            settings: How to skip in this call; what they leave open, and None, is as the
                encoder's own.

        Raises:
            ValueError: For samples of another shape, audio too long for ESPnet's search, or
                settings that do not fit.
        """
        names = names_of(speech, utt_ids)
        settings = check_settings(settings, self.asr_model.encoder)
        speech = [check_samples(wave, name) for wave, name in zip(speech, names, strict=True)]
        if self.ctc_decoder is not None:
            found = self._frame_sync.utterances(speech, names, batch_size, settings)
            return self._count([self._recognized(one) for one in found])
        searched = search_utterances(self, speech, names, batch_size, settings)
        return self._count([self._recognized(one) for one in searched])

    @torch.inference_mode()
    def recognize_blocks(
        self,
        blocks: Iterable[np.ndarray],
        utt_id: str = "utterance",
        batch_size: int = 1,
        prepare: Callable[[np.ndarray], np.ndarray] | None = None,
        settings: SkipSettings | None = None,
    ) -> Recognized:
        """Transcribe one utterance of any length in bounded memory.

        Args:
            blocks: Its samples (N_i,), one after the other, float in [-1, 1].
            utt_id: Its name for errors and warnings.
            batch_size: Segments to encode together.
            prepare: What to do with the samples of each segment, as ``preprocess`` does.
            settings: As of ``recognize``.

        Raises:
            ValueError: With ESPnet's search.
        """
        if self.ctc_decoder is None:
            raise ValueError(f"{utt_id} {espnet_search.TOO_LONG}")
        settings = check_settings(settings, self.asr_model.encoder)
        checked = (check_samples(block, utt_id) for block in blocks)
        found = self._frame_sync.blocks(checked, utt_id, batch_size, prepare, settings)
        return self._count([self._recognized(found)])[0]

    def batch_decode(self, speech: Any, speech_lengths: Any = None) -> list[Any]:
        """Transcribe a list, or a padded array (B, N) with lengths, as ESPnet 202611 does."""
        if speech_lengths is not None:
            speech = [row[: int(n)] for row, n in zip(speech, speech_lengths, strict=True)]
        return self.decode_batch(list(speech))

    def preprocess(self, utt_id: str, samples: np.ndarray) -> np.ndarray:
        """Apply the training's preprocessor in its evaluation mode to samples (N,)."""
        if self._preprocess is None:
            from espnet_layerskip.training.task import LayerSkipASRTask

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
        return Speech2Text(**{**kwargs, **download_model(str(model_tag))})

    def with_encoder(self, encoder: Any) -> Speech2Text:
        """Return one with another encoder, which shares everything else with this one."""
        found = copy.copy(self)
        found.asr_model = copy.copy(self.asr_model)
        found.asr_model._modules = {**self.asr_model._modules, "encoder": encoder}
        if found.ctc_decoder is not None:
            found._frame_sync = FrameSynchronous(
                found.asr_model, found.ctc_decoder, found._segmentation, found.on_device
            )
        return found

    def _recognized(self, found: Recognized) -> Recognized:
        return replace(found, nbest=[self.entry(hyp) for hyp in found.nbest[: self.nbest]])

    def _count(self, results: list[Recognized]) -> list[Recognized]:
        """Note what a call has skipped and taken, for those who want to know afterwards."""
        with _COUNTING:
            self.last_skips = [result.skips for result in results]
            self.encoder_seconds += sum(result.encoder_seconds for result in results)
        return results

    def on_device(self, wave: Wave) -> torch.Tensor:
        """Return samples (N,) as the model takes them: its device and dtype."""
        return torch.as_tensor(wave).to(self.device, getattr(torch, self.dtype))

    def entry(self, hyp: Hypothesis) -> Entry:
        """Return the four of ESPnet's n-best list; the hypothesis with its strings and times."""
        token_type = getattr(self.asr_train_args, "token_type", None)
        if self.decoder_type in ("greedy", "prefix_beam") and not hyp.scores:
            hyp = replace(hyp, scores={"ctc": hyp.score})
        ends = self.asr_model.sos, self.asr_model.eos
        return make_entry(
            hyp,
            self.converter,
            self.tokenizer,
            self.frame_seconds,
            token_type,
            ends,
            self.confidence_temperature,
        )


def load_model(
    path: str | Path, model_file: str | Path | None = None, **kwargs: Any
) -> Speech2Text:
    """Build a Speech2Text from an experiment directory or a zip of ``espnet2.bin.pack``.

    Args:
        path: EXPDIR or ZIP.
        model_file: Checkpoint; see :func:`~espnet_layerskip.inference.pretrained.find_model`.
        kwargs: Those of Speech2Text.

    Raises:
        ValueError: If something is missing or does not fit.
    """
    files = find_model(path, model_file)
    with named(files.tmpdir.name, path):
        speech2text = Speech2Text(files.train_config, files.model_file, **kwargs)
    speech2text.model_files = files
    return speech2text
