"""One decoder batch for all three terms: [reference | new target | generated] over dialogues encoded once.

Letters: B dialogues, R decoder rows, T target tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

import numpy as np
import torch

from pess_hf.data.collator import pad_labels
from pess_hf.encoding import EncodedTarget
from pess_hf.losses import completeness_target
from pess_hf.similarity import PersonaMatch

#: One half-open token range per sentence.
Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Rollout:
    """What the model wrote for one dialogue, and how it meets the reference.

    Args:
        generated: The sentences written, each once.
        match: Their match with the reference persona.
        token_ids: What the model wrote, token by token, (T,).
    """

    generated: list[str]
    match: PersonaMatch
    token_ids: torch.Tensor


@dataclass(frozen=True)
class SentencePairs:
    """The consistency term's input of one dialogue.

    Args:
        reference_row: Decoder row of the reference persona.
        generated_row: Decoder row of the generated persona.
        anchors: Token ranges of the A reference sentences.
        candidates: Token ranges of the K generated sentences.
        positives: (A, K) bool.
        negatives: (A, K) bool.
        in_batch: Which candidates of the whole micro-batch, in the order of its pairs, are negatives too, (A, C) bool;
            None for none.
    """

    reference_row: int
    generated_row: int
    anchors: Spans
    candidates: Spans
    positives: torch.Tensor
    negatives: torch.Tensor
    in_batch: torch.Tensor | None = None


@dataclass(frozen=True)
class DecoderBatch:
    """Decoder rows of one micro-batch.

    Args:
        target_ids: Target tokens of every row, (R, T), -100 on the right.
        labels: The same with -100 in the generated rows too, which need no logits, (R, T).
        encoder_rows: The dialogue of each row, (R,).
        target_dialogues: The dialogues whose new target has a row, in row order after the first B rows; the new
            target of any other dialogue is its reference. None while the completeness term is off.
        pairs: The consistency term's input, for the dialogues that have positives and negatives, or lend negatives.
    """

    target_ids: torch.Tensor
    labels: torch.Tensor
    encoder_rows: torch.Tensor
    target_dialogues: list[int] | None
    pairs: list[SentencePairs]

    def to(self, device: torch.device) -> DecoderBatch:
        """The same batch with its tensors on `device`."""
        tensors = {name: getattr(self, name).to(device) for name in ("target_ids", "labels", "encoder_rows")}
        return replace(self, **tensors)


def build_decoder_batch(
    references: Sequence[Sequence[str]],
    rollouts: Sequence[Rollout] | None,
    encode: Callable[[list[list[str]]], list[EncodedTarget]],
    threshold: float,
    use_completeness: bool = True,
    use_consistency: bool = True,
    similarity: np.ndarray | None = None,
) -> DecoderBatch:
    """Lay out the decoder rows of one micro-batch.

    Args:
        references: Reference sentences per dialogue, B lists.
        rollouts: One per dialogue; None for the plain likelihood term alone.
        encode: Tokenises personas, such as `PersonaCollator.encode_personas`.
        threshold: The matching threshold, which decides the positives.
        use_completeness: Add a row per dialogue whose new target is not just its reference.
        use_consistency: Add a generated row per dialogue that has positives and negatives.
        similarity: Cosines of all reference sentences and all generated ones, (M, K), for negatives from the other
            dialogues, and then a generated row per dialogue for which anything was written; None for none.

    Returns:
        The batch, on the CPU.

    Example:
        >>> encode = lambda personas: [EncodedTarget([7] * len(p) + [2], [], 0) for p in personas]
        >>> build_decoder_batch([["I sing."], ["I ski."]], None, encode, threshold=0.6).target_ids.tolist()
        [[7, 2], [7, 2]]
    """
    targets = _target_rows(references, rollouts, use_completeness)
    pairs_of = _generated_rows(rollouts, use_consistency, similarity is not None)
    encoded = encode([list(persona) for persona in references] + list(targets.values()) + list(pairs_of.values()))
    num_scored = len(references) + len(targets)
    target_ids = pad_labels([target.input_ids for target in encoded])  # (R, T)
    labels = target_ids.clone()
    labels[num_scored:] = -100
    pairs = [
        _sentence_pairs(rollouts[row].match, encoded[row], encoded[num_scored + k], row, num_scored + k, threshold)
        for k, row in enumerate(pairs_of)
        if rollouts is not None
    ]
    if rollouts is not None and similarity is not None:
        pairs = _with_in_batch(pairs, references, rollouts, encoded, similarity < threshold)
    dialogues = [*range(len(references)), *targets, *pairs_of]
    has_targets = rollouts is not None and use_completeness
    return DecoderBatch(target_ids, labels, torch.tensor(dialogues), list(targets) if has_targets else None, pairs)


def _target_rows(
    references: Sequence[Sequence[str]], rollouts: Sequence[Rollout] | None, wanted: bool
) -> dict[int, list[str]]:
    """New targets of the dialogues where they differ from the reference; elsewhere its row serves both terms."""
    if rollouts is None or not wanted:
        return {}
    targets = {
        row: completeness_target(rollout.generated, persona, rollout.match)
        for row, (rollout, persona) in enumerate(zip(rollouts, references, strict=True))
    }
    return {row: target for row, target in targets.items() if target != list(references[row])}


def _generated_rows(rollouts: Sequence[Rollout] | None, wanted: bool, in_batch: bool) -> dict[int, list[str]]:
    """Generated sentences of the dialogues that have positives and negatives, or lend negatives to others."""
    if rollouts is None or not wanted:
        return {}
    both = [row for row, rollout in enumerate(rollouts) if rollout.match.consistent and rollout.match.inconsistent]
    spoken = [row for row, rollout in enumerate(rollouts) if rollout.generated]
    lends = in_batch and len(spoken) > 1 and any(rollout.match.consistent for rollout in rollouts)
    rows = spoken if lends else both
    return {row: rollouts[row].generated for row in rows}


def _sentence_pairs(
    match: PersonaMatch,
    reference: EncodedTarget,
    generated: EncodedTarget,
    row: int,
    generated_row: int,
    threshold: float,
) -> SentencePairs:
    """Positives and negatives over the sentences whose tokens survived truncation."""
    anchors, candidates = _nonempty(reference.spans), _nonempty(generated.spans)
    meets = match.similarity >= threshold if match.reached is None else match.reached  # (m, k)
    reached = torch.from_numpy(meets)[list(anchors)][:, list(candidates)]  # (A, K)
    consistent = torch.tensor([j in set(match.consistent) for j in candidates], dtype=torch.bool)  # (K,)
    inconsistent = torch.tensor([j in set(match.inconsistent) for j in candidates], dtype=torch.bool)  # (K,)
    return SentencePairs(
        reference_row=row,
        generated_row=generated_row,
        anchors=list(anchors.values()),
        candidates=list(candidates.values()),
        positives=reached & consistent,
        negatives=inconsistent.expand_as(reached),
    )


def _with_in_batch(
    pairs: Sequence[SentencePairs],
    references: Sequence[Sequence[str]],
    rollouts: Sequence[Rollout],
    encoded: Sequence[EncodedTarget],
    differs: np.ndarray,
) -> list[SentencePairs]:
    """The pairs with the negatives that others lend them; `differs` (M, K) says which sentences can be one."""
    first_row = [0, *accumulate(map(len, references))]
    first_column = [0, *accumulate(len(rollout.generated) for rollout in rollouts)]
    rows = [[first_row[p.reference_row] + i for i in _nonempty(encoded[p.reference_row].spans)] for p in pairs]
    columns = [[first_column[p.reference_row] + j for j in _nonempty(encoded[p.generated_row].spans)] for p in pairs]
    owners = np.repeat(np.arange(len(pairs)), [len(places) for places in columns])  # (C,)
    lent = differs[:, [*chain.from_iterable(columns)]]  # (M, K) -> (M, C)
    return [
        replace(pair, in_batch=torch.from_numpy(lent[rows[n]] & (owners != n)))  # (A, C)
        for n, pair in enumerate(pairs)
    ]


def _nonempty(spans: Spans) -> dict[int, tuple[int, int]]:
    return {index: (start, end) for index, (start, end) in enumerate(spans) if end > start}
