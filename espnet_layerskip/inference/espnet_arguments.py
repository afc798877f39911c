"""Arguments for ESPnet's Speech2Text, fitted to the version and to the model."""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espnet_layerskip.decoding.make_decoder import check_used
from espnet_layerskip.files import read_yaml
from espnet_layerskip.inference.batches import is_out_of_memory
from espnet_layerskip.method.settings import check_count
from espnet_layerskip.training.checkpoint import read_tensors
from espnet_layerskip.training.device import check_device

logger = logging.getLogger(__name__)

# Arguments that one of the supported ESPnet versions lacks, with the value that means "as
# the version that lacks it behaves".
_VERSIONED = {"ctc_window_margin": 0}
# Only ESPnet's search heeds these; with the values that change nothing, ESPnet's default first.
_OF_ESPNETS_SEARCH = {
    "ctc_weight": (0.5, 1.0),
    "lm_weight": (1.0,),
    "maxlenratio": (0.0,),
    "minlenratio": (0.0,),
}
_NOT_OURS = ("enh_s2t_task", "multi_asr", "hugging_face_decoder")


def training_config(asr_train_config: Path | str | None, asr_model_file: Path | str | None) -> Path:
    """Return the path of the training configuration.

    Raises:
        ValueError: If there is none.
    """
    if asr_train_config is None and asr_model_file is None:
        raise ValueError("asr_train_config or asr_model_file is needed, but got neither")
    config = Path(asr_train_config or Path(str(asr_model_file)).parent / "config.yaml")
    if config.is_dir():
        raise ValueError(f"{config} is a directory: Speech2Text.from_pretrained() takes those")
    if not config.is_file():
        raise ValueError(f"no training configuration {config}: give asr_train_config")
    return config


@contextmanager
def buildable(config: Path) -> Iterator[None]:
    """Name the configuration, where ESPnet raises whatever it may because of it.

    Raises:
        ValueError: With what ESPnet said. An error of the device or the memory stays as it is,
            and so does NotImplementedError.
    """
    try:
        yield
    except (MemoryError, ImportError, NotImplementedError):
        raise
    except Exception as e:
        if isinstance(e, RuntimeError) and (is_out_of_memory(e) or "CUDA" in str(e)):
            raise
        what = " ".join(str(e).split()) or "it says nothing"
        raise ValueError(
            f"{config}: nothing can be built of it with these options ({type(e).__name__}: {what})"
            ": use the config.yaml of the training, whole and unchanged"
        ) from e


def espnet_arguments(constructor: Any, kwargs: dict[str, Any], config: Path) -> dict[str, Any]:
    """Return what to pass on to ESPnet's constructor.

    Args:
        constructor: ESPnet's Speech2Text.
        kwargs: What the caller gave beside our own arguments.
        config: Training configuration.

    Raises:
        ValueError: For what this version or our class does not support.
        TypeError: For an unknown argument.
    """
    kwargs = dict(kwargs)
    known = inspect.signature(constructor.__init__).parameters
    for name in _NOT_OURS:
        if kwargs.get(name):
            raise ValueError(
                f"{name} is not supported here: use espnet2.bin.asr_inference "
                "(python -m espnet_layerskip -m espnet2.bin.asr_inference)"
            )
    for name, neutral in _VERSIONED.items():
        value = kwargs.pop(name, neutral)
        if name in known:
            kwargs[name] = value
        elif value != neutral:
            raise ValueError(f"{name}={value} needs a newer ESPnet: leave it at {neutral}")
    if "device" in kwargs:  # torch.device, too
        kwargs["device"] = str(kwargs["device"])
    check_device(kwargs.get("device", "cpu"), str(kwargs.get("dtype", "float32")))
    if "batch_size" not in known:  # 202511 searches one utterance at a time
        kwargs.pop("batch_size", None)
    for name in kwargs:
        if name not in known:
            raise TypeError(f"unknown argument {name!r}; known are {', '.join(list(known)[1:])}")
    if kwargs.get("ngram_file") and importlib.util.find_spec("kenlm") is None:
        raise ValueError(
            "ngram_file in ESPnet's own beam search needs: pip install kenlm (decoder_type ngram "
            "reads an ARPA file without it)"
        )
    if lm_file := kwargs.get("lm_file"):
        read_tensors(lm_file)  # ESPnet loads it itself: 202511 would unpickle anything
    model_conf = read_yaml(config).get("model_conf") or {}
    if model_conf.get("ctc_weight") == 1.0 and kwargs.get("ctc_weight", 0.5) != 1.0:
        # there is no attention decoder, and with a share left for it ESPnet pre-selects
        # tokens by scores that are all zero
        logger.info("the model has no attention decoder: ctc_weight=1.0")
        kwargs["ctc_weight"] = 1.0
    return kwargs


def take_search_arguments(
    decoder_type: str, kwargs: dict[str, Any], lexicon: Path | str | None = None
) -> dict[str, Any]:
    """Take what is meant for a search of ours out of ESPnet's arguments.

    Args:
        decoder_type: What decodes.
        kwargs: Arguments of ESPnet's Speech2Text; changed in place.
        lexicon: The option.

    Returns:
        Arguments of :func:`~.make_decoder.make_decoder`; none for "espnet".

    Raises:
        ValueError: For an option that this decoder cannot use.
    """
    for name in ("beam_size", "nbest"):
        check_count(name, kwargs.get(name, 1))
    names = ("ngram_file", "penalty", "lm_file")
    check_used(decoder_type, lexicon=lexicon, **{name: kwargs.get(name) for name in names})
    if decoder_type == "espnet":
        return {}
    given = {name: kwargs[name] for name in _OF_ESPNETS_SEARCH if kwargs.get(name) is not None}
    unheeded = [f"{name} {v}" for name, v in given.items() if v not in _OF_ESPNETS_SEARCH[name]]
    if decoder_type == "greedy" and kwargs.get("nbest", 1) > 1:
        unheeded.append(f"nbest {kwargs['nbest']}")
    if unheeded:
        logger.warning(
            "decoder_type %s does not heed %s (decoder_type espnet does)",
            decoder_type,
            ", ".join(unheeded),
        )
    for name in ("lm_file", "lm_train_config", "batch_size"):  # ESPnet asks if its own could batch
        kwargs.pop(name, None)
    wanted = ("ngram_file", "ngram_weight", "penalty", "beam_size")
    search = {name: kwargs.pop(name) for name in wanted if kwargs.get(name) is not None}
    kwargs.pop("ngram_file", None)
    return search
