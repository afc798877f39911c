"""Modules that ESPnet imports in every program and hardly any uses: imported when they are."""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

# What is put off, with the names that others import out of it; none: it is used by attributes.
# A grapheme-to-phoneme converter (the first of them downloads where a network can be reached), BLEU
# scores, text cleaners for speech synthesis, filters for data augmentation; attention plots of the
# trainer, a state space decoder and speech enhancement, which bring scipy.stats, Hydra, Numba.
LATE: Mapping[str, tuple[str, ...]] = {
    "g2p_en": (),
    "nltk": (),
    "tacotron_cleaner": (),
    "tacotron_cleaner.cleaners": (),
    "scipy.signal": (),
    "espnet2.main_funcs.calculate_all_attentions": ("calculate_all_attentions",),
    "espnet2.asr.state_spaces.model": ("SequenceModel",),
    "espnet2.tasks.enh_s2t": ("EnhS2TTask",),
}


# ESPnet 202611 marks functions of these with torch.compiler.disable, which imports the compiler.
MARKED = ("espnet2.legacy.nets.pytorch_backend.nets_utils",)


class _Late:
    """Stands for a function or a class that is imported when it is called or looked into."""

    def __init__(self, module: str, name: str):
        self._module, self._name = module, name

    def _real(self) -> Any:
        return getattr(_import_now(self._module), self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"{self._name!r} is not imported yet and has no {name!r}")
        return getattr(self._real(), name)


class _ImportedWhenUsed(ModuleType):
    """Stands for a module that is not imported yet, until one of its names is used.

    importlib's LazyLoader does the same, but whoever looks through sys.modules, as PyTorch
    does at its own import, makes it import at once.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(_import_now(self.__name__), name)


def _import_now(name: str) -> ModuleType:
    """Import the module that a stand-in stands for."""
    if isinstance(sys.modules.get(name), _ImportedWhenUsed):
        del sys.modules[name]
    FINDER.names.pop(name, None)
    return importlib.import_module(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for a module that is to be imported late, where there is such a module."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[str, ...]] = {}
        self.marked: tuple[str, ...] = ()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the stand-in; None for other modules."""
        if name not in self.names and name not in self.marked:
            return None
        real = importlib.machinery.PathFinder.find_spec(name, path)
        if real is None:
            return None
        if name in self.marked:
            real.loader = _WithoutCompiler(real.loader)
            return real
        spec = importlib.machinery.ModuleSpec(name, self, origin=real.origin)
        spec.submodule_search_locations = real.submodule_search_locations
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = _ImportedWhenUsed(spec.name, f"{spec.name}, imported when it is used")
        for name in self.names[spec.name]:
            setattr(module, name, _Late(spec.name, name))
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: that is the point."""


class _WithoutCompiler(importlib.abc.Loader):
    """Loads as another loader does, in a program that compiles nothing."""

    def __init__(self, loader: Any):
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self.loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module while torch.compiler.disable does nothing."""
        compiler: Any = importlib.import_module("torch.compiler")
        disable, compiler.disable = compiler.disable, _unchanged
        try:
            self.loader.exec_module(module)
        finally:
            compiler.disable = disable

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


FINDER = _Finder()


def import_when_used(name: str, *names: str) -> None:
    """Put off the import of a module, if it is installed and not imported already.

    Args:
        name: Of the module.
        names: Of its functions and classes that others import from it by name. They can be called
            and looked into, not inherited from.
    """
    if name not in sys.modules:
        FINDER.names[name] = names
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)


def start_sooner(check_types: bool = True) -> None:
    """Put off what ESPnet imports at the top of modules that every program reads.

    For programs of ours, in a process of their own: other code may want these modules whole.

    Args:
        check_types: Leave ESPnet's functions their checks of arguments at run time (typeguard), and
            their marks for PyTorch's compiler. Setting these takes more than half of ESPnet's
            import; a program that only transcribes goes without.
    """
    for name, names in LATE.items():
        import_when_used(name, *names)
    if check_types:
        return
    if "typeguard" not in sys.modules:
        stand_in: Any = _ImportedWhenUsed("typeguard", "typeguard without its checks")
        stand_in.typechecked = _unchanged
        sys.modules["typeguard"] = stand_in
        FINDER.marked = MARKED
    # ESPnet 202511 imports distutils. Setuptools' own copy brings all of setuptools.
    hack: Any = sys.modules.get("_distutils_hack")
    if hack is not None and "distutils" not in sys.modules and sys.version_info < (3, 12):
        hack.remove_shim()


def _unchanged(target: Any = None, **options: Any) -> Any:
    """Stand for a decorator: return what it decorates as it is."""
    return (lambda one: one) if target is None else target
