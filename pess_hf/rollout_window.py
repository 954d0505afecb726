"""Rollouts for several micro-batches at once: the window between the data loader and the training step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pess_hf.data.collator import pad_labels
from pess_hf.decoder_batch import Rollout

#: What the window adds to a micro-batch: one `Rollout` per dialogue.
ROLLOUT_KEY = "rollout_ids"
_FILE = "rollouts_{rank}.safetensors"

Batch = dict[str, Any]
#: Per micro-batch, the token ids of each dialogue's rollout.
TokenIds = list[list[torch.Tensor]]


class RolloutWindow:
    """Iterates over micro-batches, making the rollouts of a whole window when the first of it is asked for.

    While the PESS terms are off micro-batches pass through one by one. Rollouts that are made but not yet used
    belong to the training state: they came from weights that a resumed run no longer has. So the trainer saves
    `pending` with a checkpoint and hands it back as `restored`.

    Args:
        source: Micro-batches.
        size: Micro-batches in a window.
        roll_out: Makes the rollouts of some micro-batches, one list per micro-batch with one `Rollout` per dialogue;
            its second argument, where not None, are their token ids from before a restart.
        is_active: Whether the PESS terms are on now.
        restored: Token ids for the first micro-batches.

    Example:
        >>> window = RolloutWindow(iter([{"row": 1}, {"row": 2}]), 8, lambda batches, _: [[b["row"]] for b in batches],
        ...                        is_active=lambda: True)
        >>> [batch[ROLLOUT_KEY] for batch in window]
        [[1], [2]]
    """

    def __init__(
        self,
        source: Iterator[Batch],
        size: int,
        roll_out: Callable[[list[Batch], TokenIds | None], list[list[Rollout]]],
        is_active: Callable[[], bool],
        restored: TokenIds | None = None,
    ) -> None:
        self.source = source
        self._size = size
        self._roll_out = roll_out
        self._is_active = is_active
        self._restored = restored
        self._ready: deque[Batch] = deque()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next micro-batch, with its rollouts where the PESS terms are on."""
        if not self._ready and not self._restored and not self._is_active():
            return next(self.source)
        if not self._ready:
            self._fill()
        return self._ready.popleft()

    def _fill(self) -> None:
        restored, self._restored = self._restored or None, None
        batches = list(islice(self.source, len(restored) if restored else self._size))
        if not batches:
            raise StopIteration
        for batch, rollouts in zip(batches, self._roll_out(batches, restored), strict=True):
            self._ready.append({**batch, ROLLOUT_KEY: rollouts})

    def pending(self) -> TokenIds:
        """Token ids of the rollouts that were made and not handed out yet, per micro-batch and dialogue."""
        return [[rollout.token_ids for rollout in batch[ROLLOUT_KEY]] for batch in self._ready]


def save_pending(pending: TokenIds, folder: str | Path, rank: int) -> None:
    """Write pending rollouts into a checkpoint folder; token ids only, no text.

    Args:
        pending: Per micro-batch the token ids of each dialogue.
        folder: The checkpoint's folder.
        rank: This process; each keeps its own.
    """
    tensors = {
        f"{index:04d}": pad_labels([ids.tolist() for ids in rollouts]) for index, rollouts in enumerate(pending)
    }
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_file(tensors, Path(folder) / _FILE.format(rank=rank))


def load_pending(folder: str | Path, rank: int, device: torch.device) -> TokenIds:
    """Read back what `save_pending` wrote; nothing where the file is absent."""
    path = Path(folder) / _FILE.format(rank=rank)
    if not path.is_file():
        return []
    tensors = load_file(path, device=str(device))
    return [[row[row.ne(-100)] for row in tensors[name]] for name in sorted(tensors, key=int)]
