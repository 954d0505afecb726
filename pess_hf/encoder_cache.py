"""A frozen encoder's outputs, kept per dialogue, so that each dialogue is encoded once however often it is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch.nn.utils.rnn import pad_sequence

#: Encodes source tokens (B, S) under a mask (B, S) into (B, S, D).
Encode = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class EncoderCache:
    """Least-recently-used outputs of a frozen encoder in eval mode, keyed by the dialogue's token ids.

    Args:
        max_rows: Dialogues kept; one costs about S * D * 4 bytes on the model's device.

    Example:
        >>> cache = EncoderCache(max_rows=8)
        >>> encode = lambda ids, mask: ids[..., None].float()
        >>> cache(torch.tensor([[5, 7, 0]]), torch.tensor([[1, 1, 0]]), encode).shape, cache.misses
        (torch.Size([1, 3, 1]), 1)
    """

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.misses = 0
        self._rows: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, encode: Encode) -> torch.Tensor:
        """Encode a batch, running the encoder only over the dialogues that are not kept.

        Args:
            input_ids: Source tokens, padded on the right, (B, S).
            attention_mask: 1 for real tokens, (B, S).
            encode: Runs the encoder.

        Returns:
            Hidden states, (B, S, D), 0 where there is padding.
        """
        lengths = attention_mask.sum(dim=1).tolist()
        keys = [ids[:length].cpu().numpy().tobytes() for ids, length in zip(input_ids, lengths, strict=True)]
        new = [row for row, key in enumerate(keys) if key not in self._rows]
        if new:
            longest = max(lengths[row] for row in new)
            encoded = encode(input_ids[new, :longest], attention_mask[new, :longest])  # (new, longest, D)
            if encoded.requires_grad:
                raise RuntimeError("EncoderCache: expected a frozen encoder, found one that passes gradients on.")
            for row, hidden in zip(new, encoded, strict=True):
                self._rows[keys[row]] = hidden[: lengths[row]].clone()
        self.misses += len(new)
        rows = [self._rows[key] for key in keys]
        for key in keys:
            self._rows.move_to_end(key)
        while len(self._rows) > self.max_rows:
            self._rows.popitem(last=False)
        padded = pad_sequence(rows, batch_first=True)  # (B, longest, D)
        missing = input_ids.shape[1] - padded.shape[1]
        return torch.nn.functional.pad(padded, (0, 0, 0, missing))  # (B, S, D)
