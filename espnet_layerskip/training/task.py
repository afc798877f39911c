"""ESPnet's ASR task with our classes registered in every process that runs it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from espnet_layerskip._compat import asr_task
from espnet_layerskip.training.checkpoint import config_without_init, load_checkpoint
from espnet_layerskip.training.device import check_device
from espnet_layerskip.training.resume import mend, own_config, tidy, told_plainly, whole_files

ASRTask: Any = asr_task()  # its import registers our classes, see `registry`


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
            ValueError: If the training to go on with is damaged or of another model, the
                configuration cannot be used, or there is no GPU for it.
        """
        if args.ngpu:
            check_device("cuda")
        if args.resume and args.output_dir:
            if not getattr(args, "distributed", False):
                tidy(Path(args.output_dir))
            mend(Path(args.output_dir))
        with whole_files(), own_config(args.output_dir), told_plainly(args):
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
