"""Print the files that a model needs by its configuration, one a line, for stage 14 of asr.sh.

Example::

    python -m espnet_layerskip.recipe.named_files exp/asr_x/config.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path

from espnet_layerskip.files import read_yaml, run_main
from espnet_layerskip.inference.pretrained import check_files, map_files


def named_files(path: Path) -> list[str]:
    """Return the files that a configuration names: statistics, SentencePiece model and the like.

    Raises:
        ValueError: If the configuration cannot be read, or statistics or SentencePiece model are
            missing.
    """
    config, names = read_yaml(path), dict[str, None]()

    def take(name: str) -> str:
        names[name] = None
        return name

    check_files(config, path)
    map_files(config, take)
    return list(names)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Files that a model needs")
    parser.add_argument("config", type=Path, help="config.yaml of a training")
    print("\n".join(named_files(parser.parse_args().config)))


if __name__ == "__main__":
    run_main(main)
