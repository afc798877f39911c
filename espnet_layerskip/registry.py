"""Registration of our classes with ESPnet's task system (ESPnet has no plugin discovery)."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

# Modules with tables of encoders and models; ESPnet3 (in the 202611 wheel) has its own copies.
TASKS = ("espnet2.tasks.asr", "espnet3.systems.esp2_asr.task")
# OWSM-CTC's has its own model; of ours it takes the encoders.
ENCODER_TASKS = ("espnet2.tasks.s2t_ctc",)


def register() -> None:
    """Add our encoders and ``model: layerskip`` to the class choices of ESPnet's ASR tasks.

    Idempotent; imports ESPnet. After it ``encoder: layerskip_conformer`` (see `ENCODERS`) and
    ``model: layerskip`` can be used in any ESPnet ASR configuration, the encoders also in one of
    OWSM-CTC.
    """
    import_module(TASKS[0])
    from espnet_layerskip.encoders import ENCODERS
    from espnet_layerskip.training.model import LayerSkipASRModel

    for task in filter(None, map(sys.modules.get, TASKS)):
        task.encoder_choices.classes.update(ENCODERS)
        task.model_choices.classes["layerskip"] = LayerSkipASRModel
    for task in filter(None, map(sys.modules.get, ENCODER_TASKS)):
        task.encoder_choices.classes.update(ENCODERS)


def register_when_imported() -> None:
    """Register now if ESPnet's ASR task is imported already, else as soon as it is.

    Importing ESPnet takes seconds, which a command that needs none of it should not spend.
    """
    if any(name in sys.modules for name in TASKS + ENCODER_TASKS):
        register()
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def register_in_children() -> None:
    """Have the processes that multiprocessing starts afresh ("spawn") import this package too.

    ESPnet trains on several GPUs in such ones. What they get first is unpickled before anything
    else there; an object of ours in it imports the package.
    """
    spawn: Any = import_module("multiprocessing.spawn")
    given = spawn.get_preparation_data
    if not isinstance(given, _Preparation):
        spawn.get_preparation_data = _Preparation(given)


class _Preparation:
    """What a started process gets first, and an object of ours."""

    def __init__(self, given: Callable[[str], dict[str, Any]]):
        self.given = given

    def __call__(self, name: str) -> dict[str, Any]:
        return {**self.given(name), "espnet_layerskip": _Imported()}


class _Imported:
    """Imports this package where it is unpickled."""


class _Finder(importlib.abc.MetaPathFinder):
    """Finds ESPnet's tasks where they are, and has them register our classes once imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a task module with a loader that registers; None for others."""
        if name not in TASKS + ENCODER_TASKS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads as another loader does, then registers."""

    def __init__(self, loader: importlib.abc.Loader):
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        register()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)
