"""Scores of replies against the replies that people gave, and against the persona (PAL, arXiv 2212.09235)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pess_hf.text_metrics import distinct, require_extra

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# nltk's own tokeniser needs a download; this one tells words and punctuation marks apart.
_TOKEN = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
#: The longest n-grams that BLEU counts.
_MAX_N = 4


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
    pairs = _word_pairs(replies, references)
    each = rouge_l_each(replies, references)
    rouge_l = sum(each) / len(each) if each else 0.0
    return {**_bleu(pairs), "rouge_l": rouge_l, **distinct([[reply] for reply in replies])}


def _word_pairs(replies: Sequence[str], references: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    return [(words_of(reply), words_of(reference)) for reply, reference in zip(replies, references, strict=True)]


def _bleu(pairs: list[tuple[list[str], list[str]]]) -> dict[str, float]:
    bleu = require_extra("nltk.translate.bleu_score")
    smooth = bleu.SmoothingFunction().method3
    written, wanted = [pair[0] for pair in pairs], [[pair[1]] for pair in pairs]
    weights = {"bleu_2": (1 / 2,) * 2, "bleu_4": (1 / 4,) * 4}
    return {
        name: float(bleu.corpus_bleu(wanted, written, weights=each, smoothing_function=smooth))
        for name, each in weights.items()
    }


def bleu_counts(replies: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What corpus BLEU adds up over replies, so that it can be taken of any of them (`bleu_of`).

    Args:
        replies: N replies of the model.
        references: N replies that people gave.

    Returns:
        (10, N): matching n-grams and n-grams, n = 1 to 4 each, then the words of reply and of reference.

    Raises:
        PessError: The extra `metrics` is not installed.

    Example:
        >>> bleu_counts(["a b"], ["a c b"])[:, 0].tolist()
        [2, 0, 0, 0, 2, 1, 1, 1, 2, 3]
    """
    bleu = require_extra("nltk.translate.bleu_score")
    columns = []
    for written, wanted in _word_pairs(replies, references):
        shares = [bleu.modified_precision([wanted], written, n) for n in range(1, _MAX_N + 1)]
        matches, totals = [share.numerator for share in shares], [share.denominator for share in shares]
        columns.append([*matches, *totals, len(written), len(wanted)])
    return np.array(columns, dtype=int).reshape(-1, 2 * _MAX_N + 2).T  # (N, 10) -> (10, N)


def bleu_of(sums: np.ndarray, n: int) -> np.ndarray:
    """Corpus BLEU-n of sums of `bleu_counts`, as in `reply_scores`: nltk's, smoothing method 3.

    Args:
        sums: (10, ...).
        n: 1 to 4.

    Returns:
        (...), each in [0, 1].

    Example:
        >>> bleu_of(bleu_counts(["a b", "d"], ["a b", "d"]).sum(axis=1), 1).item()
        1.0
    """
    matches, totals = sums[:n].astype(float), sums[_MAX_N : _MAX_N + n]  # (n, ...)
    is_zero = matches == 0
    halvings = is_zero.cumsum(
        axis=0
    )  # method 3: the first n without a match counts as half a match, the next a fourth
    shares = np.where(is_zero, 0.5**halvings, matches) / np.maximum(totals, 1)
    written, wanted = sums[-2:].astype(float)  # (...)
    ratio = np.divide(wanted, written, out=np.zeros_like(written), where=written > 0)
    brevity = np.where(written > wanted, 1.0, np.exp(1 - ratio))
    return np.where(is_zero[0], 0.0, brevity * np.exp(np.log(shares).mean(axis=0)))


def rouge_l_each(replies: Sequence[str], references: Sequence[str]) -> list[float]:
    """ROUGE-L F-measure of every reply, as `reply_scores` averages it.

    Example:
        >>> rouge_l_each(["That must be hard.", "Oh"], ["that must be hard.", "Yes"])
        [1.0, 0.0]
    """
    # The scorer splits at blanks only if it is told to; our tokens are joined by them.
    scorer = require_extra("rouge_score.rouge_scorer").RougeScorer(["rougeL"], tokenizer=_SplitAtBlanks())
    pairs = _word_pairs(replies, references)
    return [float(scorer.score(" ".join(wanted), " ".join(written))["rougeL"].fmeasure) for written, wanted in pairs]


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
