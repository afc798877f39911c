"""Everything that a benchmark compares, built from a model and its twins, by scope."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espnet_layerskip.evaluation.entries import (
    Entries,
    WaveFiles,
    e2e_entries,
    encoder_entries,
    model_entries,
)
from espnet_layerskip.evaluation.experiment import Experiment, load_experiment
from espnet_layerskip.evaluation.settings import SkipSettings
from espnet_layerskip.evaluation.stock import stock_speech2text
from espnet_layerskip.evaluation.variants import make_variants

BEAM = 10
STOCK_TWIN = "stock"
ESPNET_LM = f"espnet_beam{BEAM}_lm"
LM_FILE = "valid.loss.ave.pth"  # ESPnet's default of --inference_lm
DROP_THRESHOLD = 0.99  # of blank frames, in ESPnet's search with our model
WHOLE = {"segment_size": "off"}  # a long input is one piece of work for all


@dataclass(frozen=True)
class LanguageModel:
    """An n-gram for the searches that take one.

    Attributes:
        ngram_file: ARPA file, or KenLM binary.
        lexicon: Words to decode to; then the n-gram is one over words.
    """

    ngram_file: Path
    lexicon: Path | None = None

    def ours(self) -> dict[str, Any]:
        """Return the arguments of our Speech2Text."""
        lexicon = {} if self.lexicon is None else {"lexicon": self.lexicon}
        return {"ngram_file": self.ngram_file, **lexicon}


@dataclass(frozen=True)
class NeuralLM:
    """A language model trained by ESPnet, for its beam search.

    Attributes:
        exp: Folder with config.yaml and `LM_FILE`.
        weight: ESPnet's ``lm_weight``.
    """

    exp: Path
    weight: float

    def arguments(self) -> dict[str, Any]:
        """Return those of ESPnet's Speech2Text."""
        return {
            "lm_train_config": str(self.exp / "config.yaml"),
            "lm_file": str(self.exp / LM_FILE),
            "lm_weight": self.weight,
        }


@dataclass(frozen=True)
class Contenders:
    """A model, how it skips, and what it is compared with.

    Attributes:
        model: Experiment folder or zip.
        model_file: Its checkpoint; None = the default one. Also of the twins.
        experiment: The model with greedy search.
        settings: How it skips.
        twins: Other experiments, by label.
        lm: An n-gram, or None.
        neural_lm: For ESPnet's search, or None.
    """

    model: str
    model_file: str | None
    experiment: Experiment
    settings: SkipSettings
    twins: Mapping[str, Experiment]
    lm: LanguageModel | None
    neural_lm: NeuralLM | None = None

    @staticmethod
    def load(
        model: str,
        model_file: str | None,
        settings: SkipSettings,
        twins: Mapping[str, str],
        lm: LanguageModel | None,
        neural_lm: NeuralLM | None = None,
    ) -> Contenders:
        """Load the model as ``transcribe`` does (calibrated where it is), and the twins.

        Raises:
            ValueError: If one of them cannot be used.
        """
        experiment = load_experiment(model, model_file, **WHOLE)
        loaded = {label: load_experiment(exp, model_file, **WHOLE) for label, exp in twins.items()}
        for label, twin in loaded.items():
            rates = twin.speech2text.sample_rate, experiment.speech2text.sample_rate
            if rates[0] != rates[1]:
                raise ValueError(
                    f"twin {label} takes {rates[0]} Hz, but the model takes {rates[1]} Hz: compare "
                    "models of one sampling rate"
                )
        return Contenders(model, model_file, experiment, settings, loaded, lm, neural_lm)

    def entries(self, scopes: Sequence[str], files: WaveFiles) -> dict[str, Entries]:
        """Return the rows of each scope.

        Raises:
            ValueError: If the model has no gate.
        """
        variants = make_variants(self.experiment, self.settings, self.twins)
        build: dict[str, Callable[[], Entries]] = {
            "encoder": lambda: encoder_entries(variants),
            "model": lambda: model_entries(variants),
            "e2e": lambda: e2e_entries(
                variants, self._searches(), self.settings, self._stock(), files
            ),
        }
        return {scope: build[scope]() for scope in scopes}

    def _searches(self) -> dict[str, Experiment | str]:
        """Return the model with our other searches."""
        wanted: dict[str, dict[str, Any]] = {"prefix_beam": {}}
        if self.lm is not None:
            wanted["ngram"] = self.lm.ours()
        found: dict[str, Experiment | str] = {
            search: load_experiment(
                self.model, self.model_file, search, beam_size=BEAM, **WHOLE, **arguments
            )
            for search, arguments in wanted.items()
        }
        if self.neural_lm is not None:
            found[ESPNET_LM] = load_experiment(
                self.model,
                self.model_file,
                "espnet",
                beam_size=BEAM,
                ctc_weight=1.0,
                drop_threshold=DROP_THRESHOLD,
                **WHOLE,
                **self.neural_lm.arguments(),
            )
        return found

    def _stock(self) -> dict[str, Any]:
        """Return ESPnet's Speech2Text by row name, or why there is none."""
        wanted: dict[str, dict[str, Any] | str] = {
            "stock_beam1": {"beam_size": 1},
            f"stock_beam{BEAM}": {"beam_size": BEAM},
        }
        if self.lm is not None:
            wanted[f"stock_beam{BEAM}_ngram"] = self._stock_lm(self.lm)
        if self.neural_lm is not None:
            wanted[f"stock_beam{BEAM}_lm"] = {"beam_size": BEAM, **self.neural_lm.arguments()}
        return {
            name: arguments if isinstance(arguments, str) else self._stock_search(arguments)
            for name, arguments in wanted.items()
        }

    def _stock_search(self, arguments: Mapping[str, Any]) -> Any:
        """Return ESPnet's Speech2Text; where our weights do not fit, of the twin "stock"."""
        try:
            return stock_speech2text(self.experiment, **arguments)
        except (ValueError, OSError) as e:  # OSError: an n-gram that kenlm cannot read
            if STOCK_TWIN not in self.twins:
                return f"cannot be built (a twin named {STOCK_TWIN} can take its place): {e}"
        try:
            return stock_speech2text(self.twins[STOCK_TWIN], **arguments)
        except (ValueError, OSError) as e:
            return f"cannot be built: {e}"

    @staticmethod
    def _stock_lm(lm: LanguageModel) -> dict[str, Any] | str:
        if lm.lexicon is not None:
            return "ESPnet scores n-grams over tokens: one over words (--lexicon) is not for it"
        if importlib.util.find_spec("kenlm") is None:
            return "ESPnet reads n-grams with kenlm, which is not installed: pip install kenlm"
        return {"beam_size": BEAM, "ngram_file": str(lm.ngram_file)}
