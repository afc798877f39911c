"""Experiments to measure: a trained model as its folder says, loaded once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_layerskip.evaluation.settings import SkipSettings, can_skip
from espnet_layerskip.inference.speech2text import load_model
from espnet_layerskip.training.checkpoint import file_digest


@dataclass(frozen=True)
class Experiment:
    """A loaded experiment.

    Attributes:
        speech2text: `espnet_layerskip.Speech2Text`.
        encoder: Its encoder, as it was loaded.
        stored: Its skipping settings: as calibrated, else as configured.
        chosen: Which of the two, in words.
        checkpoint: File name of its weights.
        sha256: Of that file, as ``sha256sum`` prints it.
    """

    speech2text: Any
    encoder: Any
    stored: SkipSettings
    checkpoint: str
    sha256: str
    chosen: str


def load_experiment(
    exp: str | Path, model_file: str | None = None, decoder_type: str = "greedy", **kwargs: Any
) -> Experiment:
    """Load an experiment folder (or a packed zip), for greedy decoding unless told otherwise.

    It skips as it was calibrated, as ``transcribe`` does. Where calibration has turned skipping
    off it skips as configured: who measures wants to see what that gives.

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
    assert speech2text.model_files is not None
    weights = speech2text.model_files.model_file
    encoder = speech2text.asr_model.encoder
    return Experiment(
        speech2text,
        encoder,
        SkipSettings().resolved(encoder),
        weights.name,
        file_digest(weights),
        chosen,
    )
