"""The life of an encoder's fast form: made for inference, remade with new weights."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from inspect import ismethod
from typing import Any, ClassVar

import torch

from espnet_layerskip.encoders.fast.parts import FastEncoder


class HasFastForm:
    """Part of `LayerSkipEncoder`: evaluation on rearranged weights with the same output."""

    FAST: ClassVar[Any] = None
    """The `FastLayer` of its layers; None = there is no fast form."""
    training: bool

    def init_fast_form(self) -> None:
        """Start without one, and watch for weights that are loaded."""
        self._fast: Any = None
        self._loaded = _Flag()
        note = partial(_note_load, self._loaded)
        assert isinstance(self, torch.nn.Module)
        self._hooks: list[Any] = [  # loading into a part of the encoder counts too
            module.register_load_state_dict_post_hook(note)  # type: ignore[no-untyped-call]
            for module in self.modules()
        ]

    def stop_watching(self) -> None:
        """Forget the modules whose loading was watched."""
        for hook in self._hooks:
            hook.remove()

    def optimize_for_inference(self, precision: str = "float32") -> None:
        """Run evaluation on rearranged weights: the same output (1e-5), faster.

        The parameters stay as they are, and ``train()`` goes back to them. The fast form follows
        when weights are loaded or moved to another device, but not when a parameter is changed
        in place: then call this again. Its outputs carry no gradients.

        Args:
            precision: "float32", "bfloat16", or "int8" (matrix products with weights, on a
                CPU). In int8 the activations are scaled by the largest of a batch, so an
                output may depend on the batch, by about the rounding error.

        Raises:
            ValueError: For an unknown precision, in training mode, or for an encoder that has
                no fast form; says why.
        """
        self._fast = None
        if self.training:
            raise ValueError("optimize_for_inference needs evaluation mode: call eval() first")
        if self.FAST is None:
            raise ValueError(f"{type(self).__name__} has no fast form")
        assert isinstance(self, torch.nn.Module)
        if any(ismethod(getattr(module, "weight", None)) for module in self.modules()):
            raise ValueError("a quantized encoder has no fast form")
        self._loaded.on = False
        self._fast = FastEncoder(self, precision)

    def fast_form(self) -> Any:
        """Return the fast form with the current weights; None if the plain layers are to run."""
        if self._loaded.on:
            self.refresh_fast()
        return self._fast

    def refresh_fast(self) -> None:
        """Rebuild the fast form from changed parameters, or end it if there is none for them."""
        self._loaded.on = False
        if self._fast is not None:
            with suppress(ValueError):
                self.optimize_for_inference(self._fast.precision)

    def train(self, mode: bool = True) -> Any:
        """Set the mode; training ends the fast form."""
        if mode:
            self._fast = None
        return super().train(mode)  # type: ignore[misc]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move the parameters (``to()`` and the like), and the fast form with them."""
        super()._apply(fn, recurse)  # type: ignore[misc]
        self.refresh_fast()
        return self


class _Flag:
    """Is on once weights were loaded; shared by an encoder and the hooks of its modules."""

    on = False


def _note_load(flag: _Flag, module: Any, incompatible_keys: Any) -> None:
    flag.on = True
