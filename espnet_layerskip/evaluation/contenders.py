"""Everything that a benchmark compares, built from a model and its twins: the rows by scope."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from espnet_layerskip.encoders.base import LayerSkipEncoder
from espnet_layerskip.evaluation.experiment import Experiment
from espnet_layerskip.evaluation.onnx import OnnxSystem
from espnet_layerskip.evaluation.stock import (
    StockSearch,
    fast_class,
    stock_class,
    stock_options,
    stock_speech2text,
)
from espnet_layerskip.evaluation.systems import System
from espnet_layerskip.method.settings import OFF, PRECISIONS, SkipSettings, can_skip

ON, FULL, STOCK = "ours_skip_on", "ours_skip_off", "stock_class_same_weights"
STOCK_SDPA = "stock_class_sdpa"
ONNX_ON, ONNX_FULL = "onnx_skip_on", "onnx_skip_off"
INT8 = "int8_skip_off"
GREEDY_ON, GREEDY_OFF = "ours_greedy_skip_on", "ours_greedy_skip_off"
STOCK_TWIN = "stock"
BEAM = 10
ESPNET_LM = f"espnet_beam{BEAM}_lm"
DROP_THRESHOLD = 0.99  # of blank frames, in ESPnet's search with our model


@dataclass(frozen=True)
class Contender:
    """One row of a scope.

    Attributes:
        system: What runs; why it cannot, where it cannot be built. Rows of one system have the
            same transcripts.
        full_depth: Name of the same form at full depth, which its saving is related to; "" for
            a form that is at full depth itself.
        reference: Name of the row that its WER is judged by; "" = other weights, or the
            reference itself.
    """

    system: System | StockSearch | OnnxSystem | str
    full_depth: str = ""
    reference: str = ""


Contenders = dict[str, Contender]
Arguments = Mapping[str, Any]  # of Speech2Text


def make_forms(
    experiment: Experiment, settings: SkipSettings, twins: Mapping[str, Experiment]
) -> Contenders:
    """Return the forms of a model, with greedy search: skipping, full depth, precisions, rivals.

    Args:
        experiment: With a gate.
        settings: How it skips; None values keep what the experiment says.
        twins: Other experiments at full depth, by label: a trained stock twin, a shallower one.
            A stock one comes in ESPnet's class, and (``_fast``) in our fast form.

    Raises:
        ValueError: If the experiment's encoder has no gate.
    """
    encoder = experiment.encoder
    if not can_skip(encoder):
        raise ValueError(
            f"the experiment has a {type(encoder).__name__} without a gate: an encoder with "
            "gate_layer_idx is needed; give a stock experiment as a twin"
        )
    found = {
        ON: Contender(System(experiment, settings), FULL, FULL),
        FULL: Contender(System(experiment, OFF)),
        STOCK: Contender(_attempt(partial(stock_class, experiment)), "", FULL),
    }
    if "use_sdpa" in stock_options(experiment):  # of ESPnet 202611
        build = partial(stock_class, experiment, use_sdpa=True)
        found[STOCK_SDPA] = Contender(_attempt(build), "", FULL)
    for precision in PRECISIONS[1:]:
        on, off = (f"{precision}_skip_{switch}" for switch in ("on", "off"))
        for name, how, full_depth in ((on, settings, off), (off, OFF, "")):
            form = partial(System, experiment, how, precision)
            found[name] = Contender(_attempt(form), full_depth, FULL)
    for layer in encoder.gate_layer_idx:
        stopped = System(experiment, SkipSettings(blank_threshold=1.0, exit_layer=layer))
        found[f"exit_at_{layer}"] = Contender(stopped, FULL, FULL)
    for label, twin in twins.items():
        found[f"twin_{label}"] = Contender(System(twin, OFF))
        if not isinstance(twin.encoder, LayerSkipEncoder):
            found[f"twin_{label}_fast"] = Contender(_attempt(partial(fast_class, twin)))
    return found


def make_onnx(
    experiment: Experiment, settings: SkipSettings, folder: Path, longest: float
) -> Contenders:
    """Return the rows of the exported model, or why there is none.

    Args:
        experiment: With a gate.
        settings: As of `make_forms`.
        folder: To export to.
        longest: Seconds of the longest input.
    """
    from espnet_layerskip.export.session import onnxruntime_module
    from espnet_layerskip.export.write import export_model

    try:
        onnxruntime_module()
        export_model(System(experiment, settings).speech2text, folder, longest=longest)
    except ValueError as e:
        why = f"cannot be built: {e}"
        return {ONNX_ON: Contender(why, ONNX_FULL, ONNX_FULL), ONNX_FULL: Contender(why)}
    return {
        ONNX_ON: Contender(OnnxSystem(folder, full_depth=False), ONNX_FULL, ONNX_FULL),
        ONNX_FULL: Contender(OnnxSystem(folder, full_depth=True), "", FULL),
    }


def rivals(forms: Contenders) -> Contenders:
    """Return all forms but those precisions that only the encoder's table has."""
    return {n: c for n, c in forms.items() if not n.startswith(PRECISIONS[1:]) or n == INT8}


