"""Cross-attention whose keys and values are projected once per dialogue, however many decoder rows read it.

Letters: B dialogues, R decoder rows, S source tokens, T target tokens, H heads, d width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask

Pair = tuple[torch.Tensor, torch.Tensor]


class _PassThrough(DynamicCache):
    """Keeps nothing: under teacher forcing there is no step before this one."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any) -> Pair:
        return key_states, value_states


class _RowsOf(Cache):
    """Hands each decoder row the keys and values of its dialogue."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self._rows = rows

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any) -> Pair:
        # (B, H, S, d) -> (R, H, S, d); on the CPU index_select has a far faster backward than indexing
        return key_states.index_select(0, self._rows), value_states.index_select(0, self._rows)


def shared_cross_attention(encoder_rows: torch.Tensor) -> EncoderDecoderCache:
    """A cache that remembers nothing and lets R decoder rows attend to B encoded dialogues.

    A decoder hands the keys and values that it projected to the cache it is given and attends to what comes back:
    the one documented place where B rows can become R after the projection. Gradient flows through. It serves one
    forward pass, without gradient checkpointing, under which layers take no cache.

    Args:
        encoder_rows: The dialogue of each decoder row, (R,), in [0, B).

    Example:
        >>> cache = shared_cross_attention(torch.tensor([0, 1, 1]))
        >>> keys = torch.ones(2, 4, 7, 8)
        >>> cache.cross_attention_cache.update(keys, keys, layer_idx=0)[0].shape
        torch.Size([3, 4, 7, 8])
    """
    return EncoderDecoderCache(_PassThrough(), _RowsOf(encoder_rows))


def rows_mask(config: PreTrainedConfig, mask: torch.Tensor, encoded: torch.Tensor, num_targets: int) -> Any:
    """The source mask of R decoder rows in the form that the decoder's attention takes.

    A decoder would make a mask for as many rows as there are encoded dialogues; one that is ready it leaves alone.

    Args:
        config: The decoder's config, which names the kind of attention.
        mask: 1 for real source tokens, (R, S).
        encoded: Encoded dialogues, (B, S, D); only their type and device matter.
        num_targets: T.

    Returns:
        (R, 1, T, S) for most kinds, (R, S), a `BlockMask` or None for others.

    Example:
        >>> mask = rows_mask(model.config, torch.ones(6, 160), encoded, num_targets=48)  # doctest: +SKIP
    """
    rows, length = mask.shape
    nothing = encoded.new_empty(1, 1, 1)
    return create_bidirectional_mask(
        config=config,
        inputs_embeds=nothing.expand(rows, num_targets, 1),
        attention_mask=mask,
        encoder_hidden_states=nothing.expand(rows, length, 1),
    )
