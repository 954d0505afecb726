"""Persona precision, recall and F1 by sentence-embedding similarity, as an `evaluate` metric."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from pess_hf.similarity import DEFAULT_ENCODER, DEFAULT_THRESHOLD, PersonaMatcher, persona_scores

_CITATION = """\
@article{pess2024,
  title = {Persona Extraction Through Semantic Similarity for Emotional Support Conversation Generation},
  journal = {arXiv preprint arXiv:2403.04212},
  year = {2024}
}
"""

_DESCRIPTION = """\
Compares generated persona sentences with reference ones. Two sentences agree where the cosine of their embeddings
reaches a threshold. Precision is the share of generated sentences that agree with some reference, recall the share of
reference sentences that some generated one reaches, each averaged over dialogues; F1 comes from the two averages.
"""

_INPUTS = """\
Args:
    predictions: generated persona sentences, a list of strings per dialogue.
    references: reference persona sentences, a list of strings per dialogue.
    threshold: cosine from which two sentences agree.
    encoder: id or folder of the sentence encoder.
Returns:
    precision, recall, f1: each in [0, 1].
Example:
    >>> metric = PersonaMatchMetric()
    >>> scores = metric.compute(predictions=[["I own two dogs."]], references=[["I have two dogs.", "I play chess."]])
    >>> scores["precision"], scores["recall"]
    (1.0, 0.5)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class PersonaMatchMetric(evaluate.Metric):
    """Persona precision, recall and F1; see `pess_hf.similarity` for the matching."""

    def _info(self) -> evaluate.MetricInfo:
        sentences = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": sentences, "references": sentences}),
            reference_urls=["https://arxiv.org/abs/2403.04212"],
        )

    def _compute(
        self,
        predictions: list[list[str]],
        references: list[list[str]],
        threshold: float = DEFAULT_THRESHOLD,
        encoder: Any = DEFAULT_ENCODER,
    ) -> dict[str, float]:
        return persona_scores(self._matcher(encoder, threshold).match(predictions, references))

    def _matcher(self, encoder: Any, threshold: float) -> PersonaMatcher:
        """One matcher per encoder, kept between calls."""
        known = getattr(self, "_known_matcher", None)
        if known is None or known[0] != encoder:
            known = self._known_matcher = (encoder, PersonaMatcher(encoder, threshold))
        known[1].threshold = threshold
        return known[1]
