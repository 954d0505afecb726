"""The three terms of one micro-batch, from one forward pass; and their averages between two logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from pess_hf.decoder_batch import DecoderBatch, Rollout, SentencePairs
from pess_hf.losses import consistency_loss, dialogue_mean, sentence_representations, token_nll

#: The terms by name.
TERMS = ("nll", "completeness", "consistency")


@dataclass(frozen=True)
class PessTerms:
    """Unweighted terms of one micro-batch.

    Args:
        nll_sum: Summed over the reference tokens; the caller divides by the tokens of the global batch.
        completeness: Mean over dialogues.
        consistency: Mean over dialogues.
        not_finite: Whether the term, in the order of `TERMS`, is not a finite number for a dialogue, (3, B) bool.
    """

    nll_sum: torch.Tensor
    completeness: torch.Tensor
    consistency: torch.Tensor
    not_finite: torch.Tensor

    def times(self, num_dialogues: int) -> PessTerms:
        """The same with the means over dialogues turned into sums."""
        means = {"completeness": self.completeness, "consistency": self.consistency}
        return replace(self, **{name: mean * num_dialogues for name, mean in means.items()})


def pess_terms(
    logits: torch.Tensor,
    hidden: torch.Tensor,
    batch: DecoderBatch,
    num_dialogues: int,
    temperature: float,
    label_smoothing: float = 0.0,
) -> PessTerms:
    """Compute the terms from what the model returned.

    Args:
        logits: Scores at the labelled positions, row by row, (N, V).
        hidden: Last decoder hidden states, (R, T, D).
        batch: The decoder rows that were run.
        num_dialogues: B.
        temperature: Of the consistency term.
        label_smoothing: Of the likelihood terms.

    Returns:
        The terms, each a scalar that carries gradient.
    """
    wanted = batch.labels.ne(-100)  # (R, T)
    nll = token_nll(logits, batch.labels[wanted], label_smoothing)  # (N,)
    row_of_token = wanted.nonzero()[:, 0]  # (N,)
    is_reference = row_of_token < num_dialogues
    is_target = _is_target(batch, row_of_token, is_reference, num_dialogues)
    dialogue_of_token = batch.encoder_rows[row_of_token]  # (N,)
    consistency = _consistency_by_dialogue(hidden, batch.pairs, num_dialogues, temperature)  # (B,)
    by_term = [(nll[chosen].detach(), dialogue_of_token[chosen]) for chosen in (is_reference, is_target)]
    sums = [consistency.detach().new_zeros(num_dialogues).index_add(0, rows, values) for values, rows in by_term]
    return PessTerms(
        nll_sum=nll[is_reference].sum(),
        completeness=dialogue_mean(nll[is_target], dialogue_of_token[is_target], num_dialogues),
        consistency=consistency.sum() / num_dialogues,
        not_finite=~torch.stack([*sums, consistency.detach()]).isfinite(),  # (3, B)
    )


def _is_target(
    batch: DecoderBatch, row_of_token: torch.Tensor, is_reference: torch.Tensor, num_dialogues: int
) -> torch.Tensor:
    """Which tokens (N,) belong to new targets: their own rows, or the reference where it is the new target."""
    if batch.target_dialogues is None:
        return torch.zeros_like(is_reference)
    has_own_row = torch.zeros(num_dialogues, dtype=torch.bool, device=is_reference.device)
    has_own_row[batch.target_dialogues] = True
    return ~is_reference | ~has_own_row[batch.encoder_rows[row_of_token]]


def _consistency_by_dialogue(
    hidden: torch.Tensor, pairs: list[SentencePairs], num_dialogues: int, temperature: float
) -> torch.Tensor:
    """One value per dialogue, (B,), 0 where there are no pairs."""
    zeros = hidden.new_zeros(num_dialogues, dtype=torch.promote_types(hidden.dtype, torch.float32))
    if not pairs:
        return zeros
    written = [sentence_representations(hidden[pair.generated_row], _as_read(pair.candidates)) for pair in pairs]
    everyone = torch.cat(written)  # (C, D)
    losses = torch.stack(
        [_consistency(hidden, pair, own, everyone, temperature) for pair, own in zip(pairs, written, strict=True)]
    )
    return zeros.index_add(0, torch.tensor([pair.reference_row for pair in pairs], device=hidden.device), losses)


def _consistency(
    hidden: torch.Tensor, pair: SentencePairs, own: torch.Tensor, everyone: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The term of one dialogue against its own candidates (K, D) and, where they are negatives, everyone's (C, D)."""
    anchors = sentence_representations(hidden[pair.reference_row], _as_read(pair.anchors))  # (A, D)
    positives, negatives = pair.positives.to(hidden.device), pair.negatives.to(hidden.device)  # (A, K)
    if pair.in_batch is None:
        return consistency_loss(anchors, own, positives, negatives, temperature)
    lent = pair.in_batch.to(hidden.device)  # (A, C)
    positives = torch.cat([positives, torch.zeros_like(lent)], dim=1)  # (A, K + C)
    candidates, negatives = torch.cat([own, everyone]), torch.cat([negatives, lent], dim=1)
    return consistency_loss(anchors, candidates, positives, negatives, temperature)


def _as_read(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Label position t is decoder input t + 1: the states that have read the sentence's tokens."""
    return [(start + 1, end + 1) for start, end in spans]


class TermMeter:
    """Weighted averages of named values between two logs: summed on the device, gathered once when read.

    Args:
        names: Values that every process reads, also one that had nothing to add: all have to read the same.

    Example:
        >>> meter = TermMeter()
        >>> meter.add({"nll": torch.tensor(6.0)}, weight=2)
        >>> meter.add({"nll": torch.tensor(2.0)}, weight=2)
        >>> meter.read()
        {'nll': 2.0}
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._names = tuple(names)
        self._totals: dict[str, torch.Tensor] = {}

    def add(self, sums: dict[str, torch.Tensor], weight: float | torch.Tensor) -> None:
        """Add sums of values and the weight by which `read` divides them.

        Args:
            sums: One scalar per name.
            weight: What the sums stand for, such as a number of tokens; the same for all names of this call.
        """
        for name, value in sums.items():
            value = value.detach().float()
            addend = torch.stack([value, torch.as_tensor(weight, device=value.device, dtype=value.dtype)])  # (2,)
            self._totals[name] = self._totals[name] + addend if name in self._totals else addend

    def clear(self) -> None:
        """Start anew without reading."""
        self._totals.clear()

    def read(self, accelerator: Accelerator | None = None) -> dict[str, float]:
        """The averages over all processes, after which the meter starts anew; 0 where nothing weighed anything."""
        names = sorted({*self._names, *self._totals})
        if not names:
            return {}
        nothing = torch.zeros(2, device=None if accelerator is None else accelerator.device)
        totals = torch.stack([self._totals.get(name, nothing) for name in names])  # (names, 2)
        if accelerator is not None:
            totals = accelerator.reduce(totals, reduction="sum")
        self.clear()
        values = torch.where(totals[:, 1] > 0, totals[:, 0] / totals[:, 1], 0.0).tolist()
        return dict(zip(names, values, strict=True))


def consistent_counts(rollouts: list[Rollout]) -> tuple[int, int]:
    """How many of the generated sentences are consistent, and how many were generated."""
    consistent = sum(len(rollout.match.consistent) for rollout in rollouts)
    return consistent, consistent + sum(len(rollout.match.inconsistent) for rollout in rollouts)
