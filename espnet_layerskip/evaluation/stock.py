"""The rivals: the same weights in ESPnet's own classes, and stock weights in our fast form."""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from espnet_layerskip._compat import ConformerEncoder, ESPnetASRModel
from espnet_layerskip.encoders.conformer import LayerSkipConformerEncoder
from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.settings import OFF, SkipSettings
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.inference.speech2text import ESPnetSpeech2Text
from espnet_layerskip.training.checkpoint import load_state


def stock_class(system: System) -> System:
    """Return the same weights in ESPnet's own ConformerEncoder.

    Raises:
        ValueError: If the system's encoder is not a Conformer, or its weights do not fit, for
            instance those of ``stem_channels``.
    """
    stock = ConformerEncoder(_input_size(system.model), **_stock_conf(system))
    if getattr(system.encoder, "conditioning_layer", None) is not None:
        stock.conditioning_layer = copy.deepcopy(system.encoder.conditioning_layer)
    load_state(stock, system.encoder.state_dict(), system.experiment.checkpoint)
    return System(system.experiment, SkipSettings(), stock.eval())


def fast_class(system: System) -> System:
    """Return the weights of a stock encoder in our encoder's fast form, without a gate.

    A shallower stock network that could run as fast as ours does is the rival that counts.

    Raises:
        ValueError: If the encoder is not a Conformer or has no fast form.
    """
    fast = LayerSkipConformerEncoder(_input_size(system.model), **_stock_conf(system))
    fast.conditioning_layer = copy.deepcopy(getattr(system.encoder, "conditioning_layer", None))
    load_state(fast, system.encoder.state_dict(), system.experiment.checkpoint)
    fast.eval().optimize_for_inference()
    return System(system.experiment, OFF, fast)


def stock_speech2text(experiment: Experiment, **search: Any) -> Any:
    """Return ESPnet's own Speech2Text with the weights of an experiment, CTC only.

    Model, encoder and search are ESPnet's classes with ESPnet's defaults. So is the CTC head,
    unless it is factorized: ESPnet has no such head, so ours is put in its place.

    Args:
        experiment: Stock, or with a layer-skipping Conformer.
        search: Arguments of ESPnet's Speech2Text, for instance ``beam_size``.

    Raises:
        ValueError: If the weights do not fit ESPnet's classes.
    """
    ours = experiment.speech2text
    _check_conformer(experiment.encoder)
    config = yaml.safe_load(Path(ours.model_files.train_config).read_text(encoding="utf-8"))
    config["encoder"], config["model"] = "conformer", "espnet"
    config["encoder_conf"] = _known(ConformerEncoder, config.get("encoder_conf") or {})
    config["model_conf"] = _known(ESPnetASRModel, config.get("model_conf") or {})
    with tempfile.TemporaryDirectory(prefix="espnet_layerskip_") as directory:
        path = Path(directory) / "config.yaml"
        path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        stock = ESPnetSpeech2Text(asr_train_config=path, ctc_weight=1.0, **search)
    state = {
        name: value
        for name, value in ours.asr_model.state_dict().items()
        if not name.startswith(("encoder.", "ctc.interctc_lo."))
    }
    state |= {f"encoder.{name}": v for name, v in experiment.encoder.state_dict().items()}
    load_state(stock.asr_model, state, experiment.checkpoint)
    if getattr(ours.asr_model.ctc, "head_type", "plain") == "factorized":
        stock.asr_model.ctc = copy.deepcopy(ours.asr_model.ctc)
        stock.beam_search.scorers["ctc"].ctc = stock.asr_model.ctc
    return stock


def _stock_conf(system: System) -> dict[str, Any]:
    _check_conformer(system.encoder)
    return _known(ConformerEncoder, system.experiment.speech2text.asr_train_args.encoder_conf)


def _known(cls: type, conf: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a class of ESPnet has.

    Without self-conditioning the intermediate outputs are left out: they would cost stock
    ESPnet time and change nothing of its transcripts.
    """
    known = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    kept = {name: value for name, value in conf.items() if name in known}
    if cls is ConformerEncoder and not kept.get("interctc_use_conditioning"):
        kept.pop("interctc_layer_idx", None)
    return kept


def _check_conformer(encoder: Any) -> None:
    if not isinstance(encoder, ConformerEncoder):
        raise ValueError(f"{type(encoder).__name__} is not a Conformer: no stock class fits")


def _input_size(model: Any) -> int:
    for module in (model.preencoder, model.frontend):
        if module is not None:
            return int(module.output_size())
    raise ValueError("the model has neither frontend nor pre-encoder: its input size is unknown")
