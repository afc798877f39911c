"""Experiments to measure: a trained model as its folder says, loaded once and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.encoders.convert import make_stock
from espnet_layerskip.inference.speech2text import load_model
from espnet_layerskip.method.settings import SkipSettings, can_skip
from espnet_layerskip.training.checkpoint import file_digest


@dataclass(frozen=True)
class Experiment:
    """A loaded experiment.

    Attributes:
        speech2text: `espnet_layerskip.Speech2Text`; its encoder skips as calibrated, else as
            configured.
        checkpoint: File name of its weights.
        sha256: Of that file, as ``sha256sum`` prints it.
        chosen: Where its skipping settings come from, in words.
    """

    speech2text: Any
    checkpoint: str
    sha256: str
    chosen: str

    @property
    def model(self) -> Any:
        """The ESPnet model."""
        return self.speech2text.asr_model

    @property
    def encoder(self) -> Any:
        """The model's encoder."""
        return self.model.encoder

    @property
    def settings(self) -> SkipSettings:
        """How it skips: a whole record; OFF for an encoder without gates."""
        return SkipSettings().resolved(self.encoder)


def load_experiment(
    exp: str | Path, model_file: str | None = None, decoder_type: str = "greedy", **kwargs: Any
) -> Experiment:
    """Load an experiment folder (or a packed zip), for greedy decoding unless told otherwise.

    A stock encoder stays in ESPnet's class. One of ours skips as it was calibrated, as
    ``transcribe`` does. Where calibration has turned skipping off it skips as configured: who
    measures wants to see what that gives.

    Args:
        exp: Folder with ``config.yaml`` and ``*.pth``, or zip.
        model_file: Checkpoint name; None takes the first that
            `espnet_layerskip.inference.pretrained.find_model` looks for.
        decoder_type: As in `espnet_layerskip.Speech2Text`.
        kwargs: More of its arguments.

    Raises:
        ValueError: If something is missing or does not fit.
    """
    kwargs = {"decoder_type": decoder_type, "blank_threshold": "auto", **kwargs}
    speech2text = load_model(exp, model_file, **kwargs)
    gated = can_skip(speech2text.asr_model.encoder)
    calibration, chosen = speech2text.calibration, "as configured" if gated else "none"
    if calibration is not None:
        chosen = f"calibrated: {calibration.describe()}"
        if calibration.is_off:
            chosen += "; here as configured"
            speech2text = load_model(exp, model_file, **{**kwargs, "blank_threshold": None})
    encoder, configured = speech2text.asr_model.encoder, speech2text.asr_train_args.encoder
    if configured not in ENCODERS and isinstance(encoder, LayerSkipEncoder):
        make_stock(encoder)  # Speech2Text has made it ours, to be fast
    assert speech2text.model_files is not None
    weights = speech2text.model_files.model_file
    return Experiment(speech2text, weights.name, file_digest(weights), chosen)
