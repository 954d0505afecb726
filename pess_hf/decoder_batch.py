"""One decoder batch for all three terms: [reference | new target | generated] over dialogues encoded once.

Letters: B dialogues, R decoder rows, T target tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    """

    reference_row: int
    generated_row: int
    anchors: Spans
    candidates: Spans
    positives: torch.Tensor
    negatives: torch.Tensor


@dataclass(frozen=True)
class DecoderBatch:
    """Decoder rows of one micro-batch.

    Args:
        target_ids: Target tokens of every row, (R, T), -100 on the right.
        labels: The same with -100 in the generated rows too, which need no logits, (R, T).
        encoder_rows: The dialogue of each row, (R,).
        num_target_rows: How many of the rows after the first B are new targets.
        pairs: The consistency term's input, for the dialogues that have positives and negatives.
    """

    target_ids: torch.Tensor
    labels: torch.Tensor
    encoder_rows: torch.Tensor
    num_target_rows: int
    pairs: list[SentencePairs]


def build_decoder_batch(
    references: Sequence[Sequence[str]],
    rollouts: Sequence[Rollout] | None,
    encode: Callable[[list[list[str]]], list[EncodedTarget]],
    threshold: float,
    use_completeness: bool = True,
    use_consistency: bool = True,
) -> DecoderBatch:
    """Lay out the decoder rows of one micro-batch.

    Args:
        references: Reference sentences per dialogue, B lists.
        rollouts: One per dialogue; None for the plain likelihood term alone.
        encode: Tokenises personas, such as `PersonaCollator.encode_personas`.
        threshold: The matching threshold, which decides the positives.
        use_completeness: Add a new-target row per dialogue.
        use_consistency: Add a generated row per dialogue that has positives and negatives.

    Returns:
        The batch, on the CPU.

    Example:
        >>> encode = lambda personas: [EncodedTarget([7] * len(p) + [2], [], 0) for p in personas]
        >>> build_decoder_batch([["I sing."], ["I ski."]], None, encode, threshold=0.6).target_ids.tolist()
        [[7, 2], [7, 2]]
    """
    num_dialogues = len(references)
    reference_targets = encode([list(persona) for persona in references])
    new_targets: list[EncodedTarget] = []
    generated: list[tuple[int, EncodedTarget]] = []
    if rollouts is not None and use_completeness:
        new_targets = encode(
            [
                completeness_target(rollout.generated, persona, rollout.match)
                for rollout, persona in zip(rollouts, references, strict=True)
            ]
        )
    if rollouts is not None and use_consistency:
        rows = [row for row, rollout in enumerate(rollouts) if rollout.match.consistent and rollout.match.inconsistent]
        generated = list(zip(rows, encode([rollouts[row].generated for row in rows]), strict=True))
    scored = [target.input_ids for target in (*reference_targets, *new_targets)]
    target_ids = pad_labels(scored + [target.input_ids for _, target in generated])  # (R, T)
    labels = target_ids.clone()
    labels[len(scored) :] = -100
    dialogues = list(range(num_dialogues))
    pairs = [
        _sentence_pairs(rollouts[row].match, reference_targets[row], target, row, len(scored) + k, threshold)  # type: ignore[index]
        for k, (row, target) in enumerate(generated)
    ]
    return DecoderBatch(
        target_ids=target_ids,
        labels=labels,
        encoder_rows=torch.tensor(dialogues + dialogues[: len(new_targets)] + [row for row, _ in generated]),
        num_target_rows=len(new_targets),
        pairs=pairs,
    )


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
    reached = torch.from_numpy(match.similarity >= threshold)[list(anchors)][:, list(candidates)]  # (A, K)
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


def _nonempty(spans: Spans) -> dict[int, tuple[int, int]]:
    return {index: (start, end) for index, (start, end) in enumerate(spans) if end > start}
