"""Scores of replies against the replies that people gave, and against the persona (PAL, arXiv 2212.09235)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pess_hf.text_metrics import distinct, require_extra

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# nltk's own tokeniser needs a download; this one tells words and punctuation marks apart.
_TOKEN = re.compile(r"\w+(?:'\w+)?|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Lower-cased words and punctuation marks.

    Example:
        >>> words_of("I'm sad.")
        ["i'm", 'sad', '.']
    """
    return _TOKEN.findall(text.lower().replace("\u2019", "'"))


def reply_scores(replies: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU-2 and BLEU-4 (nltk's corpus BLEU, smoothing method 3), ROUGE-L F-measure, Distinct-1 and Distinct-2.

    Args:
        replies: N replies of the model.
        references: N replies that people gave.

    Returns:
        `bleu_2`, `bleu_4`, `rouge_l`, `distinct_1` and `distinct_2`, each in [0, 1].

    Raises:
        PessError: The extra `metrics` is not installed.
        ValueError: The two lists differ in length.

    Example:
        >>> reply_scores(["That must be hard."], ["that must be hard."])["bleu_2"]
        1.0
    """
    pairs = [(words_of(reply), words_of(reference)) for reply, reference in zip(replies, references, strict=True)]
    return {**_bleu(pairs), "rouge_l": _rouge_l(pairs), **distinct([[reply] for reply in replies])}


def _bleu(pairs: list[tuple[list[str], list[str]]]) -> dict[str, float]:
    bleu = require_extra("nltk.translate.bleu_score")
    smooth = bleu.SmoothingFunction().method3
    written, wanted = [pair[0] for pair in pairs], [[pair[1]] for pair in pairs]
    weights = {"bleu_2": (1 / 2,) * 2, "bleu_4": (1 / 4,) * 4}
    return {
        name: float(bleu.corpus_bleu(wanted, written, weights=each, smoothing_function=smooth))
        for name, each in weights.items()
    }


def _rouge_l(pairs: list[tuple[list[str], list[str]]]) -> float:
    # The scorer splits at blanks only if it is told to; our tokens are joined by them.
    scorer = require_extra("rouge_score.rouge_scorer").RougeScorer(["rougeL"], tokenizer=_SplitAtBlanks())
    scores = [scorer.score(" ".join(wanted), " ".join(written))["rougeL"].fmeasure for written, wanted in pairs]
    return sum(scores) / len(scores) if scores else 0.0


class _SplitAtBlanks:
    """The tokeniser that `rouge_score` is given: the words are told apart already."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def persona_similarity(
    replies: Sequence[str], personas: Sequence[Sequence[str]], encoder: SentenceTransformer
) -> float | None:
    """Mean cosine of a reply and the persona it was to fit, over the replies to somebody with a persona.

    Args:
        replies: N replies.
        personas: N lists of persona sentences; they are joined by blanks.
        encoder: A sentence encoder, see `load_encoder`.

    Returns:
        The mean, in [-1, 1], or None where nobody has a persona.

    Example:
        >>> persona_similarity(["Hi."], [[]], load_encoder()) is None  # doctest: +SKIP
        True
    """
    pairs = [(reply, " ".join(persona)) for reply, persona in zip(replies, personas, strict=True) if persona]
    if not pairs:
        return None
    # normalised, so that the dot product is the cosine
    left, right = (
        encoder.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)  # each (N, E)
        for texts in zip(*pairs, strict=True)
    )
    return float((left * right).sum(axis=1).mean())
