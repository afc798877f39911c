"""ESPnet's ASR task with our classes registered in every process that runs it."""

from __future__ import annotations

import argparse
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from espnet_layerskip._compat import asr_task
from espnet_layerskip.training.checkpoint import config_without_init, load_checkpoint
from espnet_layerskip.training.device import check_device
from espnet_layerskip.training.resume import (
    check_tokens,
    leads,
    mend,
    own_config,
    tidy,
    told_plainly,
    whole_files,
)

ASRTask: Any = asr_task()  # its import registers our classes, see `registry`


TRAIN_GATES = ("interctc_weight", "kd_blank_weight", "kd_label_weight")  # of model_conf


def warn_of_untrained_gates(args: argparse.Namespace) -> None:
    """Say where a training would use gates whose CTC head it does not train."""
    gates = (getattr(args, "encoder_conf", None) or {}).get("gate_layer_idx")
    weights = getattr(args, "model_conf", None) or {}
    if gates and not any(weights.get(name) for name in TRAIN_GATES):
        logging.warning(
            "nothing trains the CTC head at the gates (layers %s), which may be wrong there: set "
            "model_conf: interctc_weight, or kd_blank_weight with kd_label_weight",
            gates,
        )


class LayerSkipASRTask(ASRTask):  # type: ignore[misc]
    """ASRTask for ``encoder: layerskip_*`` and ``model: layerskip``, and for stock twins.

    Multi-GPU training starts children that import this module by its name, so they are
    registered too. Unlike ESPnet's, ``build_model_from_file`` loads checkpoints as tensors
    only, refuses those that do not fit, and leaves out ``init`` of the configuration where
    weights are loaded. A training can be stopped at any moment: see `resume`.
    """

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """Collect statistics or train; in each process of a training.

        Raises:
            ValueError: If the training to go on with is damaged, of another model or of other
                tokens, the configuration cannot be used, or there is no GPU for it.
        """
        if args.ngpu:
            check_device("cuda")
        if args.resume and args.output_dir:
            if not getattr(args, "distributed", False):
                tidy(Path(args.output_dir))
            check_tokens(Path(args.output_dir), getattr(args, "token_list", None))
            mend(Path(args.output_dir))
        if not getattr(args, "collect_stats", False):
            warn_of_untrained_gates(args)
        kept = own_config(args.output_dir) if leads(args) else nullcontext()
        with whole_files(), kept, told_plainly(args):
            super().main_worker(args)

    @classmethod
    def build_model_from_file(
        cls,
        config_file: Path | str | None = None,
        model_file: Path | str | None = None,
        device: str = "cpu",
    ) -> tuple[Any, argparse.Namespace]:
        """Build a model and load its weights.

        Args:
            config_file: config.yaml of the training; default: beside ``model_file``.
            model_file: Checkpoint; None = random weights.
            device: "cpu", "cuda" or "cuda:N".

        Raises:
            ValueError: If the checkpoint does not fit the model.
        """
        if model_file is None:
            model, args = super().build_model_from_file(config_file, None, "cpu")
            return model.to(device), args
        with config_without_init(config_file or Path(model_file).parent / "config.yaml") as config:
            model, args = super().build_model_from_file(config, None, "cpu")
        load_checkpoint(model, model_file)
        return model.to(device), args
