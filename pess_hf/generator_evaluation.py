"""Measures a generator on support examples: likelihood, strategies, replies.

Letters: B examples in a batch, T decoder positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from pess_hf.data.strategies import normalise_strategy
from pess_hf.data.support_collator import SupportCollator
from pess_hf.pipeline import MAX_NEW_TOKENS, decode_replies
from pess_hf.reply_metrics import persona_similarity, reply_scores
from pess_hf.rollout import rollout_mode

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Reply:
    """What the model answered to one example.

    Args:
        strategy: The strategy it chose, None where it chose none.
        text: The reply.
    """

    strategy: str | None
    text: str


def measure_generator(
    model: Any,
    collator: SupportCollator,
    examples: datasets.Dataset,
    encoder: SentenceTransformer | None = None,
    *,
    batch_size: int = 16,
    max_replies: int | None = None,
    disable_tqdm: bool = False,
    **generation: Any,
) -> tuple[dict[str, float], list[Reply]]:
    """Measure a generator.

    Args:
        model: The generator.
        collator: Makes the batches; decides whether the model sees the persona.
        examples: What `build_support_examples` makes.
        encoder: A sentence encoder for `persona_similarity`; None leaves it out.
        batch_size: Examples at a time.
        max_replies: Write replies to the first so many examples only; likelihood is measured on all.
        disable_tqdm: No progress bar.
        generation: Passed to `generate`; 50 new tokens at most by default.

    Returns:
        The figures, and the replies in order. `loss` is the mean negative log-likelihood of a target token (strategy,
        response and end token), `perplexity` its exponential; `strategy_accuracy` counts the strategies that the
        replies begin with; the rest as in `reply_scores` and `persona_similarity`, the latter left out where nobody
        has a persona.

    Example:
        >>> scores, replies = measure_generator(model, collator, examples)  # doctest: +SKIP
        >>> sorted(scores)[:3]  # doctest: +SKIP
        ['bleu_2', 'bleu_4', 'distinct_1']
    """
    generation.setdefault("max_new_tokens", MAX_NEW_TOKENS)
    asked = examples if max_replies is None else examples.select(range(min(max_replies, len(examples))))
    with rollout_mode(model):
        loss = _mean_loss(model, collator, examples, batch_size, disable_tqdm)
        replies = _write_replies(model, collator, asked, batch_size, disable_tqdm, generation)
    # A model that knows nothing can be worse than a float can say.
    scores = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    wanted = [normalise_strategy(name) for name in asked["strategy"]]
    hits = [reply.strategy == name for reply, name in zip(replies, wanted, strict=True)]
    scores["strategy_accuracy"] = sum(hits) / len(hits) if hits else 0.0
    texts = [reply.text for reply in replies]
    scores.update(reply_scores(texts, list(asked["response"])))
    similarity = None if encoder is None else persona_similarity(texts, list(asked["persona"]), encoder)
    return (scores if similarity is None else {**scores, "persona_similarity": similarity}), replies


def _batches(examples: datasets.Dataset, batch_size: int) -> list[list[int]]:
    """Rows of like context length together, the longest first, so that batches pad little."""
    lengths = [sum(len(turn["text"]) for turn in context) for context in examples["context"]]
    order = sorted(range(len(examples)), key=lambda row: (-lengths[row], row))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _mean_loss(
    model: Any, collator: SupportCollator, examples: datasets.Dataset, batch_size: int, quiet: bool
) -> float:
    total, count = 0.0, 0
    for rows in tqdm(_batches(examples, batch_size), desc="likelihood", disable=quiet):
        batch = _to_device(collator([examples[row] for row in rows]), model.device)
        total += model(**batch, num_items_in_batch=1).loss.item()
        count += int((batch["labels"] != -100).sum())
    return total / max(count, 1)


def _write_replies(
    model: Any,
    collator: SupportCollator,
    examples: datasets.Dataset,
    batch_size: int,
    quiet: bool,
    generation: dict[str, Any],
) -> list[Reply]:
    replies: dict[int, Reply] = {}
    for rows in tqdm(_batches(examples, batch_size), desc="replies", disable=quiet):
        chosen: Sequence[dict[str, Any]] = [examples[row] for row in rows]
        prompts = collator.encode_prompts([row["context"] for row in chosen], [row["persona"] for row in chosen])
        sequences = model.generate(**_to_device(prompts, model.device), **generation)  # (B, T)
        pairs = decode_replies(model, collator.tokenizer, sequences)
        replies.update((row, Reply(*pair)) for row, pair in zip(rows, pairs, strict=True))
    return [replies[row] for row in range(len(examples))]


def _to_device(batch: dict[str, Any], device: Any) -> dict[str, Any]:
    return {name: value.to(device) for name, value in batch.items()}
