"""Fine-tunes the sentence encoder on labelled persona pairs, so that contradictions stop looking similar.

The loss has up to three terms: CoSENT over graded targets (of sentence-transformers), a ranking of the entailed
sentence above the other sentences of the batch, and the retention of the cosines that the encoder began with. At the
end the weights can be interpolated between the encoder before and after (arXiv 2109.01903).

Letters: B pairs in a batch, E embedding width, N pairs.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch import Tensor, nn
from torch.utils.data import BatchSampler

from pess_hf.data.sentence_pairs import CONTRADICTION, ENTAILMENT, LABELS
from pess_hf.errors import PessError
from pess_hf.length_sampler import ShuffledLengthSampler
from pess_hf.similarity_args import SimilarityLossArguments

if TYPE_CHECKING:
    import datasets
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

#: Cosines are multiplied by this before they meet in a softmax, as sentence-transformers does.
_SCALE = 20.0
_LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")


class PersonaPairLoss(nn.Module):
    """The loss of a batch of labelled pairs, term by term.

    Args:
        model: The encoder in training.
        settings: The weights of the terms.

    Example:
        >>> encoder = load_encoder()  # doctest: +SKIP
        >>> loss = PersonaPairLoss(encoder, SimilarityLossArguments())  # doctest: +SKIP
    """

    def __init__(self, model: SentenceTransformer, settings: SimilarityLossArguments) -> None:
        from sentence_transformers.sentence_transformer.losses import CoSENTLoss

        super().__init__()
        self.model = model
        self.settings = settings
        self.cosent = CoSENTLoss(model, scale=_SCALE)

    def forward(self, sentence_features: list[dict[str, Tensor]], labels: Tensor) -> dict[str, Tensor]:
        """Embed both sides of the pairs and sum up.

        Args:
            sentence_features: Encoder inputs of the B premises and of the B hypotheses.
            labels: (B, 3): the index of the label, its target, and the cosine before training.

        Returns:
            The weighted terms, each a scalar.
        """
        premises, hypotheses = (self.model(features)["sentence_embedding"] for features in sentence_features)  # (B, E)
        return self.terms(premises, hypotheses, labels)

    def terms(self, premises: Tensor, hypotheses: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The weighted terms of embedded pairs; see `forward`."""
        kinds, targets, before = labels.unbind(dim=1)  # each (B,)
        premises, hypotheses = (nn.functional.normalize(side, dim=1) for side in (premises, hypotheses))
        found = {"cosent": self.cosent.compute_loss_from_embeddings([premises, hypotheses], targets)}
        if self.settings.ranking_weight:
            ranking = _ranking(premises, hypotheses, kinds == LABELS.index(ENTAILMENT))
            found["ranking"] = self.settings.ranking_weight * ranking
        if self.settings.retention_weight:
            cosines = (premises * hypotheses).sum(dim=1)  # (B,)
            kept = (kinds != LABELS.index(CONTRADICTION)).to(cosines.dtype)  # (B,)
            drift = ((cosines - before).square() * kept).sum() / kept.sum().clamp(min=1)
            found["retention"] = self.settings.retention_weight * _SCALE * drift
        return found


def _ranking(premises: Tensor, hypotheses: Tensor, is_entailed: Tensor) -> Tensor:
    """Cross-entropy of each entailed hypothesis among all hypotheses of the batch, contradictions included."""
    rows = is_entailed.nonzero().squeeze(dim=1)  # (A,)
    if not len(rows):
        return premises.sum() * 0  # in the graph, so that a batch without entailments has a gradient too
    return nn.functional.cross_entropy(premises[rows] @ hypotheses.T * _SCALE, rows)  # logits (A, B)


def pair_cosines(encoder: Any, pairs: datasets.Dataset, batch_size: int = 128) -> np.ndarray:
    """The cosine of premise and hypothesis.

    Args:
        encoder: A sentence encoder; anything with sentence-transformers' `encode`.
        pairs: N pairs.
        batch_size: Sentences embedded at a time.

    Returns:
        N cosines, float32.

    Example:
        >>> pair_cosines(load_encoder(), load_sentence_pairs("pairs.jsonl"))  # doctest: +SKIP
    """
    sentences = list(dict.fromkeys([*pairs["premise"], *pairs["hypothesis"]]))
    vectors = encoder.encode(
        sentences, batch_size=batch_size, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
    )
    place = {sentence: row for row, sentence in enumerate(sentences)}
    left, right = (vectors[[place[text] for text in pairs[side]]] for side in ("premise", "hypothesis"))  # (N, E)
    return (left * right).sum(axis=1)


