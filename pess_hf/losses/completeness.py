"""The completeness term: the likelihood of a target that keeps what was right and adds what was missed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pess_hf.similarity import PersonaMatch


def completeness_target(generated: Sequence[str], reference: Sequence[str], match: PersonaMatch) -> list[str]:
    """Build the new target persona of one dialogue (PESS, arXiv 2403.04212, the completeness loss).

    The consistent generated sentences come first, in the order in which they were generated, then the reference
    sentences that nothing generated covers, in reference order.

    Args:
        generated: The k sentences that the model wrote.
        reference: The m sentences of the reference persona.
        match: How the two meet, from `PersonaMatcher.match`.

    Returns:
        The sentences of the new target. Empty only when both parts are.

    Example:
        >>> import numpy as np
        >>> match = PersonaMatch(np.array([[0.9, 0.1], [0.2, 0.1]]), consistent=[0], inconsistent=[1], missing=[1])
        >>> completeness_target(["I own a dog.", "I fly."], ["I have a dog.", "I sing."], match)
        ['I own a dog.', 'I sing.']
    """
    return [generated[j] for j in match.consistent] + [reference[i] for i in match.missing]


def dialogue_mean(values: torch.Tensor, rows: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Mean over the tokens of a dialogue, then over dialogues.

    Args:
        values: One value per token, (N,).
        rows: Which dialogue each token belongs to, (N,), in [0, num_rows).
        num_rows: How many dialogues there are, B; one without tokens contributes 0 and still counts.

    Returns:
        A scalar. The gradient flows into `values`.

    Example:
        >>> dialogue_mean(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]), num_rows=2)
        tensor(3.5000)
    """
    sums = values.new_zeros(num_rows).index_add(0, rows, values)  # (B,)
    counts = values.new_zeros(num_rows).index_add(0, rows, torch.ones_like(values))  # (B,)
    return (sums / counts.clamp(min=1)).sum() / max(num_rows, 1)
