"""BLEU-2, BLEU-4, ROUGE-L and Distinct-1/2 of replies, as an `evaluate` metric that works without a network."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from pess_hf.reply_metrics import reply_scores

_CITATION = """\
@article{pal2022,
  title = {PAL: Persona-Augmented Emotional Support Conversation Generation},
  journal = {arXiv preprint arXiv:2212.09235},
  year = {2022}
}
"""

_DESCRIPTION = """\
Compares replies with the replies that people gave, as PAL does: BLEU-2 and BLEU-4 (nltk's corpus BLEU, smoothing
method 3) and ROUGE-L over lower-cased words and punctuation marks, and the Distinct-1 and Distinct-2 of the replies.
"""

_INPUTS = """\
Args:
    predictions: replies, a string each.
    references: the replies that people gave, a string each.
Returns:
    bleu_2, bleu_4, rouge_l, distinct_1, distinct_2: each in [0, 1].
Example:
    >>> metric = SupportReplyMetric()
    >>> scores = metric.compute(predictions=["that must be hard ."], references=["That must be hard."])
    >>> scores["bleu_4"], scores["rouge_l"], scores["distinct_1"]
    (1.0, 1.0, 1.0)
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class SupportReplyMetric(evaluate.Metric):
    """Overlap and variety of replies; see `pess_hf.reply_metrics`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://arxiv.org/abs/2212.09235"],
        )

    def _compute(self, predictions: list[str], references: list[str], **kwargs: Any) -> dict[str, float]:
        return reply_scores(predictions, references)
