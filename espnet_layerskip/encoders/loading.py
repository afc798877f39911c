"""Loading into an encoder: names of either ESPnet version, and no key left out silently."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

import torch

from espnet_layerskip.files import some

logger = logging.getLogger(__name__)

# The projection of ESPnet's subsampling: a part of a Sequential in 202511, alone in 202611.
PROJECTION = ("out.0.", "out.")


class LoadsEitherVersion:
    """Part of `LayerSkipEncoder`: names are mapped, and keys that are not there are named.

    ESPnet loads with ``strict=False``: a key that is missing stays random without a word, and so
    does the subsampling's projection, which has another name in the other version. It works for
    the model and for the encoder alone (``--init_param file:encoder:encoder``).
    """

    def _load_from_state_dict(
        self, state_dict: MutableMapping[str, Any], prefix: str, *rest: Any
    ) -> None:
        assert isinstance(self, torch.nn.Module)
        embed = getattr(self, "embed", None)
        if isinstance(getattr(embed, "out", None), torch.nn.Module):
            _map_projection(embed, state_dict, f"{prefix}embed.")
        note_missing(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[misc]


def note_missing(
    module: torch.nn.Module, state_dict: MutableMapping[str, Any], prefix: str, *rest: object
) -> None:
    """Log a warning that names what a state dict lacks of a module: a hook of its loading.

    Args:
        module: Part of a model, or a model.
        state_dict: Names and tensors of the whole.
        prefix: Of the module's own.
        rest: What else PyTorch hands to a hook.
    """
    missing = [
        prefix + name
        for name in module.state_dict()
        if prefix + name not in state_dict and not name.endswith("num_batches_tracked")
    ]
    if missing:
        logger.warning(
            "%s: not in the checkpoint, so left as they were: %s",
            type(module).__name__,
            some(missing),
        )


def _map_projection(embed: Any, state_dict: MutableMapping[str, Any], prefix: str) -> None:
    """Give the projection the name that it has here.

    The other version's name wins where both are there: ``--init_param`` lays the keys of a file
    over those of the model.
    """
    alone = isinstance(embed.out, torch.nn.Linear)
    there, here = PROJECTION if alone else PROJECTION[::-1]
    for part in ("weight", "bias"):
        if prefix + there + part in state_dict:
            state_dict[prefix + here + part] = state_dict.pop(prefix + there + part)
