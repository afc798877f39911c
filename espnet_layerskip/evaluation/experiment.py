"""Experiments to measure: a trained model as its folder says, loaded once and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_layerskip.encoders import ENCODERS
from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.encoders.convert import make_stock
from espnet_layerskip.evaluation.scoring import Split, characters
from espnet_layerskip.files import read_yaml
from espnet_layerskip.inference.pretrained import find_model, is_model_tag
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
    def tokens(self) -> Split:
        """Splits a transcript into the model's own tokens."""
        tokenizer = self.speech2text.tokenizer
        return characters if tokenizer is None else tokenizer.text2tokens  # type: ignore[no-any-return]

    @property
    def settings(self) -> SkipSettings:
        """How it skips: a whole record; OFF for an encoder without gates."""
        return SkipSettings().resolved(self.encoder)


def read_config(exp: str | Path, model_file: str | None = None) -> dict[str, Any]:
    """Return the training configuration of an experiment: a folder, a packed zip or a tag.

    Args:
        exp: As of `find_model`.
        model_file: Checkpoint name; None takes the default.

    Raises:
        ValueError: If it is no experiment; says what to do.
    """
    path = Path(exp)
    packed = path.is_file() or (path / "meta.yaml").is_file()
    if packed or (not path.exists() and is_model_tag(str(exp))):
        files = find_model(exp, model_file)  # holds what was unpacked
        return read_yaml(files.train_config)
    config_file = path / "config.yaml"
    if not config_file.is_file():
        raise ValueError(
            f"{exp} is not an experiment: there is no {config_file}; train it first (stage 11 of "
            "the recipe), or name the folder that the training wrote, a packed zip or a model tag"
        )
    return read_yaml(config_file)


def chosen_by(speech2text: Any) -> str:
    """Return where the skipping settings of a Speech2Text of ours come from, in words."""
    if speech2text.calibration is not None:
        return f"calibrated: {speech2text.calibration.describe()}"
    return "as configured" if can_skip(speech2text.asr_model.encoder) else "none"


def load_experiment(
    exp: str | Path, model_file: str | None = None, decoder_type: str = "greedy", **kwargs: Any
) -> Experiment:
    """Load an experiment folder (or a packed zip), for greedy decoding unless told otherwise.

    A stock encoder stays in ESPnet's class. One of ours skips as it was calibrated, as
    ``transcribe`` does. Where calibration has turned skipping off it skips as configured: who
    measures wants to see what that gives.

    Args:
        exp: Folder with ``config.yaml`` and ``*.pth``, or zip.
        model_file: Checkpoint name; None takes the first that `find_model` looks for.
        decoder_type: As in `espnet_layerskip.Speech2Text`.
        kwargs: More of its arguments.

    Raises:
        ValueError: If something is missing or does not fit.
    """
    kwargs = {"decoder_type": decoder_type, "blank_threshold": "auto", **kwargs}
    speech2text = load_model(exp, model_file, **kwargs)
    chosen = chosen_by(speech2text)
    if speech2text.calibration is not None and speech2text.calibration.is_off:
        how = speech2text.calibration.describe()
        chosen = f"as configured, to show what skipping gives; calibration says {how}"
        speech2text = load_model(exp, model_file, **{**kwargs, "blank_threshold": None})
    encoder, configured = speech2text.asr_model.encoder, speech2text.asr_train_args.encoder
    if configured not in ENCODERS and isinstance(encoder, LayerSkipEncoder):
        make_stock(encoder)  # Speech2Text has made it ours, to be fast
    assert speech2text.model_files is not None
    weights = speech2text.model_files.model_file
    return Experiment(speech2text, weights.name, file_digest(weights), chosen)
