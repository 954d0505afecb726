"""What `train_step.py` measures against: a plain likelihood step, and a PESS step written without any thought of cost.

The straightforward step generates for each micro-batch, embeds its sentences, and runs the whole model once for each
of the three target sequences. It shares with the library the pure functions of `pess_hf.losses` and the tokenisation,
none of the code whose speed is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import SequentialSampler
from transformers import Seq2SeqTrainer

from pess_hf.data.collator import PersonaCollator, pad_labels
from pess_hf.losses import completeness_target, consistency_loss, sentence_representations
from pess_hf.similarity import PersonaMatch, PersonaMatcher
from pess_hf.text import split_pieces, unique_sentences

Personas = list[list[str]]


class InOrder:
    """Reads the training rows in their order, so that every way to train sees the same micro-batches."""

    train_dataset: Any

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class PlainTrainer(InOrder, Seq2SeqTrainer):
    """The likelihood alone, as transformers computes it."""

    matcher: PersonaMatcher
    rollout_seconds = 0.0

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As `Seq2SeqTrainer`, without the sentences that come along for the others."""
        return super().compute_loss(model, {k: v for k, v in inputs.items() if k != "persona"}, *args, **kwargs)


class StraightforwardTrainer(InOrder, Seq2SeqTrainer):
    """PESS as one would write it down: everything for one micro-batch, one forward pass for each sequence."""

    loss_is_scaled_for_ga = True
    matcher: PersonaMatcher
    rollout_seconds = 0.0
    model: Any
    data_collator: PersonaCollator
    #: What stands in for the generated sentences, by the reference; None takes what the model writes.
    script: Callable[[Personas], Personas] | None = None

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Generate, match, and add up the three terms."""
        generated = self.generate_personas(model, inputs)
        matches = self.matcher.match(generated, inputs["persona"])
        nll, completeness, consistency = self.terms(model, inputs, generated, matches)
        args: Any = self.args
        return (
            nll / num_items_in_batch + args.completeness_weight * completeness + args.consistency_weight * consistency
        )

    def generate_personas(self, model: Any, inputs: dict[str, Any]) -> Personas:
        """What the model writes for this micro-batch, greedily."""
        args: Any = self.args
        model.eval()
        with torch.no_grad():
            token_ids = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                num_beams=1,
                do_sample=False,
                max_new_tokens=args.rollout_max_new_tokens,
            )
        model.train()
        tokenizer: Any = self.processing_class
        texts = tokenizer.batch_decode(token_ids, skip_special_tokens=True)
        written = [unique_sentences(split_pieces(text, self.data_collator.persona_separator)) for text in texts]
        return written if self.script is None else self.script(inputs["persona"])

    def terms(
        self, model: Any, inputs: dict[str, Any], generated: Personas, matches: list[PersonaMatch]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The likelihood summed over tokens, and completeness and consistency averaged over dialogues."""
        args: Any = self.args
        references = inputs["persona"]
        targets = [completeness_target(*texts) for texts in zip(generated, references, matches, strict=True)]

        reference_loss, reference_hidden, reference_spans = self.run(model, inputs, references)
        target_loss, _, _ = self.run(model, inputs, targets)
        _, generated_hidden, generated_spans = self.run(model, inputs, generated)

        lengths = target_loss.ne(0).sum(dim=1).clamp(min=1)  # (B,)
        consistency = []
        for row, match in enumerate(matches):
            anchors, candidates = reference_spans[row], generated_spans[row]  # {sentence: (start, end)}
            reached = match.similarity >= args.similarity_threshold  # (m, k)
            positives = [[bool(reached[i, j]) and j in match.consistent for j in candidates] for i in anchors]
            negatives = [[j in match.inconsistent for j in candidates] for _ in anchors]
            consistency.append(
                consistency_loss(
                    sentence_representations(reference_hidden[row], list(anchors.values())),  # (A, D)
                    sentence_representations(generated_hidden[row], list(candidates.values())),  # (K, D)
                    self._mask(positives, len(anchors), len(candidates)),
                    self._mask(negatives, len(anchors), len(candidates)),
                    args.consistency_temperature,
                )
                if match.consistent and match.inconsistent
                else reference_hidden.new_zeros(())
            )
        completeness = (target_loss.sum(dim=1) / lengths).mean()
        return reference_loss.sum(), completeness, torch.stack(consistency).mean()

    def _mask(self, rows: list[list[bool]], height: int, width: int) -> Tensor:
        return torch.tensor(rows, dtype=torch.bool, device=self.args.device).reshape(height, width)

    def run(
        self, model: Any, inputs: dict[str, Any], personas: Personas
    ) -> tuple[Tensor, Tensor, list[dict[int, tuple[int, int]]]]:
        """One forward pass of the whole model over one target per dialogue.

        Returns:
            The loss of each target token, (B, T), 0 behind the end; the decoder's last hidden states, (B, T, D); and
            per dialogue where each sentence's tokens are read.
        """
        encoded = self.data_collator.encode_personas([list(persona) for persona in personas])
        labels = pad_labels([target.input_ids for target in encoded]).to(inputs["input_ids"].device)  # (B, T)
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=self.model.prepare_decoder_input_ids_from_labels(labels=labels),
            output_hidden_states=True,
        )
        loss = F.cross_entropy(outputs.logits.float().flatten(0, 1), labels.flatten(), reduction="none")  # (B * T,)
        # Label position t is decoder input t + 1: the states that have read the sentence.
        spans = [
            {k: (start + 1, end + 1) for k, (start, end) in enumerate(target.spans) if end > start}
            for target in encoded
        ]
        return loss.view(labels.shape), outputs.decoder_hidden_states[-1], spans
