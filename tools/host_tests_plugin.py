"""A plugin of pytest that puts our classes in the place of ESPnet's; see host_tests.py.

The classes are those that ``HOST_TESTS_PUT`` names. They are put in before the tests are imported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import inspect
import json
import os
import random
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

SEED = 0
CONVOLUTIONS = ("conv1d", "conv1d-linear")


class _Renamed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds espnet2.legacy.X of ESPnet 202611 where 202511 has it, in espnet.X."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if not name.startswith("espnet2.legacy"):
            return None
        return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec: Any) -> Any:
        return importlib.import_module("espnet" + spec.name.removeprefix("espnet2.legacy"))

    def exec_module(self, module: Any) -> None:
        pass


def pytest_configure(config: Any) -> None:
    """Put our classes in; ESPnet is imported first, so that it is the installed one."""
    import espnet  # noqa: F401
    import espnet2

    _VERSION.append(version("espnet"))  # later the archive is on the path
    config.addinivalue_line("markers", "execution_timeout(seconds): of ESPnet's plugin")
    if not (Path(espnet2.__path__[0]) / "legacy").is_dir():
        sys.meta_path.insert(0, _Renamed())
    put = os.environ.get("HOST_TESTS_PUT", "").split()
    if put:
        put_ours(put, os.environ.get("HOST_TESTS_THRESHOLD", ""))


def put_ours(put: Sequence[str], threshold: str) -> None:
    """Put our classes in the place of ESPnet's, in its modules and its tables of choices.

    Args:
        put: "encoders", "model", "speech2text", "plain", "factorized" (heads); "conformer": it is
            the encoder where a test names none; "alone": the tests are those of encoders.
        threshold: Of the gate in the middle of each encoder; "" = no gates.
    """
    from espnet_layerskip._compat import CTC, ESPnetASRModel, asr_task, inference_module
    from espnet_layerskip.encoders import ENCODERS
    from espnet_layerskip.method.ctc import LayerSkipCTC
    from espnet_layerskip.training.model import LayerSkipASRModel

    if "encoders" in put:
        tasks = [inspect.getmodule(asr_task())]
        if importlib.util.find_spec("espnet2.tasks.s2t_ctc") is not None:
            tasks.append(importlib.import_module("espnet2.tasks.s2t_ctc"))
        for ours in ENCODERS.values():
            stock = ours.STOCK
            variant = gated(ours, float(threshold), "alone" in put) if threshold else ours
            setattr(sys.modules[stock.__module__], stock.__name__, variant)
            for task in tasks:
                classes = task.encoder_choices.classes  # type: ignore[union-attr]
                classes.update({name: variant for name, cls in classes.items() if cls is stock})
                if "conformer" in put and task.encoder_choices.default == "rnn":  # type: ignore[union-attr]
                    task.encoder_choices.default = "conformer"  # type: ignore[union-attr]
    if "model" in put:
        sys.modules[ESPnetASRModel.__module__].ESPnetASRModel = LayerSkipASRModel  # type: ignore[attr-defined]
    for head_type in {"plain", "factorized"}.intersection(put):

        class Head(LayerSkipCTC):
            def __init__(self, *args: Any, head_type: str = head_type, **kwargs: Any):
                super().__init__(*args, head_type=head_type, **kwargs)

        sys.modules[CTC.__module__].CTC = Head  # type: ignore[attr-defined]
    if "speech2text" in put:
        from espnet_layerskip.inference.speech2text import Speech2Text

        inference_module().Speech2Text = Speech2Text


def gated(ours: Any, threshold: float, alone: bool) -> Any:
    """Return an encoder class with a gate in the middle, and a head for it where none is given.

    Args:
        ours: Encoder class.
        threshold: Of the gate.
        alone: Nobody wants the states at the gate, which come with the output in training. And
            feed-forward layers with convolutions, which gates refuse, are made linear: nearly all
            tests of ESPnet's Conformer and Transformer ask for them.
    """
    import torch

    from espnet_layerskip._compat import CTC

    skipping = threshold < 1.0

    class Gated(ours):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any):
            given = self.__signature__.bind(*args, **kwargs)
            values = self.__signature__.bind(*args, **kwargs)
            values.apply_defaults()
            middle = values.arguments["num_blocks"] // 2
            if alone and values.arguments.get("positionwise_layer_type") in CONVOLUTIONS:
                given.arguments["positionwise_layer_type"] = "linear"
            gates = (
                {}
                if middle == 0 or values.arguments.get("ctc_trim")
                else {
                    "gate_layer_idx": [middle],
                    "blank_threshold": threshold,
                    "skip_context": "packed",
                    "spike_extension": [0, 0],
                    "min_spike_ratio": 0.0,
                    "train_skip_prob": float(skipping),
                }
            )
            super().__init__(*given.args, **{**gates, **given.kwargs})
            with torch.random.fork_rng(devices=[]):  # the weights stay those of the other passes
                head = CTC(odim=5, encoder_output_size=self.output_size())
            vars(self)["host_test_head"] = head  # no part of the state

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out, *rest = super().forward(*args, **kwargs)
            if alone and isinstance(out, tuple) and not self.interctc_layer_idx:
                out = out[0]
            return (out, *rest)

    def with_head(name: str) -> Any:
        def run(
            self: Any, xs_pad: Any, ilens: Any, ctc: Any = None, *rest: Any, **named: Any
        ) -> Any:
            if ctc is None and skipping:
                ctc = self.host_test_head.to(next(self.parameters()).dtype)
            found = getattr(ours, name)(self, xs_pad, ilens, ctc, *rest, **named)
            if found.trace is not None and len(found.lens) > 1:
                _SKIPPED.append(float(found.trace.skip_ratio()))
            return found

        return run

    for name in {"run", "run_all"}.intersection(dir(ours)):
        setattr(Gated, name, with_head(name))
    Gated.__name__ = Gated.__qualname__ = ours.__name__
    return Gated


_VERSION: list[str] = []
_SKIPPED: list[float] = []  # share of skipped frames, by pass
_RESULTS: list[dict[str, str]] = []
_COLLECTED: dict[str, int] = {}  # tests of each file, run or not


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Leave so many tests of each file as are asked for, evenly spread."""
    most = int(os.environ.get("HOST_TESTS_AT_MOST") or 0)
    by_file: dict[Any, list[Any]] = {}
    for item in items:
        by_file.setdefault(item.path, []).append(item)
    kept = {
        group[i * len(group) // min(most, len(group))]
        for group in by_file.values()
        for i in range(min(most, len(group)))
    }
    if most:
        items[:] = [item for item in items if item in kept]
    _COLLECTED.update({str(path): len(group) for path, group in by_file.items()})


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: Any) -> None:
    """Begin each test with the same random numbers: some compare random nets."""
    import numpy
    import torch

    random.seed(SEED)
    numpy.random.seed(SEED)
    torch.manual_seed(SEED)


def pytest_runtest_logreport(report: Any) -> None:
    """Note how a test ended."""
    if report.when == "call" or report.outcome != "passed":
        crash = getattr(getattr(report.longrepr, "reprcrash", None), "message", "")
        text = crash or str(report.longrepr or "")
        note = {"test": report.nodeid, "outcome": report.outcome, "error": text.strip()}
        _RESULTS.append(note)


def pytest_collectreport(report: Any) -> None:
    """Note a file that cannot be imported."""
    if report.failed:
        error = str(report.longrepr).strip().splitlines()[-1]
        _RESULTS.append({"test": report.nodeid, "outcome": "failed", "error": error})


def pytest_sessionfinish() -> None:
    """Write what was noted, and the versions."""
    found = {
        "espnet": _VERSION[0],
        "torch": version("torch"),
        "python": ".".join(map(str, sys.version_info[:3])),
        "skipped": sum(_SKIPPED) / len(_SKIPPED) if _SKIPPED else 0.0,
        "results": _RESULTS,
        "collected": _COLLECTED,
    }
    Path(os.environ["HOST_TESTS_JSON"]).write_text(json.dumps(found), encoding="utf-8")
