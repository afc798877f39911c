"""Batches of utterances of similar length."""

from __future__ import annotations

from collections.abc import Sequence


def check_batch_size(batch_size: int) -> int:
    """Return the size if it is at least 1.

    Raises:
        ValueError: Otherwise.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but got {batch_size}")
    return batch_size


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
