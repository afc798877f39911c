"""A dataset over a Kaldi data directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from espnet3.components.data.base_dataset import BaseDataset
from espnet3.contract import Field

from espnet_layerskip.files import DataDir


class An4Dataset(BaseDataset):  # type: ignore[misc]
    """Utterances of one split, sorted by their names.

    Args:
        split: Folder under ``data`` with wav.scp, text and utt2spk.
        recipe_dir: The recipe; default: the one this file is in.
    """

    fields = (Field("speech", "audio"), Field("text", "text"))

    def __init__(self, split: str, recipe_dir: str | Path | None = None):
        root = Path(__file__).resolve().parents[1] if recipe_dir is None else Path(recipe_dir)
        self.data = DataDir.load(root / "data" / split)
        self.names = sorted(self.data.wav)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """Return speech (N,), float32 in [-1, 1] at 16 kHz, and its transcript."""
        name = self.names[int(idx)]
        samples, _ = soundfile.read(self.data.wav[name], dtype="float32")
        return {"speech": np.asarray(samples), "text": self.data.text[name]}
