"""Speech2Text for exported models: NumPy, onnxruntime and soundfile, no PyTorch and no ESPnet."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from espnet_layerskip.decoding import Hypothesis, make_decoder
from espnet_layerskip.decoding.confidence import check_temperature
from espnet_layerskip.decoding.frame_drop import choose_drop_threshold
from espnet_layerskip.export.folder import (
    FULL,
    MODEL,
    STOPPED,
    TOKENS,
    read_description,
    read_tokens,
)
from espnet_layerskip.export.session import open_session
from espnet_layerskip.inference.batches import by_length, check_batch_size
from espnet_layerskip.inference.recognize import Recognized
from espnet_layerskip.inference.samples import as_array, check_samples, names_of
from espnet_layerskip.inference.segments import SEGMENT_SIZE, Posteriors, make_segmentation
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.inference.times import SPACE, WORD_START, word_times
from espnet_layerskip.method.settings import OFF, SkipSettings, check_choice, is_short

DECODER_TYPES = ("greedy", "prefix_beam", "ngram")
Samples = NDArray[np.float32]

logger = logging.getLogger(__name__)


class Speech2Text:
    """Runs what ``espnet-layerskip export`` wrote. Several threads may call one object at once.

    It can be pickled and copied; the graphs are then opened again, and the folder has to be there.

    Args:
        model: Folder of the export.
        decoder_type: "greedy", "prefix_beam" or "ngram"; see `make_decoder`.
        blank_threshold: In (0, 1], "off" (full depth), "auto" and None = as exported.
        spike_extension: (left, right) frames, or None = as exported.
        skip_context: Is fixed in the graph: None, or what it is.
        exit_layer: Gate layer after which every frame stops: None, or the one exported.
        precision: Is fixed as well: None, or what it is.
        drop_threshold: Frames that are surely blank are dropped before a search; None = 0.99.
        segment_size, hop_size: In seconds; see `make_segmentation`. None = 15, or half of the
            longest input if that is less.
        device: "cpu", "cuda" or "cuda:N".
        num_threads: CPU threads; None = onnxruntime's choice.
        flush_denormals: See `open_session`; for programs of their own.
        nbest: Hypotheses to return.
        confidence_temperature: Of the words' confidences; None = as exported.
        options: ``beam_size``, ``ngram_file``, ``ngram_weight``, ``penalty`` and ``lexicon`` of
            `make_decoder`.

    Raises:
        ValueError: For an option that does not fit, or files that cannot be used.

    Example::

        speech2text = Speech2Text("asr.onnx", decoder_type="greedy")
        text, tokens, token_ids, hypothesis = speech2text(samples)[0]
    """

    def __init__(
        self,
        model: str | Path,
        *,
        decoder_type: str = "greedy",
        blank_threshold: Any = None,
        spike_extension: Any = None,
        skip_context: str | None = None,
        exit_layer: int | None = None,
        precision: str | None = None,
        drop_threshold: float | str | None = None,
        segment_size: float | str | None = None,
        hop_size: float | str | None = None,
        device: str = "cpu",
        num_threads: int | None = None,
        flush_denormals: bool = False,
        nbest: int = 1,
        confidence_temperature: float | None = None,
        **options: Any,
    ):
        check_choice("decoder_type of an exported model", decoder_type, DECODER_TYPES)
        folder = Path(model)
        self.description = found = read_description(folder)
        self.token_list = read_tokens(folder)
        self.nbest = nbest
        check_temperature(confidence_temperature)
        self.confidence_temperature = confidence_temperature or found.confidence_temperature
        fixed = {"precision": found.precision, "skip_context": found.settings.skip_context}
        for name, value in (("precision", precision), ("skip_context", skip_context)):
            if value is not None and value != fixed[name]:
                raise ValueError(
                    f"{folder} was exported with {name} {fixed[name]}, which is part of the graph: "
                    f"export it again for {value}"
                )
        asked = SkipSettings(
            blank_threshold=blank_threshold, spike_extension=spike_extension, exit_layer=exit_layer
        )
        self._graph, self._inputs = self._choose(asked)
        most = found.longest / 2 / found.sample_rate
        if segment_size is None:
            segment_size = min(SEGMENT_SIZE, most)
        plan = make_segmentation(segment_size, hop_size, found.frame, found.sample_rate)
        self._segmentation = plan
        if plan is not None and plan.longest_whole > found.longest:
            raise ValueError(
                f"segment_size must be at most {most:g} s: audio "
                f"of up to two segments is not cut, and {folder} takes up to "
                f"{found.longest / found.sample_rate:g} s (export it with a larger --longest)"
            )
        self.decoder = make_decoder(
            decoder_type,
            self.token_list,
            self._spell,
            nbest=nbest,
            drop_threshold=choose_drop_threshold(drop_threshold, decoder_type),
            **options,
        )
        self._open = partial(
            open_session, device=device, num_threads=num_threads, flush_denormals=flush_denormals
        )
        self._folder, self._session = folder.absolute(), self._opened(folder / self._graph)
        self._full: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle it without what onnxruntime holds."""
        return self.__dict__ | {"_session": None, "_full": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._session = self._opened(self._folder / self._graph)

    def _opened(self, graph: Path) -> Any:
        """Return the session of a graph; ValueError if it has not an output for each token."""
        session, tokens = self._open(graph), len(self.token_list)
        outputs = [0, *session.get_outputs()[0].shape][-1]
        if outputs != tokens:
            raise ValueError(
                f"{graph.parent / TOKENS} has {tokens} tokens, but {graph.name} has {outputs} "
                "outputs: copy the whole folder again, or export the model again"
            )
        return session

    def _choose(self, asked: SkipSettings) -> tuple[str, dict[str, Any]]:
        """Return the graph for settings, and what it takes beside the samples."""
        found = self.description
        if asked == SkipSettings():
            asked = found.settings
        if asked.exit_layer is not None:
            if asked.exit_layer != found.exit_layer:
                raise ValueError(
                    f"exit_layer can only be {found.exit_layer}, but got {asked.exit_layer}"
                )
            return STOPPED, {}
        if not found.gates:
            if asked.spike_extension is not None or not asked.over(OFF).full_depth:
                raise ValueError(f"{asked.describe()} needs gates, and the model has none")
            return MODEL, {}
        how = asked.over(found.settings).checked(found.gates)
        thresholds = how.thresholds(found.gates)
        if all(threshold >= 1.0 for threshold in thresholds.values()):
            return FULL, {}
        return MODEL, {
            "blank_threshold": np.array([thresholds[k] for k in found.gates], np.float32),
            "spike_extension": np.array(how.spike_extension, np.int64),
            "min_skipped_frames": np.array(how.min_skipped_frames or 0, np.int64),
        }

    @property
    def sample_rate(self) -> int:
        """Rate in Hz of the audio that the model takes."""
        return self.description.sample_rate

    @property
    def frame_seconds(self) -> float:
        """Duration of an encoder frame in seconds."""
        return self.description.frame / self.sample_rate

    @property
    def longest_whole(self) -> float:
        """Seconds above which audio is cut; may be infinite."""
        plan = self._segmentation
        return math.inf if plan is None else plan.longest_whole / self.sample_rate

    def preprocess(self, utt_id: str, samples: Samples) -> Samples:
        """Return the samples: nothing has to be done to them."""
        return samples

    def __call__(self, speech: Samples) -> list[Any]:
        """Return the n-best list of (text, token, token_int, hypothesis) of samples (N,)."""
        return self.recognize([speech], ["utterance"])[0].nbest

    def recognize(
        self,
        speech: Sequence[Samples],
        utt_ids: Sequence[str] | None = None,
        batch_size: int | None = None,
    ) -> list[Recognized]:
        """Transcribe several utterances, in batches of similar length.

        Args:
            speech: Samples (N_i,) of each, float in [-1, 1].
            utt_ids: Their names for warnings and errors.
            batch_size: Utterances of a batch; None = all in one, and of a long one a segment.

        Raises:
            ValueError: For samples of another shape, or more than the graph takes.
        """
        names = names_of(speech, utt_ids)
        out: dict[int, Recognized] = {}
        whole: list[int] = []
        speech = [as_array(check_samples(x, name)) for x, name in zip(speech, names, strict=True)]
        for i, (wave, name) in enumerate(zip(speech, names, strict=True)):
            if self._segmentation is not None and len(wave) > self._segmentation.longest_whole:
                out[i] = self.recognize_blocks([wave], name, batch_size or 1)
            elif self._long_enough(len(wave), name):
                whole.append(i)
            else:
                out[i] = self._recognized([Hypothesis()], SkipCount(), 0.0)
        size = max(1, len(whole)) if batch_size is None else batch_size
        for places in by_length([len(speech[i]) for i in whole], size):
            batch = [whole[n] for n in places]
            seconds, parts = self.encode([speech[i] for i in batch])
            for i, part in zip(batch, parts, strict=True):
                stream = self.decoder.stream()
                stream.accept(part.log_probs, part.keep_mask)
                count = part.count(self.description.num_layers)
                out[i] = self._recognized(stream.finish(), count, seconds / len(batch))
        return [out[i] for i in range(len(speech))]

    def recognize_blocks(
        self,
        blocks: Iterable[Samples],
        utt_id: str = "utterance",
        batch_size: int = 1,
        prepare: Callable[[Samples], Samples] | None = None,
    ) -> Recognized:
        """Transcribe one utterance of any length in bounded memory.

        Args:
            blocks: Its samples (N_i,), one after the other.
            utt_id: Its name for errors and warnings.
            batch_size: Segments to encode together.
            prepare: What to do with the samples of each segment.
        """
        blocks = (as_array(check_samples(block, utt_id)) for block in blocks)
        if self._segmentation is None:
            whole = np.concatenate([np.zeros(0, np.float32), *blocks])
            return self.recognize([whole], [utt_id])[0]
        waves = self._segmentation.cut(blocks)
        if prepare is not None:
            waves = map(prepare, waves)
        stream, count, spent = self.decoder.stream(), SkipCount(), [0.0]
        parts = self._encoded(waves, check_batch_size(batch_size), utt_id, spent)
        for part in self._segmentation.stitch(parts):
            stream.accept(part.log_probs, part.keep_mask)
            count += part.count(self.description.num_layers)
        return self._recognized(stream.finish(), count, spent[0])

    def _encoded(
        self, waves: Iterator[Samples], batch_size: int, name: str, spent: list[float]
    ) -> Iterator[Posteriors]:
        """Yield the posteriors of segments; add the time to ``spent``."""
        while batch := list(islice(waves, batch_size)):
            # one that is too short is all there is: others are longer than an overlap
            if batch := [wave for wave in batch if self._long_enough(len(wave), name)]:
                seconds, parts = self.encode(batch)
                spent[0] += seconds
                yield from parts

    def _long_enough(self, num_samples: int, name: str) -> bool:
        found = self.description
        if num_samples > found.longest:
            raise ValueError(
                f"{name} has {num_samples / found.sample_rate:.1f} s, and the exported graph takes "
                f"up to {found.longest / found.sample_rate:g} s: let segment_size cut it, or "
                "export with a larger --longest"
            )
        if num_samples < found.shortest:
            logger.warning(
                "%s has %d samples and is too short, %d are needed: its transcript is empty",
                name,
                num_samples,
                found.shortest,
            )
        return num_samples >= found.shortest

    def encode(self, waves: Sequence[Samples]) -> tuple[float, list[Posteriors]]:
        """Return the seconds that a batch took, and the posteriors of each utterance."""
        lens = np.array([len(wave) for wave in waves], np.int64)
        speech = np.zeros((len(waves), lens.max()), np.float32)
        for row, wave in zip(speech, waves, strict=True):
            row[: len(wave)] = wave
        began = time.perf_counter()
        session, inputs = self._session, self._inputs
        frames = speech.shape[1] // self.description.frame + 1  # of the encoder, at most
        if is_short(frames, inputs.get("min_skipped_frames", 0)):
            session, inputs = self._full_depth(), {}  # all frames go on; the gate is not asked
        inputs = {"speech": speech, "speech_lengths": lens, **inputs}
        log_probs, lengths, *more = session.run(None, inputs)
        seconds = time.perf_counter() - began
        parts = []
        for i, n in enumerate(lengths):
            depth = more[0][i, :n] if more else None
            keep = None if depth is None else depth == self.description.num_layers
            if self._graph == STOPPED:
                depth = np.full(n, self.description.exit_layer)
            parts.append(Posteriors(log_probs[i, :n], keep, depth))
        return seconds, parts

    def _full_depth(self) -> Any:
        """Return the session at full depth, opened when it is first needed."""
        if self._full is None:
            self._full = self._opened(self._folder / FULL)
        return self._full

    def _recognized(
        self, hyps: Sequence[Hypothesis], count: SkipCount, seconds: float
    ) -> Recognized:
        return Recognized([self._entry(h) for h in hyps[: self.nbest]], None, count, seconds)

    def _entry(self, hyp: Hypothesis) -> tuple[str, list[str], list[int], Hypothesis]:
        """Return the four of ESPnet's n-best list; the hypothesis with its strings and times."""
        token = [self.token_list[i] for i in hyp.token_int]
        text, kind = self._text(token), self.description.token_type
        starts, ends = (
            [frame * self.frame_seconds for frame in frames]
            for frames in (hyp.token_frames, hyp.token_ends)
        )
        words = word_times(token, starts, ends, kind, hyp.token_probs, self.confidence_temperature)
        hyp = replace(hyp, token=token, text=text, token_times=starts, words=words)
        return text, token, hyp.token_int, hyp

    def _text(self, token: Sequence[str]) -> str:
        """Return the transcript that tokens stand for, as ESPnet's tokenizers give it."""
        if self.description.token_type == "word":
            return " ".join(token)
        if self.description.token_type == "bpe":
            return "".join(token).replace(WORD_START, " ").strip(" ")
        return "".join(" " if t == SPACE else t for t in token)

    def _spell(self, word: str) -> list[str]:
        """Return the tokens of a word of a lexicon that does not spell it."""
        if self.description.token_type == "bpe":
            raise ValueError(
                f"the lexicon does not spell {word!r}: with word pieces an exported model needs "
                "lines 'WORD PIECE PIECE ...'"
            )
        return [word] if self.description.token_type == "word" else list(word)


def load_model(
    path: str | Path, model_file: str | Path | None = None, **options: Any
) -> Speech2Text:
    """Build a Speech2Text from the folder of an export; as the function for trained models.

    Args:
        path: The folder.
        model_file: None: an export has no checkpoints to choose from.
        options: Those of Speech2Text.

    Raises:
        ValueError: If something does not fit.
    """
    if model_file is not None:
        raise ValueError(f"--model-file is for trained models, but {path} is an exported one")
    if "ctc_weight" in options:
        raise ValueError("ctc_weight is for ESPnet's search, which an exported model has not")
    return Speech2Text(path, flush_denormals=True, **options)
