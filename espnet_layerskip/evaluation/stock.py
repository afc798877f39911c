"""The rivals: the same weights in ESPnet's own classes, and stock weights in our fast form."""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from espnet_layerskip._compat import ESPnetASRModel, asr_task
from espnet_layerskip.encoders.convert import from_stock, stock_of
from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.inputs import Speech
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.files import read_yaml
from espnet_layerskip.inference.audio import AudioBlocks, Utterance
from espnet_layerskip.inference.skip_count import SkipCount
from espnet_layerskip.inference.speech2text import ESPnetSpeech2Text
from espnet_layerskip.training.checkpoint import load_state


class StockSearch:
    """ESPnet's Speech2Text as a system of the end-to-end scope.

    Args:
        speech2text: Of ESPnet's class.
    """

    def __init__(self, speech2text: Any):
        self.speech2text = speech2text
        self.model: Any = speech2text.asr_model
        self.encoder: Any = self.model.encoder

    def describe(self) -> str:
        """Return the classes that run, in one line."""
        search = self.speech2text.beam_search
        parts = (self.model, self.encoder, self.model.ctc, search)
        classes = ", ".join(type(part).__name__ for part in parts)
        name = type(self.speech2text).__name__
        described = f"ESPnet's {name}: {classes}, beam {search.beam_size}"
        if margin := getattr(search.scorers["ctc"], "window_margin", 0):  # ESPnet 202611's default
            described += f", ctc_window_margin {margin}"
        return described

    def recognize(self, utterances: Sequence[Utterance]) -> Any:
        """Transcribe files in one batch, as ESPnet does.

        Raises:
            ValueError: For several files, if this ESPnet takes one at a time.
        """
        batched = getattr(self.speech2text, "batch_decode", None)
        if len(utterances) > 1 and batched is None:
            raise ValueError("this version of ESPnet decodes one utterance at a time")
        waves = [AudioBlocks(utterance, None).read() for utterance in utterances]
        return batched(waves) if batched and len(waves) > 1 else self.speech2text(waves[0])

    def transcribe(self, speech: Speech) -> tuple[str, SkipCount, int]:
        """Return the transcript of one utterance; nothing else is counted.

        Raises:
            TooShortUttError: If it is too short for the encoder.
        """
        found = self.speech2text(speech.samples)
        nbest = found[0] if isinstance(found, tuple) else found
        return nbest[0][0] or "", SkipCount(), 0

    def skips_of(self, speech: Sequence[Speech]) -> SkipCount:
        """Return what a batch of speech skips: nothing."""
        return SkipCount()


def stock_class(experiment: Experiment, **options: Any) -> System:
    """Return the same weights in the encoder class of ESPnet.

    Args:
        experiment: Gives the weights.
        options: Of the class, for instance ``use_sdpa`` of ESPnet 202611.

    Raises:
        ValueError: If there is no such class, or the weights do not fit it, for instance those of
            ``stem_channels``.
    """
    stock = stock_speech2text(experiment, encoder_conf=options)
    return System(experiment, encoder=stock.asr_model.encoder)


def fast_class(experiment: Experiment) -> System:
    """Return the weights of a stock encoder in our encoder's fast form, without a gate.

    A shallower stock network that could run as fast as ours does is the rival that counts.

    Raises:
        ValueError: If there is no class of ours for the encoder, or it has no fast form.
    """
    fast = from_stock(experiment.encoder)
    fast.optimize_for_inference()
    return System(experiment, encoder=fast)


def stock_options(experiment: Experiment) -> Mapping[str, Any]:
    """Return the options of the encoder's class of ESPnet, by name."""
    return inspect.signature(stock_of(experiment.encoder).__init__).parameters  # type: ignore[misc]


def stock_speech2text(
    experiment: Experiment, encoder_conf: Mapping[str, Any] | None = None, **search: Any
) -> Any:
    """Return ESPnet's own Speech2Text with the weights of an experiment, CTC only.

    Model, encoder and search are ESPnet's classes with ESPnet's defaults. So is the CTC head,
    unless it is factorized: ESPnet has no such head, so ours is put in its place.

    Args:
        experiment: With an encoder of ESPnet's, or a layer-skipping one.
        encoder_conf: More options of the encoder's class.
        search: Arguments of ESPnet's Speech2Text, for instance ``beam_size``.

    Raises:
        ValueError: If the weights do not fit ESPnet's classes.
    """
    ours, encoder = experiment.speech2text, experiment.encoder
    cls = stock_of(encoder)
    [known] = [c.classes for c in asr_task().class_choices_list if c.name == "encoder"]
    names = [name for name, one in known.items() if one is cls]
    if not names:
        raise ValueError(f"{cls.__name__} is not an encoder of ESPnet: no stock class fits")
    config = read_yaml(ours.model_files.train_config)
    config["encoder"], config["model"] = names[0], "espnet"
    conf = {**(config.get("encoder_conf") or {}), **(encoder_conf or {})}
    config["encoder_conf"] = _known(cls, conf)
    config["model_conf"] = _known(ESPnetASRModel, config.get("model_conf") or {})
    if not config["encoder_conf"].get("interctc_use_conditioning"):
        # intermediate outputs would cost stock ESPnet time and change nothing of its transcripts
        config["encoder_conf"].pop("interctc_layer_idx", None)
    with tempfile.TemporaryDirectory(prefix="espnet_layerskip_") as directory:
        path = Path(directory) / "config.yaml"
        path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        stock = ESPnetSpeech2Text(asr_train_config=path, ctc_weight=1.0, **search)
    state = {
        name: value
        for name, value in experiment.model.state_dict().items()
        if not name.startswith("ctc.interctc_lo.")
    }
    load_state(stock.asr_model, state, experiment.checkpoint)
    if getattr(experiment.model.ctc, "head_type", "plain") == "factorized":
        stock.asr_model.ctc = copy.deepcopy(experiment.model.ctc)
        stock.beam_search.scorers["ctc"].ctc = stock.asr_model.ctc
    return stock


def _known(cls: type, conf: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a class of ESPnet has."""
    known = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    return {name: value for name, value in conf.items() if name in known}
