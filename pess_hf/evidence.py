"""How far persona sentences stand in what their speaker said: by words and by embeddings (extra `metrics`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from pess_hf.similarity import PersonaMatcher
from pess_hf.text import split_sentences
from pess_hf.text_metrics import require_extra

Texts = Sequence[Sequence[str]]
_WORD = re.compile(r"[^\W_]+")


def evidence_similarity(personas: Texts, utterances: Texts, matcher: PersonaMatcher) -> list[np.ndarray]:
    """The highest cosine of each persona sentence with a sentence that the speaker said.

    Args:
        personas: N lists of persona sentences, human-written or generated.
        utterances: N lists of that speaker's turns.
        matcher: Its encoder embeds both sides; its threshold plays no part.

    Returns:
        N arrays, one value a persona sentence; -1 where the speaker said nothing.

    Example:
        >>> from pess_hf.similarity import DEFAULT_ENCODER
        >>> [found] = evidence_similarity([["I own dogs."]], [["Hi! I own dogs."]], PersonaMatcher(DEFAULT_ENCODER))
        >>> found.round(2).tolist()
        [1.0]
    """
    said = [split_sentences(turns) for turns in utterances]
    return [cosines.max(axis=1, initial=-1.0) for cosines in matcher.similarities(said, personas)]  # (m, k) -> (m,)


def evidence_overlap(personas: Texts, utterances: Texts) -> list[np.ndarray]:
    """The highest share of a persona sentence's content words that one sentence of the speaker holds.

    Words are stemmed (Porter); stop words are left out. A sentence of stop words alone has no overlap.

    Args:
        personas: N lists of persona sentences.
        utterances: N lists of that speaker's turns.

    Returns:
        N arrays, one value in [0, 1] a persona sentence.

    Example:
        >>> evidence_overlap([["I have two dogs."]], [["My dogs are old.", "Two dogs bark."]])[0].tolist()
        [1.0]
    """
    content = ContentWords()
    found = []
    for persona, turns in zip(personas, utterances, strict=True):
        said = [content(sentence) for sentence in split_sentences(turns)]
        wanted = [content(sentence) for sentence in persona]
        found.append(np.array([_best_share(words, said) for words in wanted], dtype=float))
    return found


def _best_share(words: set[str], said: list[set[str]]) -> float:
    return max((len(words & one) / len(words) for one in said), default=0.0) if words else 0.0


class ContentWords:
    """The stems of a sentence's words that are no stop words.

    Example:
        >>> sorted(ContentWords()("I have two dogs."))
        ['dog', 'two']
    """

    def __init__(self) -> None:
        self._stemmer = require_extra("nltk.stem.porter").PorterStemmer()
        # Numbers are content here: "two dogs" is not "ten dogs".
        self._stop = _stop_words() - _NUMBERS

    def __call__(self, sentence: str) -> set[str]:
        """Stems as a set."""
        words = _WORD.findall(sentence.casefold())
        return {self._stemmer.stem(word) for word in words if word not in self._stop and len(word) > 1}


_NUMBERS = frozenset(
    {"two", "three", "four", "five", "six", "eight", "nine", "ten", "eleven", "twelve", "fifteen", "twenty", "forty"}
    | {"fifty", "sixty", "hundred"}
)


def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # comes with sentence-transformers

    return frozenset(ENGLISH_STOP_WORDS)
