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
    """Corpus BLEU in [0, 1] by sacrebleu, lower-cased, sentences joined by blanks; 0 for no dialogue.

    Example:
        >>> round(bleu([["I sing in a choir."]], [["i sing in a choir."]])["bleu"], 4)
        1.0
    """
    texts = _joined(generated, reference)
    if not texts:
        return {"bleu": 0.0}
    hypotheses, references = map(list, zip(*texts, strict=True))
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
    """BERTScore F1 with a model from a folder or the Hub, averaged over dialogues; 0 where one side is empty.

    Args:
        generated: Personas written.
        reference: Personas wanted.
        model: Id or folder of the scoring model.
        num_layers: The layer whose hidden states are compared; a folder's best layer cannot be looked up.
    """
    texts = _joined(generated, reference)
    # bert_score gives empty texts 0 as well, but with transformers 5 it fails on them.
    full = [(hypothesis, wanted) for hypothesis, wanted in texts if hypothesis.strip() and wanted.strip()]
    if not full:
        return {"bert_score_f1": 0.0}
    scorer: Any = require_extra("bert_score")
    hypotheses, references = map(list, zip(*full, strict=True))
    _, _, f1 = scorer.score(hypotheses, references, model_type=model, num_layers=num_layers, verbose=False)
    return {"bert_score_f1": f1.sum().item() / len(texts)}


def _joined(generated: Personas, reference: Personas) -> list[tuple[str, str]]:
    """What was written and what was wanted, one text each per dialogue."""
    return [(" ".join(written), " ".join(wanted)) for written, wanted in zip(generated, reference, strict=True)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