def make_searches(
    forms: Contenders,
    load: Callable[..., Experiment],
    settings: SkipSettings,
    ngram: Arguments,
    lm: Arguments,
) -> Contenders:
    """Return the end-to-end rows of ours: greedy search over the forms, and other searches.

    Args:
        forms: As `make_forms` and `make_onnx` made them.
        load: Loads the model with a decoder_type and more arguments of Speech2Text.
        settings: How the other searches' encoders skip.
        ngram: ``ngram_file`` and ``lexicon`` for our n-gram search; empty = no such rows.
        lm: ``lm_train_config``, ``lm_file`` and ``lm_weight`` of a language model of ESPnet's,
            for its search; empty = no such rows.
    """
    own = (STOCK, STOCK_SDPA)  # their searches are of `make_stock_searches`
    names = {n: f"{n}_greedy" for n in rivals(forms) if n not in own}
    names |= {ON: GREEDY_ON, FULL: GREEDY_OFF, "": ""}
    rows = {
        names[n]: replace(c, full_depth=names[c.full_depth], reference=names[c.reference])
        for n, c in forms.items()
        if n in names
    }
    searches = {"prefix_beam": load("prefix_beam", beam_size=BEAM)}
    if ngram:
        searches["ngram"] = load("ngram", beam_size=BEAM, **ngram)
    if lm:
        more = {"ctc_weight": 1.0, "drop_threshold": DROP_THRESHOLD, **lm}
        searches[ESPNET_LM] = load("espnet", beam_size=BEAM, **more)
    for search, experiment in searches.items():
        on, off = (f"ours_{search}_skip_{switch}" for switch in ("on", "off"))
        rows[on] = Contender(System(experiment, settings), off, off)
        rows[off] = Contender(System(experiment, OFF))
    return rows


def make_stock_searches(
    experiment: Experiment, twins: Mapping[str, Experiment], ngram: Arguments, lm: Arguments
) -> Contenders:
    """Return the end-to-end rows of ESPnet's Speech2Text, CTC only.

    Args:
        experiment: Gives the weights; where they do not fit ESPnet's classes, the twin "stock".
        twins: By label.
        ngram: As of `make_searches`; ESPnet's n-gram is one over tokens, read with kenlm.
        lm: As of `make_searches`.
    """
    wanted: dict[str, Arguments | str] = {"stock_beam1": {"beam_size": 1}}
    wanted[f"stock_beam{BEAM}"] = {"beam_size": BEAM}
    if ngram:
        wanted[f"stock_beam{BEAM}_ngram"] = _stock_ngram(**ngram)
    if lm:
        wanted[f"stock_beam{BEAM}_lm"] = {"beam_size": BEAM, **lm}
    found = {}
    for name, how in wanted.items():
        found[name] = how if isinstance(how, str) else _stock_search(experiment, twins, how)
    return {name: Contender(system) for name, system in found.items()}


def _stock_search(
    experiment: Experiment, twins: Mapping[str, Experiment], arguments: Arguments
) -> StockSearch | str:
    why = ""
    for source in filter(None, (experiment, twins.get(STOCK_TWIN))):
        try:
            return StockSearch(stock_speech2text(source, **arguments))
        except (ValueError, OSError) as e:  # OSError: an n-gram that kenlm cannot read
            why = str(e)
    hint = "" if STOCK_TWIN in twins else f" (a twin named {STOCK_TWIN} can take its place)"
    return f"cannot be built{hint}: {why}"


def _stock_ngram(ngram_file: Path, lexicon: Path | None = None) -> Arguments | str:
    if lexicon is not None:
        return "ESPnet scores n-grams over tokens: one over words (--lexicon) is not for it"
    if importlib.util.find_spec("kenlm") is None:
        return "ESPnet reads n-grams with kenlm, which is not installed: pip install kenlm"
    return {"beam_size": BEAM, "ngram_file": str(ngram_file)}


def _attempt(build: Callable[[], System]) -> System | str:
    try:
        return build()
    except (ValueError, RuntimeError, AttributeError) as e:
        return f"cannot be built: {e}"
