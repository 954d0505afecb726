"""Overlap metrics between generated and reference personas, by the libraries of the extra `metrics`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pess_hf.errors import PessError

if TYPE_CHECKING:
    from types import ModuleType

Personas = Sequence[Sequence[str]]
_WORD = re.compile(r"\w+")


def require_extra(name: str) -> ModuleType:
    """Import a package of the extra `metrics`.

    Raises:
        PessError: If it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise PessError(f"{name}: expected it to be installed. Run: pip install 'pess_hf[metrics]'.") from error


def rouge(generated: Personas, reference: Personas) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-L F-measures, a persona's sentences one a line, averaged over dialogues.

    Example:
        >>> rouge([["i sing ."]], [["i sing ."]])["rouge_l"]
        1.0
    """
    scorer = require_extra("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeLsum"], use_stemmer=True)
    scores = [scorer.score("\n".join(r), "\n".join(g)) for g, r in zip(generated, reference, strict=True)]
    names = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeLsum"}
    return {ours: _mean([score[theirs].fmeasure for score in scores]) for ours, theirs in names.items()}


def bleu(generated: Personas, reference: Personas) -> dict[str, float]:
    """Corpus BLEU in [0, 1] by sacrebleu, lower-cased, sentences joined by blanks.

    Example:
        >>> round(bleu([["I sing in a choir."]], [["i sing in a choir."]])["bleu"], 4)
        1.0
    """
    hypotheses, references = [" ".join(g) for g in generated], [" ".join(r) for r in reference]
    return {"bleu": require_extra("sacrebleu").corpus_bleu(hypotheses, [references], lowercase=True).score / 100}


def distinct(generated: Personas) -> dict[str, float]:
    """Distinct-1 and Distinct-2 (arXiv 1510.03055): different n-grams by all n-grams of everything generated.

    Example:
        >>> distinct([["i sing", "i ski"]])
        {'distinct_1': 0.75, 'distinct_2': 1.0}
    """
    sentences = [_WORD.findall(sentence.lower()) for persona in generated for sentence in persona]
    return {f"distinct_{n}": _distinct(sentences, n) for n in (1, 2)}


def _distinct(sentences: list[list[str]], n: int) -> float:
    ngrams = [tuple(words[i : i + n]) for words in sentences for i in range(len(words) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def bert_score(generated: Personas, reference: Personas, model: str, num_layers: int) -> dict[str, float]:
    """BERTScore F1 with a model from a folder or the Hub.

    Args:
        generated: Personas written.
        reference: Personas wanted.
        model: Id or folder of the scoring model.
        num_layers: The layer whose hidden states are compared; a folder's best layer cannot be looked up.
    """
    hypotheses, references = [" ".join(g) for g in generated], [" ".join(r) for r in reference]
    scorer: Any = require_extra("bert_score")
    _, _, f1 = scorer.score(hypotheses, references, model_type=model, num_layers=num_layers, verbose=False)
    return {"bert_score_f1": f1.mean().item()}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
