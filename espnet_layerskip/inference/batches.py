"""Batches of utterances of similar length."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from espnet_layerskip.method.settings import check_count

T = TypeVar("T")

logger = logging.getLogger(__name__)


def check_batch_size(batch_size: int) -> int:
    """Return the size if it is a whole number of at least 1; ValueError otherwise."""
    return check_count("batch_size", batch_size)


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Group utterances with those nearest in length.

    Args:
        lengths: Of the utterances, in any unit.
        batch_size: Utterances of a batch; the last batch, of the longest, may have fewer.

    Returns:
        Batches of indices into ``lengths``, from short to long.

    Raises:
        ValueError: If ``batch_size`` is less than 1.

    Example:
        >>> by_length([9, 2, 7, 1, 8], batch_size=2)
        [[3, 1], [2, 4], [0]]
    """
    check_batch_size(batch_size)
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def in_halves(
    decode: Callable[[list[int]], list[T]], batch: list[int], lengths: Sequence[int]
) -> list[T]:
    """Decode a batch; one that does not fit in the memory is decoded in halves.

    Args:
        decode: Decodes utterances, given by their indices.
        batch: Indices into ``lengths``.
        lengths: Samples of all utterances, for messages.

    Returns:
        What ``decode`` returned for each of the batch.

    Raises:
        RuntimeError: If an utterance does not fit on its own; says which.
    """
    try:
        return decode(batch)
    except Exception as e:
        if not is_out_of_memory(e):
            raise
        if len(batch) == 1:
            raise RuntimeError(
                f"out of memory while decoding a single utterance of {lengths[batch[0]]} samples, "
                "even on its own: decode it where there is more memory, lower beam_size, or cut it"
            ) from e
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
    half = len(batch) - len(batch) // 2
    logger.warning(
        "Out of memory with a batch of %d utterances (%s samples): in halves now; a smaller batch "
        "size saves the retry",
        len(batch),
        ", ".join(str(lengths[i]) for i in batch),
    )
    parts = batch[:half], batch[half:]
    return [one for part in parts for one in in_halves(decode, part, lengths)]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or what it was raised from, says that the memory is too small."""
    if isinstance(error, RuntimeError) and "out of memory" in str(error).lower():
        return True  # torch.OutOfMemoryError is one
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)
