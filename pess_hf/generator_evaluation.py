"""Measures a generator on support examples: likelihood, strategies, replies.

Letters: B examples in a batch, T decoder positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from pess_hf.data.collator import ID_COLUMN
from pess_hf.data.strategies import normalise_strategy
from pess_hf.data.subset import first_rows
from pess_hf.data.support_collator import SupportCollator
from pess_hf.pipeline import MAX_NEW_TOKENS, check_new_tokens, decode_replies
from pess_hf.processes import from_all, share_of
from pess_hf.reply_metrics import persona_similarity, reply_scores
from pess_hf.rollout import ReadyModel, generation_ready

if TYPE_CHECKING:
    import datasets
    from accelerate import Accelerator
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
    accelerator: Accelerator | None = None,
    **generation: Any,
) -> tuple[dict[str, float], list[Reply]]:
    """Measure a generator.

    Args:
        model: The generator, wrapped or not.
        collator: Makes the batches; decides whether the model sees the persona.
        examples: What `build_support_examples` makes.
        encoder: A sentence encoder for `persona_similarity`; None leaves it out.
        batch_size: Examples at a time.
        max_replies: Write replies to the first so many examples only; likelihood is measured on all.
        disable_tqdm: No progress bar.
        accelerator: Of several processes that share the work and call this together; each gets all figures.
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
    asked = first_rows(examples, max_replies)
    with generation_ready(model, accelerator) as ready:
        check_new_tokens(ready.model, generation["max_new_tokens"])
        work = _Work(ready, collator, batch_size, disable_tqdm, accelerator)
        losses, tokens = _row_losses(work, examples)
        replies = _write_replies(work, asked, generation)
    loss = float(losses.sum() / max(tokens.sum(), 1))
    # A model that knows nothing can be worse than a float can say.
    scores = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    wanted = [normalise_strategy(name) for name in asked["strategy"]]
    hits = [reply.strategy == name for reply, name in zip(replies, wanted, strict=True)]
    scores["strategy_accuracy"] = sum(hits) / len(hits) if hits else 0.0
    texts = [reply.text for reply in replies]
    scores.update(reply_scores(texts, list(asked["response"])))
    similarity = None if encoder is None else persona_similarity(texts, list(asked["persona"]), encoder)
    return (scores if similarity is None else {**scores, "persona_similarity": similarity}), replies


def reply_rows(examples: Iterable[Mapping[str, Any]], replies: Sequence[Reply]) -> Iterator[dict[str, Any]]:
    """What `predictions.jsonl` holds of a generator, and `recipes/human_eval.py` reads: one row per reply.

    Args:
        examples: What was answered; where there are fewer replies, the first so many.
        replies: The replies, in order.

    Yields:
        `dialogue_id`, `turn`, `persona`, and under `reference` and `generated` `strategy` and `text`.

    Example:
        >>> example = {"dialogue_id": "d", "turn": 1, "persona": [], "strategy": "Others", "response": "Hello."}
        >>> [row] = reply_rows([example], [Reply(None, "Hi.")])
        >>> row["reference"], row["generated"]
        ({'strategy': 'Others', 'text': 'Hello.'}, {'strategy': None, 'text': 'Hi.'})
    """
    for row, reply in zip(examples, replies, strict=False):
        yield {
            **{name: row[name] for name in ("dialogue_id", "turn", "persona")},
            "reference": {"strategy": row["strategy"], "text": row["response"]},
            "generated": {"strategy": reply.strategy, "text": reply.text},
        }


def _batches(examples: datasets.Dataset, batch_size: int) -> list[list[int]]:
    """Rows of like context length together, the longest first, so that batches pad little."""
    lengths = [sum(len(turn["text"]) for turn in context) for context in examples["context"]]
    order = sorted(range(len(examples)), key=lambda row: (-lengths[row], row))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@dataclass(frozen=True)
class _Work:
    """What both passes over the examples need."""

    ready: ReadyModel
    collator: SupportCollator
    batch_size: int
    quiet: bool
    accelerator: Accelerator | None

    def shares(self, examples: datasets.Dataset, name: str) -> Iterator[tuple[list[int], bool]]:
        """This process's batches, behind a progress bar, and whether their result counts."""
        mine = share_of(_batches(examples, self.batch_size), self.accelerator)
        return iter(tqdm(mine, desc=name, disable=self.quiet))


def row_losses(
    model: Any,
    collator: SupportCollator,
    examples: datasets.Dataset,
    *,
    batch_size: int = 16,
    disable_tqdm: bool = False,
    accelerator: Accelerator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """How likely a generator finds each reply that people gave.

    Args:
        model: The generator, wrapped or not.
        collator: As in `measure_generator`.
        examples: N examples, what `build_support_examples` makes.
        batch_size: Examples at a time.
        disable_tqdm: No progress bar.
        accelerator: As in `measure_generator`.

    Returns:
        Summed negative log-likelihood of each example's target tokens (strategy, response and end token), (N,), and
        how many they are, (N,).

    Example:
        >>> losses, tokens = row_losses(model, collator, examples)  # doctest: +SKIP
        >>> perplexity = np.exp(losses.sum() / tokens.sum())  # doctest: +SKIP
    """
    with generation_ready(model, accelerator) as ready:
        return _row_losses(_Work(ready, collator, batch_size, disable_tqdm, accelerator), examples)


def _row_losses(work: _Work, examples: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    found: dict[int, tuple[float, int]] = {}
    for rows, counts in work.shares(examples, "likelihood"):
        batch = _to_device(work.collator([examples[row] for row in rows]), work.ready.model.device)
        labels = batch["labels"]
        logits = work.ready.model(**batch, num_items_in_batch=1).logits.flatten(0, 1).float()  # (B, T, V) -> (B T, V)
        losses = cross_entropy(logits, labels.flatten(), ignore_index=-100, reduction="none").view_as(labels)  # (B, T)
        if counts:
            sums, tokens = losses.double().sum(dim=1).tolist(), labels.ne(-100).sum(dim=1).tolist()
            found.update(zip(rows, zip(sums, tokens, strict=True), strict=True))
    everywhere = dict(pair for part in from_all([found], work.accelerator) for pair in part.items())
    losses_and_counts = np.array([everywhere[row] for row in range(len(examples))]).reshape(-1, 2)  # (N, 2)
    return losses_and_counts[:, 0], losses_and_counts[:, 1]


def _write_replies(work: _Work, examples: datasets.Dataset, generation: dict[str, Any]) -> list[Reply]:
    replies: dict[int, Reply] = {}
    for rows, counts in work.shares(examples, "replies"):
        chosen: Sequence[dict[str, Any]] = [examples[row] for row in rows]
        prompts = work.collator.encode_prompts([row["context"] for row in chosen], [row["persona"] for row in chosen])
        sequences = work.ready.generate(**_to_device(prompts, work.ready.model.device), **generation)  # (B, T)
        if counts:
            pairs = decode_replies(work.ready.model, work.collator.tokenizer, sequences)
            replies.update((row, Reply(*pair)) for row, pair in zip(rows, pairs, strict=True))
    everywhere = dict(pair for part in from_all([replies], work.accelerator) for pair in part.items())
    return [everywhere[row] for row in range(len(examples))]


def _to_device(batch: dict[str, Any], device: Any) -> dict[str, Any]:
    return {name: value.to(device) for name, value in batch.items() if name != ID_COLUMN}
