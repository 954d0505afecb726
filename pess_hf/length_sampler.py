"""Rows of like length in one batch, the batches in random order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class ShuffledLengthSampler(LengthGroupedSampler):
    """Groups rows by length as transformers does, and shuffles the batches.

    Transformers' own sampler goes from the longest to the shortest batch of every fifty, and again. Where length says
    something about the target, as with windows of dialogues, whose shortest tell nothing, the model is taught one
    thing for some steps and then another.

    The batch with the longest row stays the first, so that a lack of memory shows at once, and an incomplete batch the
    last.

    Args:
        batch_size: Rows that are to be of like length.
        lengths: The length of each row.
        generator: Decides the order; by default torch's own.

    Example:
        >>> sampler = ShuffledLengthSampler(2, lengths=[5, 1, 5, 1])
        >>> sorted(sampler)
        [0, 1, 2, 3]
    """

    def __init__(self, batch_size: int, lengths: list[int], generator: torch.Generator | None = None) -> None:
        super().__init__(batch_size, lengths=lengths, generator=generator)

    def __iter__(self) -> Iterator[int]:
        """Row indices."""
        rows = list(super().__iter__())
        whole = len(rows) // self.batch_size * self.batch_size
        first, *others = [rows[start : start + self.batch_size] for start in range(0, whole, self.batch_size)] or [[]]
        order = torch.randperm(len(others), generator=self.generator).tolist()
        return chain(first, *(others[n] for n in order), rows[whole:])


class EpochLengthSampler(ShuffledLengthSampler):
    """Rows of like length together, in an order that seed and epoch alone decide.

    `Trainer` draws it from each process' own random state: once dropout has moved these apart, processes disagree on
    the order and rows are trained twice or not at all, and so are those after a resumption in a later epoch.

    Args:
        batch_size: Rows of an optimiser step, over all processes; as many neighbours are of like length.
        lengths: Of every row.
        seed: Decides the order.
        epoch: Tells the epoch, counted from 0, when an epoch begins; a fraction counts as the epoch it is in.

    Example:
        >>> orders = [list(EpochLengthSampler(2, [5, 1, 4, 2], 0, lambda: epoch)) for epoch in (0, 0.5, 1)]
        >>> orders[0] == orders[1], sorted(orders[2])
        (True, [0, 1, 2, 3])
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int, epoch: Callable[[], float | None]) -> None:
        super().__init__(batch_size, lengths)
        self._seed, self._epoch = seed, epoch

    def __iter__(self) -> Iterator[int]:
        """The rows' numbers."""
        self.generator = torch.Generator().manual_seed(self._seed + int(self._epoch() or 0))
        return super().__iter__()
