"""The order of training rows under `train_sampling_strategy: group_by_length`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class EpochLengthGroups(LengthGroupedSampler):
    """Rows of like length together, in an order that seed and epoch alone decide.

    `Trainer` draws it from each process' own random state: once dropout has moved these apart, processes disagree on
    the order and rows are trained twice or not at all, and so are those after a resumption in a later epoch.

    Args:
        batch_size: Rows of an optimiser step, over all processes; as many neighbours are of like length.
        lengths: Of every row.
        seed: Decides the order.
        epoch: Tells the epoch, counted from 0, when an epoch begins; a fraction counts as the epoch it is in.

    Example:
        >>> orders = [list(EpochLengthGroups(2, [5, 1, 4, 2], 0, lambda: epoch)) for epoch in (0, 0.5, 1)]
        >>> orders[0] == orders[1], sorted(orders[2])
        (True, [0, 1, 2, 3])
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int, epoch: Callable[[], float | None]) -> None:
        super().__init__(batch_size, lengths=lengths)
        self._seed, self._epoch = seed, epoch

    def __iter__(self) -> Iterator[int]:
        """The rows' numbers."""
        self.generator = torch.Generator().manual_seed(self._seed + int(self._epoch() or 0))
        return super().__iter__()
