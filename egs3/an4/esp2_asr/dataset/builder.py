"""Stage create_dataset: AN4 -> data/{train_nodev,train_dev,test}, by the code of egs2/an4/asr1."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from espnet3.components.data.dataset_builder import DatasetBuilder

LOCAL = Path(__file__).resolve().parents[4] / "egs2/an4/asr1/local"
SPLITS = ("train_nodev", "train_dev", "test")


class An4Builder(DatasetBuilder):  # type: ignore[misc]
    """Writes Kaldi data directories; the recordings stay where they are.

    Every method takes ``recipe_dir``, ``an4_root`` (the corpus; default: the environment
    variable ``AN4``, else ``downloads`` in the recipe) and the counts of
    ``egs2/an4/asr1/local/an4.py``.
    """

    def is_source_prepared(self, **kwargs: Any) -> bool:
        """Return whether the corpus is there."""
        return _root(kwargs).is_dir()

    def prepare_source(self, **kwargs: Any) -> None:
        """Say what is missing: this recipe does not download.

        Raises:
            FileNotFoundError: Always.
        """
        raise FileNotFoundError(
            f"no AN4 at {_root(kwargs)}: unpack it there, or set the environment variable AN4 "
            "(stage 1 of egs2/an4/asr1/run.sh can fetch it)"
        )

    def is_built(self, **kwargs: Any) -> bool:
        """Return whether every split has its tables."""
        data = Path(kwargs["recipe_dir"]) / "data"
        return all((data / split / "text").is_file() for split in SPLITS)

    def build(self, **kwargs: Any) -> None:
        """Write the data directories.

        Raises:
            ValueError: If the corpus is not complete.
        """
        sys.path.insert(0, str(LOCAL))
        import an4

        counts = {k: kwargs[k] for k in ("ndev", "num_train", "num_test") if k in kwargs}
        an4.prepare(_root(kwargs), Path(kwargs["recipe_dir"]) / "data", **counts)


def _root(kwargs: dict[str, Any]) -> Path:
    given = kwargs.get("an4_root") or os.environ.get("AN4")
    return Path(given) if given else Path(kwargs["recipe_dir"]) / "downloads"
