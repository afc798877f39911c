"""Whether a model knows a data set: whether it was trained on it, or chosen by it.

A training's config.yaml names its training and validation sets. Checkpoints are kept and averaged
by the validation set, and so mostly are seeds and settings chosen. What is compared: the ids of the
utterances, and the audio files. So a copy of a table, or a part of a set, is recognised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from espnet_layerskip.evaluation.inputs import located
from espnet_layerskip.files import read_usable, read_yaml

ROLES = {"train": "trained the model", "valid": "chose the checkpoint"}


def what_it_did(train_config: Path, data_dir: Path) -> tuple[dict[str, str], list[str]]:
    """Return what a data set did for a model.

    Args:
        train_config: The training's configuration, in the experiment directory.
        data_dir: Kaldi data directory.

    Returns:
        What it did ("trained the model", "chose the checkpoint"), each with how that is known;
        and the tables of the configuration that cannot be read: what these hold is not known.

    Raises:
        ValueError: If the configuration or ``wav.scp`` cannot be read.
    """
    config, directory = read_yaml(train_config), train_config.resolve().parent
    ours, _ = read_usable(data_dir / "wav.scp")
    ids, names_of_audio = set(ours), {Path(path).name for path in ours.values()}
    audio = _files(ours, data_dir.resolve(), names_of_audio)
    did: dict[str, str] = {}
    missing: dict[str, list[str]] = {}
    for part, role in ROLES.items():
        known, names = False, list(_tables(config, part))
        if part == "valid" and not names:
            missing[part] = ["valid_data_path_and_name_and_type"]
        for name in names:
            path = Path(located(name, directory)).resolve()
            try:
                theirs, _ = read_usable(path, allow_empty_value=True)
            except ValueError:  # not there, or in another format
                missing.setdefault(part, []).append(name)
                continue
            known = True
            common = len(ids & set(theirs))
            if path.name == "wav.scp" and not common:
                common = len(audio & _files(theirs, path.parent, names_of_audio))
            if common:
                did.setdefault(role, f"{common} of its {len(ids)} utterances are in {name}")
        if known:  # one table of a set names all its utterances
            missing.pop(part, None)
    return did, [name for names in missing.values() for name in names]


def _tables(config: Mapping[str, Any], part: str) -> Iterator[str]:
    """Yield the files of a set that have a line for each utterance."""
    yield from config.get(f"{part}_shape_file") or ()
    for path, *_ in config.get(f"{part}_data_path_and_name_and_type") or ():
        yield path


def _files(table: Mapping[str, str], directory: Path, names: Set[str]) -> set[Path]:
    """Return the audio files of a wav.scp that have one of these names."""
    few = [path for path in table.values() if Path(path).name in names]
    return {Path(located(path, directory)).resolve() for path in few}
