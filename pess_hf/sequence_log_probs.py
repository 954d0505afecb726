"""Log-probabilities of finished sequences, by one teacher-forced pass.

`generate` gives them only with the scores of every step, which for eight beams of a BART are gigabytes.

Letters: K sequences, S source tokens, T target tokens, W of them that count, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch


def sequence_log_probs(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    sequences: torch.Tensor,
    ends: int | list[int] | None = None,
    forced_end: int | None = None,
) -> torch.Tensor:
    """How likely an extractor finds each of several answers to one source.

    Args:
        model: The extractor, in the mode that it is to be asked in.
        input_ids: The source, (1, S).
        attention_mask: 1 for its real tokens, (1, S).
        sequences: K answers as `generate` returns them: the start token, the text, the end, padding; (K, T).
        ends: The tokens that end an answer; what comes after one counts nothing.
        forced_end: How many tokens `generate` writes before it forces the end, which then counts nothing, as in the
            scores of its search; None where it forces none.

    Returns:
        Their log-probabilities (natural logarithm), the end token's included, (K,). An answer that is cut off without
        an end counts with the probability of its beginning.

    Example:
        >>> sequence_log_probs(model, input_ids, attention_mask, sequences).shape  # doctest: +SKIP
        torch.Size([8])
    """
    targets = sequences[:, 1:]  # (K, T - 1)
    counts = ~_after_end(targets, ends)  # (K, T - 1)
    if forced_end is not None:
        counts[:, forced_end:] = False
    width = max(1, int(counts.sum(-1).max()))  # other sources' answers may be longer
    targets, counts = targets[:, :width], counts[:, :width]  # (K, W)
    outputs = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        decoder_input_ids=sequences[:, :width],
    )
    log_probs = outputs.logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]  # (K, W)
    return (log_probs * counts).sum(-1)  # (K,)


def _after_end(targets: torch.Tensor, ends: int | list[int] | None) -> torch.Tensor:
    """Whether a token comes after the first end token, (K, T)."""
    end_tokens = torch.tensor([] if ends is None else ends, dtype=targets.dtype, device=targets.device)
    is_end = torch.isin(targets, end_tokens)  # (K, T)
    return (is_end.cumsum(-1) - is_end.long()) > 0
