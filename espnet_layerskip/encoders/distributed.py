"""Random decisions that all processes of a distributed training share."""

from __future__ import annotations

import torch


def of_first_process(drawn: torch.Tensor) -> torch.Tensor:
    """Return what the first process drew; without distributed training, what was drawn here.

    All must gate the same batches: a gated batch has other losses and statistics, which ESPnet
    averages over the processes by name.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return drawn
    shared = drawn.cuda() if torch.distributed.get_backend() == "nccl" else drawn.clone()
    torch.distributed.broadcast(shared, src=0)
    return shared.cpu()
