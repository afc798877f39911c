"""AN4 for ESPnet3: a builder of data directories, and a dataset that reads them."""

from .builder import An4Builder as DatasetBuilder
from .dataset import An4Dataset as Dataset

__all__ = ["Dataset", "DatasetBuilder"]
