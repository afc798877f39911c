"""espnet_layerskip: CTC blank triggered dynamic layer-skipping for ESPnet.

After ``import espnet_layerskip`` ESPnet's ASR tasks know the encoders ``layerskip_*`` and the
model ``layerskip``. The import itself is cheap and changes nothing for other libraries; ESPnet is
loaded when something of it is used.

Method: Hou et al., "CTC Blank Triggered Dynamic Layer-Skipping for Efficient CTC-based
Speech Recognition", ASRU 2023, arXiv:2401.02046.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from espnet_layerskip.registry import register_when_imported

__version__ = "0.2.0"

__all__ = [
    "LayerSkipASRTask",
    "SkipSettings",
    "Speech2Text",
    "__version__",
    "add_skipping",
    "remove_skipping",
]

if TYPE_CHECKING:
    from espnet_layerskip.inference.speech2text import Speech2Text
    from espnet_layerskip.method.settings import SkipSettings
    from espnet_layerskip.patch import add_skipping, remove_skipping
    from espnet_layerskip.training.task import LayerSkipASRTask

_LAZY = {
    "Speech2Text": "espnet_layerskip.inference.speech2text",
    "SkipSettings": "espnet_layerskip.method.settings",
    "LayerSkipASRTask": "espnet_layerskip.training.task",
    "add_skipping": "espnet_layerskip.patch",
    "remove_skipping": "espnet_layerskip.patch",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use: most pull in ESPnet."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_when_imported()
