"""The eight support strategies: their tokens, their names, and their place in decoding.

Letters used in shapes: B batch, R running sequences (batch times beams), T decoded tokens, V vocabulary, S strategies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AddedToken, LogitsProcessor

from .strategy_names import STRATEGIES, bare_name


def add_strategy_tokens(tokenizer: Any, strategies: Sequence[str] = STRATEGIES) -> list[int]:
    """Add the strategy tokens to a tokenizer as special tokens and return their ids.

    Tokens that are there already keep their ids. The model's embedding is not touched: hand the tokenizer to
    `PessGenerator.from_backbone`, or call `model.resize_token_embeddings(len(tokenizer))`.

    Args:
        tokenizer: A transformers tokenizer; it is changed in place.
        strategies: The tokens to add.

    Returns:
        One id for each of `strategies`, in order.

    Example:
        >>> ids = add_strategy_tokens(tokenizer)
        >>> tokenizer.convert_ids_to_tokens(ids[:1])
        ['[Question]']
    """
    tokens = [AddedToken(token, special=True, normalized=False) for token in strategies]
    tokenizer.add_tokens(tokens, special_tokens=True)
    return list(tokenizer.convert_tokens_to_ids(list(strategies)))


def strategy_index(name: str, strategies: Sequence[str] = STRATEGIES) -> int:
    """Position of a strategy, given as a name (``"Question"``) or as its token (``"[Question]"``).

    Args:
        name: The strategy; case and the brackets do not matter, ESConv's "Questions" and "Other" are understood.
        strategies: The known tokens.

    Returns:
        The index into `strategies`.

    Raises:
        ValueError: The name is none of them; the message lists those there are.

    Example:
        >>> strategy_index("Self-disclosure")
        3
    """
    known = [bare_name(token) for token in strategies]
    try:
        return [entry.casefold() for entry in known].index(bare_name(str(name)).casefold())
    except ValueError:
        listed = ", ".join(known)
        raise ValueError(f"Unknown strategy {name!r}: expected one of {listed}. Correct the name.") from None


class StrategyLogitsProcessor(LogitsProcessor):
    """Restrict the first decoded token to the strategies and keep them out of the response.

    The scores of the first token become log-probabilities over the strategies (or over the forced one, where there
    is one); at every later step the strategy tokens are banned. Nothing is remembered between steps.

    Args:
        strategy_token_ids: The ids of the S strategy tokens.
        forced: One index into them for each row of the batch, None where the model is to predict; None for no row.

    Example:
        >>> processor = StrategyLogitsProcessor([4, 5], forced=[1])
        >>> processor(torch.tensor([[0]]), torch.zeros(1, 6)).argmax(-1)
        tensor([5])
    """

    def __init__(self, strategy_token_ids: Sequence[int], forced: Sequence[int | None] | None = None) -> None:
        self.strategy_token_ids = list(strategy_token_ids)
        self.forced = None if forced is None else list(forced)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores (R, V) after the rules, given the ids so far, `input_ids` (R, T)."""
        ids = torch.tensor(self.strategy_token_ids, device=scores.device)  # (S,)
        if input_ids.shape[1] > 1:
            return scores.index_fill(1, ids, -torch.inf)
        candidates = scores[:, ids].masked_fill(~self._allowed(scores), -torch.inf)  # (R, V) -> (R, S)
        if candidates.isneginf().all(dim=1).any():
            raise ValueError(
                "No strategy token is possible as the first decoded token: forced_bos_token_id, forced_eos_token_id, "
                "bad_words_ids or suppress_tokens rule them out. Set these to None, or allow more new tokens."
            )
        restricted = torch.full_like(scores, -torch.inf)
        restricted[:, ids] = candidates.log_softmax(dim=-1)
        return restricted

    def _allowed(self, scores: Tensor) -> Tensor:
        """Which strategies each running sequence may start with, (R, S)."""
        rows, size = scores.shape[0], len(self.strategy_token_ids)
        if self.forced is None:
            return torch.ones(rows, size, dtype=torch.bool, device=scores.device)
        allowed = [[index is None or index == own for own in range(size)] for index in self.forced]
        table = torch.tensor(allowed, device=scores.device)  # (B, S)
        return table.repeat_interleave(rows // len(allowed), dim=0)  # (B, S) -> (R, S)
