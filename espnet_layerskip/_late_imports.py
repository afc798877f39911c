"""Modules that ESPnet imports in every program and hardly any uses: imported when they are."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class _ImportedWhenUsed(ModuleType):
    """Stands for a module that is not imported yet, until one of its names is used.

    importlib's LazyLoader does the same, but whoever looks through sys.modules, as PyTorch
    does at its own import, makes it import at once.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def import_when_used(name: str) -> None:
    """Put off the import of a module, if it is installed and not imported already."""
    parent, _, child = name.rpartition(".")
    if name in sys.modules or (parent and parent not in sys.modules):
        return
    spec = importlib.util.find_spec(name)
    if spec is not None:
        module = _ImportedWhenUsed(name, f"{name}, imported when it is used")
        module.__spec__ = spec
        module.__path__ = spec.submodule_search_locations or []
        sys.modules[name] = module
        if parent:
            setattr(sys.modules[parent], child, module)


def start_sooner() -> None:
    """Put off what ESPnet imports at the top of modules that every program reads.

    An English grapheme-to-phoneme converter, BLEU scores and text cleaners for speech synthesis
    take a third of the start, and the first of them downloads where a network can be reached.
    For programs of ours, in a process of their own: other code may want these modules whole.
    """
    for name in ("g2p_en", "nltk", "tacotron_cleaner", "tacotron_cleaner.cleaners"):
        import_when_used(name)
