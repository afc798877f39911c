"""Models as ONNX graphs, and their runtime, which needs neither PyTorch nor ESPnet.

`export_model` writes a directory; ``Speech2Text(directory)`` runs it. See docs/export.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["Speech2Text", "export_model", "is_export", "load_model"]

if TYPE_CHECKING:
    from espnet_layerskip.export.folder import is_export
    from espnet_layerskip.export.speech2text import Speech2Text, load_model
    from espnet_layerskip.export.write import export_model

_LAZY = {
    "Speech2Text": "espnet_layerskip.export.speech2text",
    "load_model": "espnet_layerskip.export.speech2text",
    "is_export": "espnet_layerskip.export.folder",
    "export_model": "espnet_layerskip.export.write",
}


def __getattr__(name: str) -> Any:
    """Import on first use: an export needs PyTorch and ESPnet, its runtime onnxruntime."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
