"""What all layer-skipping encoders share: options, the pass, and the life of the fast form."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch

from espnet_layerskip._compat import PositionwiseFeedForward, signature_with
from espnet_layerskip.encoders import attention, convolution
from espnet_layerskip.encoders.distributed import of_first_process
from espnet_layerskip.encoders.fast_form import HasFastForm
from espnet_layerskip.encoders.loading import LoadsEitherVersion
from espnet_layerskip.encoders.stem import mixes_frames, narrow_stem, subsample
from espnet_layerskip.method.frames import Encoded, Frames, LayerState, join
from espnet_layerskip.method.gate import BlankGate
from espnet_layerskip.method.repeats import make_gate
from espnet_layerskip.method.settings import (
    SkipSettings,
    is_short,
    read_extensions,
    read_gates,
    read_ratio,
)
from espnet_layerskip.method.walk import advance

# Options of every encoder in addition to those of its stock class, with their defaults.
OPTIONS: dict[str, Any] = {
    "stem_channels": 0,
    "gate_layer_idx": [],
    "blank_threshold": 0.9,
    "spike_extension": [1, 1],
    "skip_context": "full",
    "min_spike_ratio": 0.02,
    "train_skip_prob": 0.0,
    "train_spike_extensions": [],
    "repeat_threshold": 1.0,
    "min_skipped_frames": 0,
}
_OWN = (
    *("gate_layer_idx", "train_skip_prob", "train_spike_extensions"),
    *("_settings", "_stock_trim", "_fast", "_loaded", "_hooks"),
)
_VERSIONED = "use_sdpa"  # an option of ESPnet 202611; in 202511 it may be given as false


def _setting(name: str) -> Any:
    """Return an attribute that reads and writes a field of ``settings``."""

    def read(self: LayerSkipEncoder) -> Any:
        return getattr(self.settings, name)

    def write(self: LayerSkipEncoder, value: Any) -> None:
        self.settings = replace(self.settings, **{name: value}).over(self.settings)

    return property(read, write, doc=f"``{name}`` of `SkipSettings`.")


class LayerSkipEncoder(LoadsEitherVersion, HasFastForm):
    """Mixed into a stock ESPnet encoder, it lets blank frames skip the upper layers.

    A subclass names the stock class twice, ``class X(LayerSkipEncoder, Stock): STOCK = Stock``,
    and implements ``run_layer``; see docs/extending.md. Parameter names stay the stock
    ones, so a stock checkpoint loads as it is. With skipping off the output is the stock output.

    Deviation from ESPnet 202511: padded frames are masked everywhere, and the output length of
    an utterance does not depend on its batch neighbours (202611 does so too), because a gate
    must decide the same alone and in a batch.

    Args:
        ...: Those of the stock class, and:
        stem_channels: Channels of the subsampling's convolutions; 0 = ``output_size``, as in
            ESPnet. Its cost falls with their square.
        gate_layer_idx: 1-based layers K after which a gate sits; several make a cascade;
            [] = never skip.
        blank_threshold: A frame is skipped where p(blank) > this; in (0, 1], 1.0 = off. A list
            has one for each gate.
        spike_extension: [left, right] neighbours of each non-blank frame that run too.
        skip_context: What a kept frame sees in the upper layers: "packed" (kept frames
            only, positions = order in the packed sequence), "packed_original" (kept frames
            only, at their original positions), "full" (attention keys/values and the
            convolution's neighbours include the frozen states of skipped frames).
        min_spike_ratio: An utterance with fewer spikes per frame runs at full depth.
        train_skip_prob: Share of training batches in which the gates are applied.
        train_spike_extensions: In training, one of these is drawn for each gated batch;
            [] = always ``spike_extension``.
        repeat_threshold: See `RepeatGate`; 1.0 = off.
        min_skipped_frames: An utterance of which a gate would drop fewer frames runs on whole;
            see `SkipSettings`. 0 = no such rule. Not in training.

    Raises:
        ValueError: For an option out of its range or a combination that cannot work.
    """

    STOCK: ClassVar[Any]
    ADDED: ClassVar[dict[str, Any]] = {}
    """Options that the stock class of another encoder has and this one lacks, with defaults."""
    ATTENTION: ClassVar[str] = "self_attn"
    """Where a layer has its attention."""
    __signature__: ClassVar[inspect.Signature]

    embed: Any  # of the stock class, as what follows
    encoders: Any
    after_norm: Any
    conditioning_layer: Any
    interctc_layer_idx: list[int]
    interctc_use_conditioning: bool
    normalize_before = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the class an explicit signature: ESPnet reads options and defaults from it."""
        super().__init_subclass__(**kwargs)
        known = inspect.signature(cls.STOCK).parameters
        version = {} if _VERSIONED in known else {_VERSIONED: False}
        cls.__signature__ = signature_with(cls.STOCK, {**version, **cls.ADDED, **OPTIONS})

    def __init__(self, *args: Any, **kwargs: Any):
        bound = self.__signature__.bind(*args, **kwargs)
        bound.apply_defaults()
        values = dict(bound.arguments)
        options = {name: values.pop(name) for name in OPTIONS}
        added = {name: values.pop(name) for name in self.ADDED}
        known = inspect.signature(self.STOCK.__init__).parameters
        if _VERSIONED not in known and values.pop(_VERSIONED):
            raise ValueError("use_sdpa needs ESPnet 202611 or newer: set it to false here")
        super().__init__(**values)
        vars(self).update(added)
        if channels := options.pop("stem_channels"):
            narrow_stem(self.embed, channels)
        self.init_skipping(**options)

    def init_skipping(
        self,
        gate_layer_idx: Sequence[int],
        train_skip_prob: float = 0.0,
        train_spike_extensions: Sequence[Sequence[int]] = (),
        **settings: Any,
    ) -> None:
        """Check and store the options of skipping; for a stock encoder made ours, too.

        Args:
            gate_layer_idx: As in the class.
            train_skip_prob: As in the class.
            train_spike_extensions: As in the class.
            settings: Those of `SkipSettings`; what is left out is taken from ``OPTIONS``.

        Raises:
            ValueError: As in the class.
        """
        num_layers, layers = len(self.encoders), read_gates(gate_layer_idx, "gate_layer_idx") or ()
        if any(not 0 < i < num_layers for i in layers):
            raise ValueError(
                f"gate_layer_idx must hold layers between 1 and {num_layers - 1} (1-based; a gate "
                f"after the last layer {num_layers} saves nothing), but got {list(layers)}"
            )
        trim = bool(getattr(self, "ctc_trim", False))
        if layers and trim:
            raise ValueError("gate_layer_idx and ctc_trim cannot be combined: choose one of them")
        if layers:
            self.check_gates()
        # ESPnetASRModel.encode hands its CTC head to an encoder only if one of
        # interctc_use_conditioning and ctc_trim is true; the gates need the head.
        self._stock_trim, self.ctc_trim = trim, trim or bool(layers)
        self.gate_layer_idx = list(layers)
        self.train_skip_prob = read_ratio(train_skip_prob, "train_skip_prob") or 0.0
        self.train_spike_extensions = read_extensions(train_spike_extensions)
        known = SkipSettings.__dataclass_fields__
        usual = SkipSettings(**{k: v for k, v in OPTIONS.items() if k in known})
        self.settings = SkipSettings(**settings).over(usual)
        self.init_fast_form()

    def end_skipping(self) -> None:
        """Remove what `init_skipping` added, for an encoder that becomes a stock one."""
        self.stop_watching()
        self.ctc_trim = self._stock_trim
        for name in (*_OWN, *self.ADDED):
            self.__dict__.pop(name, None)

    @property
    def settings(self) -> SkipSettings:
        """How the encoder skips unless a call says otherwise; a complete record."""
        return self._settings

    @settings.setter
    def settings(self, value: SkipSettings) -> None:
        """Adopt a record.

        Raises:
            ValueError: If the encoder cannot skip so.
        """
        whole = value.over(SkipSettings(gates_in_use=tuple(self.gate_layer_idx)))
        self.check_context(whole.checked(self.gate_layer_idx).skip_context or "packed")
        self._settings = whole

    blank_threshold = _setting("blank_threshold")
    spike_extension = _setting("spike_extension")
    skip_context = _setting("skip_context")
    gates_in_use = _setting("gates_in_use")
    repeat_threshold = _setting("repeat_threshold")
    min_spike_ratio = _setting("min_spike_ratio")
    exit_layer = _setting("exit_layer")
    min_skipped_frames = _setting("min_skipped_frames")

    @property
    def attention(self) -> Any:
        """The attention of the first layer that has one, or None."""
        found = (getattr(layer, self.ATTENTION, None) for layer in self.encoders)
        return next((one for one in found if one is not None), None)

    @property
    def padding_invariant(self) -> bool:
        """True if an utterance has the same output alone and in a padded batch, in evaluation.

        Where it is not, utterances are encoded one at a time as soon as gates decide (in training
        they are not: a batch's norms depend on all of it anyway), and inference makes no batches.
        """
        alone = attention.is_invariant(self.attention) and not mixes_frames(self.embed)
        return alone and not any(map(convolution.reads_neighbours, self.encoders))

    def check_gates(self) -> None:
        """Raise ValueError where a layer would mix frames across the gap."""
        found = getattr(self.encoders[0], "feed_forward", None)
        if found is not None and type(found) is not PositionwiseFeedForward:
            raise ValueError(
                "gate_layer_idx needs positionwise_layer_type: linear (a convolution would mix "
                f"frames across the gap), but got {type(found).__name__}"
            )

    def check_context(self, context: str) -> None:
        """Raise ValueError where a layer cannot see frames in that context."""
        if self.gate_layer_idx:
            attention.check_context(self.attention, context)

    def run_layer(self, layer: Any, frames: Frames) -> torch.Tensor:
        """Return the active frames (B, M, D) after one layer of the stock class."""
        raise NotImplementedError(f"{type(self).__name__} must implement run_layer")

    def forward(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        prev_states: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        ctc: Any = None,
        return_all_hs: bool = False,
    ) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
        """Encode a batch with ESPnet's interface; ``run`` returns more.

        Args:
            xs_pad: Features (B, T, F).
            ilens: Their lengths (B,).
            prev_states: Not used.
            masks: (B, T) bool, True = padding (as ESPnet's argument); default from ilens.
            ctc: CTC head, needed where gates are active.
            return_all_hs: Return the states of all layers too; runs at full depth.

        Returns:
            ``out, olens, None`` with out (B, T', D); in training
            ``(out, [(layer_idx, h), ...]), olens, None``.

        Raises:
            TooShortUttError: If the batch is too short for the subsampling.
            ValueError: If a gate is active and ``ctc`` is missing.
        """
        if self._stock_trim:
            return super().forward(xs_pad, ilens, prev_states, masks, ctc, return_all_hs)  # type: ignore[misc, no-any-return]
        lens = ilens if masks is None else (~masks).sum(-1)
        if return_all_hs:
            state, olens = self.start(xs_pad, lens.to(xs_pad.device), self.settings)
            states: list[torch.Tensor] = []
            advance(self, state, {}, ctc, note=lambda s: states.append(s.full()))
            return (self.finish(state, olens, self.settings).out, states), olens, None
        encoded = self.run(xs_pad, lens, ctc)
        return encoded.for_espnet(), encoded.lens, None

    def run(
        self,
        xs_pad: torch.Tensor,
        ilens: torch.Tensor,
        ctc: Any = None,
        settings: SkipSettings | None = None,
        *,
        skip: bool | None = None,
        intermediates: bool | None = None,
    ) -> Encoded:
        """Encode a batch. Nothing of the call stays on the encoder: threads may share it.

        Args:
            xs_pad: Features (B, T, F).
            ilens: Their lengths (B,).
            ctc: CTC head, needed where gates are active.
            settings: How to skip; the encoder's own settings fill what is left open.
            skip: Force skipping on or off; None = on in evaluation, and in training with
                probability ``train_skip_prob`` a batch.
            intermediates: Return the states of ``interctc_layer_idx`` and of the gates' layers;
                None = in training.

        Raises:
            TooShortUttError: If the batch is too short for the subsampling.
            ValueError: If a gate is active and ``ctc`` is missing, or the settings do not fit.
        """
        how = self.settings
        if settings is not None:
            how = settings.over(how).checked(self.gate_layer_idx)
            self.check_context(how.skip_context or "packed")
        lens = ilens.to(xs_pad.device)
        alike = self.training or self.padding_invariant or bool((lens == lens[0]).all())
        if not alike and self.gates(how, skip):
            alone = [
                self.run(x[None, :n], n[None], ctc, how, skip=skip, intermediates=intermediates)
                for x, n in zip(xs_pad, lens, strict=True)
            ]
            return join(alone)
        state, olens = self.start(xs_pad, lens, how)
        gates = self.gates(how, skip)  # draws after the subsampling's dropout
        if not self.training and is_short(state.valid_mask.size(1), how.min_skipped_frames or 0):
            gates = {}  # all go on whole: there is nothing to look at
        wanted = self.training if intermediates is None else intermediates
        layers = {*self.interctc_layer_idx, *self.gate_layer_idx} if wanted else ()
        outs: list[tuple[int, torch.Tensor]] = []

        def note(state: LayerState) -> None:
            if state.layer_idx in layers:
                outs.append((state.layer_idx, self.normalised(state.full())))

        advance(self, state, gates, ctc, how.exit_layer, note)
        return replace(self.finish(state, olens, how), intermediates=tuple(outs))

    def gates(self, settings: SkipSettings, skip: bool | None = None) -> dict[int, BlankGate]:
        """Return the gates of a pass by layer; in training their use is drawn at random.

        Args:
            settings: A whole record.
            skip: As in ``run``.
        """
        if skip is None:
            skip = not self.training or bool(
                of_first_process(torch.rand(())) < self.train_skip_prob
            )
        extension = settings.spike_extension
        if self.training and self.train_spike_extensions:
            draw = int(of_first_process(torch.randint(len(self.train_spike_extensions), ())))
            extension = self.train_spike_extensions[draw]
        if not skip or settings.exit_layer is not None:
            return {}
        assert extension is not None
        least = 0 if self.training else settings.min_skipped_frames or 0  # it is about time only
        make = partial(make_gate, settings, extension, least)
        thresholds = settings.thresholds(self.gate_layer_idx).items()
        return {k: make(p) for k, p in thresholds if p < 1.0}

    def start(
        self, xs_pad: torch.Tensor, ilens: torch.Tensor, settings: SkipSettings
    ) -> tuple[LayerState, torch.Tensor]:
        """Return the state of a batch before the first layer, and its lengths (B,).

        Args:
            xs_pad: Features (B, T, F).
            ilens: Their lengths (B,), on the same device.
            settings: A whole record.
        """
        fast = self.fast_form()
        x, pos_emb, olens = self.subsample(xs_pad, ilens)
        valid_mask = torch.arange(x.size(1), device=x.device) < olens[:, None]
        frames = Frames(
            x,
            pos_emb,
            None if bool(valid_mask.all()) else valid_mask,
            context=settings.skip_context or "packed",
            flat=fast is not None,
        )
        layers = list(self.encoders) if fast is None else fast.layers
        return LayerState(frames, valid_mask, layers), olens

    def finish(self, state: LayerState, olens: torch.Tensor, settings: SkipSettings) -> Encoded:
        """Return the result of a pass that ends in a state."""
        out = self.normalised(state.full())
        return Encoded(out, olens, (), state.trace(), settings.exit_layer)

    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        """Return states (B, M, D) of any layer as the CTC head takes them: after the last norm."""
        if not self.normalize_before:
            return x
        normed: torch.Tensor = self.after_norm(x.to(self.after_norm.weight.dtype))
        return normed

    def subsample(
        self, xs_pad: torch.Tensor, lens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Return subsampled features, positions and lengths, each as it would be alone."""
        fast = self.fast_form()
        return subsample(self.embed, None if fast is None else fast.stem, xs_pad, lens)
