"""espnet_layerskip: CTC blank triggered dynamic layer-skipping for ESPnet.

Importing the package registers the encoder ``layerskip_conformer`` and the model
``layerskip`` with ESPnet's ASR task. Set ``ESPNET_LAYERSKIP_NO_REGISTER=1`` to import
helper modules (data preparation, scoring) without loading ESPnet, which takes seconds.

Method: Hou et al., "CTC Blank Triggered Dynamic Layer-Skipping for Efficient CTC-based
Speech Recognition", ASRU 2023, arXiv:2401.02046.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["LayerSkipASRTask", "Speech2Text", "__version__"]

if TYPE_CHECKING:
    from espnet_layerskip.inference.speech2text import Speech2Text
    from espnet_layerskip.training.task import LayerSkipASRTask

_LAZY = {
    "Speech2Text": "espnet_layerskip.inference.speech2text",
    "LayerSkipASRTask": "espnet_layerskip.training.task",
}


def __getattr__(name: str) -> Any:
    """Import the public classes on first use: they pull in ESPnet's decoding stack."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# The console command registers in the verbs that need it: its --help should not take seconds.
_IS_COMMAND = os.path.basename(sys.argv[0]).startswith("espnet-layerskip")

if os.environ.get("ESPNET_LAYERSKIP_NO_REGISTER", "") != "1" and not _IS_COMMAND:
    from espnet_layerskip.registry import register

    register()
