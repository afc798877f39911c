"""The task under the name that configurations of ESPnet3 give it."""

from espnet_layerskip.training.task import LayerSkipASRTask

__all__ = ["LayerSkipASRTask"]
