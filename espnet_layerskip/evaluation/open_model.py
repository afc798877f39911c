"""Open any trained ESPnet model for skipping: our encoder class over its modules, its heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_layerskip.encoders.convert import make_ours, stock_of, to_stock
from espnet_layerskip.evaluation.experiment import Experiment, chosen_by
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.inference.speech2text import load_model
from espnet_layerskip.method.settings import SkipSettings, can_skip
from espnet_layerskip.training.checkpoint import file_digest

# A gate above more of the layers than this has too little left to save.
TOO_DEEP = 0.75


@dataclass(frozen=True)
class OpenedModel(Experiment):
    """A loaded model, ready for gates at any layer that has a trained CTC head.

    Its Speech2Text has the encoder in our class (in its fast form, if it has one) with a gate,
    turned off, after each layer of ``gates``; or in ESPnet's class.

    Attributes:
        source: What was asked for: experiment directory, zip or tag.
        stock_class: Name of ESPnet's encoder class, or of one that we do not know.
        num_layers: Encoder layers L; 0 for an encoder of another kind.
        trained: 1-based layers whose intermediate CTC was trained.
        gates: Layers that the encoder has gates at: those asked for, or ``trained``.
        own_settings: How the model's own gates skip, as calibrated, else as configured; None
            for a model without gates.
        no_ours: Why the encoder has no class of ours; "" = it has one.
        no_gates: Why the model can have no gate at all; "" = it can.
        no_fast: Why the encoder has no fast form; "" = it has one.
    """

    source: str
    stock_class: str
    num_layers: int
    trained: tuple[int, ...]
    gates: tuple[int, ...]
    own_settings: SkipSettings | None
    no_ours: str
    no_gates: str
    no_fast: str

    @property
    def has_ctc(self) -> bool:
        """False if the model was trained with ``ctc_weight: 0.0``."""
        return getattr(self.model, "ctc", None) is not None

    @property
    def has_decoder(self) -> bool:
        """True for a hybrid model: an attention decoder beside the CTC head."""
        return getattr(self.model, "decoder", None) is not None

    @property
    def usable(self) -> tuple[int, ...]:
        """Gates that are not too deep to save anything worth having."""
        return tuple(k for k in self.gates if k <= TOO_DEEP * self.num_layers)

    def stock(self) -> System:
        """Return ESPnet's encoder class over the same modules, as a system to measure.

        It returns no intermediate states unless it conditions itself on them: they would cost
        time and change no transcript.
        """
        if self.no_ours:
            return System(self)
        encoder = to_stock(self.encoder)
        if not getattr(encoder, "interctc_use_conditioning", False):
            encoder.interctc_layer_idx = []
        return System(self, encoder=encoder)


def open_model(
    source: str | Path,
    model_file: str | None = None,
    gates: Sequence[int] | None = None,
    **options: Any,
) -> OpenedModel:
    """Load a model of ESPnet's or ours, and put its encoder into our class; writes nothing.

    Args:
        source: Experiment directory, zip of ``espnet2.bin.pack``, or tag of espnet_model_zoo.
        model_file: Checkpoint; None = the default one.
        gates: 1-based layers to put gates after, with or without a trained head; None = all
            layers that have one.
        options: More arguments of `espnet_layerskip.Speech2Text`; the decoder is greedy and
            audio is not cut into segments, unless they say otherwise.

    Raises:
        ValueError: If the model cannot be found or loaded, or cannot have the gates asked for.
    """
    usual = {"decoder_type": "greedy", "segment_size": "off", "blank_threshold": "auto"}
    speech2text = load_model(source, model_file, **(usual | options))
    assert speech2text.model_files is not None
    model, weights = speech2text.asr_model, speech2text.model_files.model_file
    encoder, chosen = model.encoder, chosen_by(speech2text)
    own = encoder.settings if can_skip(encoder) else None
    trained = trained_layers(model)
    num_layers = len(getattr(encoder, "encoders", ()))
    obstacles = enable(model, trained if gates is None else _checked(gates, num_layers))
    if gates is not None and obstacles["no_gates"]:
        raise ValueError(
            f"{source} cannot have gates after layers {list(gates)}: {obstacles['no_gates']}"
        )
    return OpenedModel(
        speech2text=speech2text,
        checkpoint=weights.name,
        sha256=file_digest(weights),
        chosen=chosen,
        source=str(source),
        stock_class=stock_of(encoder).__name__,
        num_layers=num_layers,
        trained=trained,
        gates=tuple(getattr(model.encoder, "gate_layer_idx", ())),
        own_settings=own,
        **obstacles,
    )


def trained_layers(model: Any) -> tuple[int, ...]:
    """Return the 1-based encoder layers whose CTC head was trained for the transcript.

    These are ESPnet's ``interctc_layer_idx`` if ``interctc_weight`` is not 0 (but for layers that
    ``aux_ctc`` trains on other labels), and the gates of our models.

    Args:
        model: ESPnet ASR model, stock or ours.
    """
    encoder, ctc = model.encoder, getattr(model, "ctc", None)
    if ctc is None:
        return ()
    auxiliary = {str(layer) for layer in getattr(model, "aux_ctc", None) or ()}
    found = set(getattr(encoder, "gate_layer_idx", ()))
    if getattr(model, "interctc_weight", 0.0):
        layers = getattr(encoder, "interctc_layer_idx", None) or ()
        found |= {layer for layer in layers if str(layer) not in auxiliary}
    return tuple(sorted(found))


def enable(model: Any, gates: Sequence[int]) -> dict[str, str]:
    """Put the encoder of a model into our class, in place: fast form, gates that are off.

    Args:
        model: ESPnet ASR model in evaluation mode, stock or ours.
        gates: 1-based layers to put gates after, where the model can have any.

    Returns:
        Why not, in words, "" = nothing stands in the way: "no_ours", "no_gates", "no_fast" as of
        `OpenedModel`.
    """
    encoder, off = model.encoder, {"blank_threshold": 1.0, "skip_context": "packed"}
    no_gates = ""
    if getattr(encoder, "_stock_trim", getattr(encoder, "ctc_trim", False)):
        trim = "its encoder has ctc_trim, which cuts blank frames off in a way of its own"
        return {"no_ours": trim, "no_gates": trim, "no_fast": trim}
    try:
        make_ours(encoder, (), **off)
    except ValueError as e:
        return {"no_ours": str(e), "no_gates": str(e), "no_fast": str(e)}
    if getattr(model, "ctc", None) is None:
        no_gates = "it has no CTC head (ctc_weight: 0.0), which the gates ask"
    elif getattr(model, "postencoder", None) is not None:
        no_gates = "it has a postencoder between the encoder and the CTC head"
    else:
        try:
            make_ours(encoder, gates or (1,), **off)
        except ValueError as e:
            no_gates = str(e)
        if not gates and not no_gates:
            make_ours(encoder, (), **off)
    no_fast = ""
    try:
        encoder.optimize_for_inference()
    except ValueError as e:
        no_fast = str(e)
    return {"no_ours": "", "no_gates": no_gates, "no_fast": no_fast}


def contexts_of(encoder: Any) -> list[str]:
    """Return the contexts to try, the most careful one first; "packed" if no other works."""
    found = []
    for context in ("full", "packed_original"):
        try:
            encoder.check_context(context)
            found.append(context)
        except ValueError:
            continue
    return found or ["packed"]


def _checked(gates: Sequence[int], num_layers: int) -> Sequence[int]:
    inside = all(0 < layer < num_layers for layer in gates)
    if num_layers and not (gates and inside):  # another kind of encoder is refused as such
        raise ValueError(
            f"gates must be layers between 1 and {num_layers - 1} (the encoder has {num_layers}; "
            f"a gate after the last one saves nothing), but got {list(gates)}"
        )
    return gates
