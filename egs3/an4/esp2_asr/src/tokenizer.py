"""Text for the tokenizer."""

from pathlib import Path

from espnet_layerskip.files import DataDir


def training_text(data_dir: str) -> list[str]:
    """Return the transcripts of a data directory."""
    return list(DataDir.load(Path(data_dir)).text.values())
