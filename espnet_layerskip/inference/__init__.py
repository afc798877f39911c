"""From audio to text: Speech2Text and what it needs."""

from typing import TYPE_CHECKING, Any

__all__ = ["Speech2Text", "load_model"]

if TYPE_CHECKING:
    from espnet_layerskip.inference.speech2text import Speech2Text, load_model


def __getattr__(name: str) -> Any:
    """Import on first use: it pulls in ESPnet's decoding stack."""
    if name in __all__:
        from espnet_layerskip.inference import speech2text

        return getattr(speech2text, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