def freeze_layers(encoder: SentenceTransformer, number: int) -> None:
    """Freeze the embeddings and the first `number` layers of an encoder; 0 leaves everything trainable.

    Raises:
        PessError: If the encoder has no numbered layers or not more than `number` of them.
    """
    encoder.requires_grad_(True)
    if not number:
        return
    places = {name: _LAYER.search(name) for name, _ in encoder.named_parameters()}
    depth = 1 + max((int(place[1]) for place in places.values() if place), default=-1)
    if number >= depth:
        raise PessError(f"frozen_layers: expected fewer than the encoder's {depth} layers, found {number}.")
    for name, parameter in encoder.named_parameters():
        place = places[name]
        is_low = int(place[1]) < number if place else ".embeddings." in f".{name}"
        parameter.requires_grad_(not is_low)


def interpolate(before: SentenceTransformer, after: SentenceTransformer, share: float) -> None:
    """Set the weights of `after` to `share` of its own and the rest of `before`'s, in place.

    Example:
        >>> interpolate(load_encoder(), tuned, 0.8)  # doctest: +SKIP
    """
    old = dict(before.named_parameters())
    with torch.no_grad():
        for name, parameter in after.named_parameters():
            parameter.lerp_(old[name].to(parameter.device), 1 - share)


class LengthGroupedTrainer(SentenceTransformerTrainer):
    """Pairs of like length share a batch: about half of what is computed otherwise is padding."""

    def get_batch_sampler(
        self,
        dataset: datasets.Dataset,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> BatchSampler:
        """The hook that sentence-transformers documents; the arguments are its own."""
        lengths = [max(len(one), len(two)) for one, two in zip(dataset["premise"], dataset["hypothesis"], strict=True)]
        grouped = ShuffledLengthSampler(batch_size, lengths, generator)
        return DefaultBatchSampler(
            grouped, batch_size, drop_last, valid_label_columns=valid_label_columns, generator=generator, seed=seed
        )


def train_encoder(
    encoder: SentenceTransformer,
    pairs: datasets.Dataset,
    settings: SimilarityLossArguments,
    training_args: SentenceTransformerTrainingArguments,
) -> SentenceTransformer:
    """Fine-tune a copy of an encoder on labelled pairs.

    Args:
        encoder: Where to start from; it is left as it is.
        pairs: N pairs, see `load_sentence_pairs`.
        settings: What is taught.
        training_args: How long, how fast, and the seed.

    Returns:
        The tuned encoder, frozen and in eval mode.

    Example:
        >>> tuned = train_encoder(load_encoder(), pairs, SimilarityLossArguments(), training_args)  # doctest: +SKIP
    """
    tuned = copy.deepcopy(encoder)
    freeze_layers(tuned, settings.frozen_layers)
    # Its card would print sentences of the training data.
    tuned.model_card_data.generate_widget_examples = False
    rows = training_rows(encoder, pairs, settings)
    LengthGroupedTrainer(tuned, training_args, rows, loss=PersonaPairLoss(tuned, settings)).train()
    if settings.interpolation < 1:
        interpolate(encoder, tuned, settings.interpolation)
    return tuned.eval().requires_grad_(False)


def training_rows(
    encoder: SentenceTransformer, pairs: datasets.Dataset, settings: SimilarityLossArguments
) -> datasets.Dataset:
    """The pairs with what the loss wants to know of each in the column `label`; see `PersonaPairLoss.forward`."""
    import datasets

    targets = settings.targets()
    labels = [
        [float(LABELS.index(label)), targets[label], float(cosine)]
        for label, cosine in zip(pairs["label"], pair_cosines(encoder, pairs), strict=True)
    ]
    columns = {"premise": pairs["premise"], "hypothesis": pairs["hypothesis"], "label": labels}
    return datasets.Dataset.from_dict({name: list(values) for name, values in columns.items()})
