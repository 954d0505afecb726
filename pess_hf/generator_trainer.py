"""The generator's trainer: `Seq2SeqTrainer`, which its loss suits as it is, with our cards, pushes and checkpoints."""

from __future__ import annotations

from transformers import Seq2SeqTrainer

from pess_hf.hub_trainer import PessHubMixin
from pess_hf.safe_checkpoints import SafeCheckpointsMixin


class PessGeneratorTrainer(SafeCheckpointsMixin, PessHubMixin, Seq2SeqTrainer):
    """Trains a `PessGenerator`; publishes model, tokenizer, card and metrics and nothing else.

    Example:
        >>> trainer = PessGeneratorTrainer(model, args, train_dataset=examples)  # doctest: +SKIP
    """
