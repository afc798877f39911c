#!/usr/bin/env python3
"""Make an experiment that decodes a trained one with gates that it has not, without training.

::

    python -m espnet_layerskip.recipe.add_gate exp/asr_conformer exp/asr_conformer_gated \\
        gate_layer_idx=[4] spike_extension=[1,1]

Only the configuration changes (``encoder: layerskip_<the stock name>`` and the options given);
the checkpoints are linked, since the parameter names are the same. The gates use the final CTC
head, so the training needs ESPnet's intermediate CTC at their layers
(``interctc_layer_idx``, ``interctc_weight``). An experiment of ours may be given other gates.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from espnet_layerskip.files import read_yaml, run_main, write_text


def add_gate(source: Path, target: Path, options: dict[str, Any]) -> None:
    """Write ``target`` as a gated view of the experiment ``source``.

    Args:
        source: Experiment folder of a training, stock or ours: config.yaml and checkpoints.
        target: Folder to make; made again if it is there.
        options: Encoder options, ``gate_layer_idx`` among them.

    Raises:
        ValueError: If ``source`` is no experiment, has heads of its own for its gates or an
            encoder that cannot skip; if a gate is at a layer without a trained CTC, none is given
            or an option does not fit; or if ``target`` is a training.
    """
    config_file = source / "config.yaml"
    if not config_file.is_file():
        raise ValueError(f"{source} is not an experiment: there is no {config_file}")
    config = read_yaml(config_file)
    model, encoder = config.get("model_conf") or {}, config["encoder_conf"]
    if model.get("interctc_head") == "own":
        raise ValueError(f"{source} has interctc_head: own, heads for its own gates alone")
    trained = {*encoder.get("interctc_layer_idx", ()), *encoder.get("gate_layer_idx", ())}
    trained = trained if model.get("interctc_weight") else set()
    gates = set(options.get("gate_layer_idx") or ())
    if not gates or not gates <= trained:
        raise ValueError(
            "gate_layer_idx=[K,...] is needed, layers whose CTC was trained (interctc_layer_idx "
            f"with interctc_weight > 0): of {sorted(trained)}, but got {sorted(gates)}"
        )
    for weights in target.glob("valid.*.pth"):
        if not weights.is_symlink() or target.resolve() == source.resolve():
            raise ValueError(f"{target} is a training ({weights.name}): name a folder to make")
    config["encoder"] = gated_name(config, options)
    config["encoder_conf"] = {**encoder, **options}
    write_text(target / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    for checkpoint in source.glob("valid.*.pth"):
        link = target / checkpoint.name
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(checkpoint.resolve(), target.resolve()))


def gated_name(config: dict[str, Any], options: dict[str, Any]) -> str:
    """Return what a configuration calls the gated form of its encoder.

    Raises:
        ValueError: If the encoder cannot skip so.
    """
    from espnet_layerskip._compat import encoder_class
    from espnet_layerskip.encoders import ENCODERS
    from espnet_layerskip.encoders.convert import from_stock
    from espnet_layerskip.method.settings import SkipSettings
    from espnet_layerskip.registry import register

    register()
    conf = config["encoder_conf"]
    built = encoder_class(config["encoder"])(input_size=config.get("input_size") or 80, **conf)
    names = {*SkipSettings.__dataclass_fields__, "train_skip_prob", "train_spike_extensions"}
    kept = {name: value for name, value in conf.items() if name in names}
    try:
        gated = from_stock(built, **{**kept, **options})
    except TypeError as e:
        raise ValueError(f"options are those of skipping ({', '.join(sorted(names))}): {e}") from e
    return next(name for name, ours in ENCODERS.items() if type(gated) is ours)


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command; ``cmd`` stands in for the command line's arguments."""
    parser = argparse.ArgumentParser(prog="add_gate", description="Decode with other gates")
    parser.add_argument("source", type=Path, help="Experiment folder of the training")
    parser.add_argument("target", type=Path, help="Experiment folder to make")
    parser.add_argument("options", nargs="+", metavar="KEY=VALUE", help="Encoder options, YAML")
    args = parser.parse_args(cmd)
    pairs = [option.partition("=") for option in args.options]
    if wrong := [key for key, sign, _ in pairs if not sign]:
        raise ValueError(f"options are KEY=VALUE, but got {', '.join(wrong)}")
    try:
        options = {key: yaml.safe_load(value) for key, _, value in pairs}
    except yaml.YAMLError as err:
        raise ValueError(f"the value of an option is not YAML: {err}") from err
    add_gate(args.source, args.target, options)


if __name__ == "__main__":
    run_main(main)
