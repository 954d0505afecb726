"""Personas turn by turn: what is known of the seeker before each turn of a support dialogue."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pess_hf.data.esconv import FIRST_INFERRED
from pess_hf.errors import PessError
from pess_hf.result_cache import cache_file
from pess_hf.text import fold

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

#: Sentences that PAL's extractor makes up again and again.
STOCK_PHRASES = ("my favorite color is", "my favorite band")
#: A seeker's utterances so far.
Prefix = tuple[str, ...]


@dataclass(frozen=True)
class PersonaFilter:
    """From when on a persona is inferred, and which sentences are kept (PAL's rules by default).

    Args:
        first_inferred: Utterances of the seeker before anything is inferred.
        min_words: Shorter sentences are dropped.
        max_words: Longer sentences are dropped.
        stock_phrases: Sentences that contain one of these are dropped; case does not matter.

    Raises:
        PessError: A number is out of range.

    Example:
        >>> PersonaFilter()(["i sing .", "alone", "My favorite color is blue."])
        ['i sing .']
    """

    first_inferred: int = FIRST_INFERRED
    min_words: int = 2
    max_words: int = 25
    stock_phrases: tuple[str, ...] = STOCK_PHRASES

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.first_inferred < 1:
            raise PessError(f"first_inferred: expected 1 or more, found {self.first_inferred}.")
        if not 0 <= self.min_words <= self.max_words:
            raise PessError(f"min_words, max_words: expected 0 <= min <= max, {self.min_words}, {self.max_words}.")

    def __call__(self, sentences: Sequence[str]) -> list[str]:
        """The sentences that are kept, in order."""
        return [sentence for sentence in sentences if self._keeps(sentence)]

    def _keeps(self, sentence: str) -> bool:
        folded = fold(sentence)
        is_stock = any(fold(phrase) in folded for phrase in self.stock_phrases)
        return self.min_words <= len(folded.split()) <= self.max_words and not is_stock


class PersonaTracker:
    """Infers personas and remembers them by what the seeker has said, so that nothing is inferred twice.

    Args:
        extractor: A persona extractor (`AutoPessExtractor.from_pretrained`).
        tokenizer: Its tokenizer.
        rules: See `PersonaFilter`.
        cache_size: Distinct prefixes kept, least recently used dropped first.
        generation: Passed to `extractor.extract`: `batch_size`, `max_source_length`, `num_beams` and so on.

    Example:
        >>> tracker = PersonaTracker(extractor, tokenizer)  # doctest: +SKIP
        >>> tracker.personas([("Hi.", "I lost my dog.", "She was ten.")])  # doctest: +SKIP
        [['i had a dog.']]
    """

    def __init__(
        self,
        extractor: Any,
        tokenizer: PreTrainedTokenizerBase,
        rules: PersonaFilter | None = None,
        cache_size: int = 4096,
        **generation: Any,
    ) -> None:
        self.extractor, self.tokenizer = extractor, tokenizer
        self.rules = rules or PersonaFilter()
        self.generation = generation
        self._cache_size = cache_size
        self._known: OrderedDict[Prefix, list[str]] = OrderedDict()

    def personas(self, prefixes: Sequence[Sequence[str]]) -> list[list[str]]:
        """Persona after each of some prefixes; the distinct new ones go through the extractor in one call.

        Args:
            prefixes: Utterances of a seeker so far, oldest first; too few of them give an empty persona.

        Returns:
            One list of sentences a prefix.
        """
        wanted = [tuple(prefix) for prefix in prefixes]
        long_enough = [prefix for prefix in wanted if len(prefix) >= self.rules.first_inferred]
        found = {prefix: self._known[prefix] for prefix in long_enough if prefix in self._known}
        new = [prefix for prefix in dict.fromkeys(long_enough) if prefix not in found]
        if new:
            written = self.extractor.extract(new, self.tokenizer, **self.generation)
            found.update((prefix, self.rules(sentences)) for prefix, sentences in zip(new, written, strict=True))
        self._remember(found)
        return [list(found.get(prefix, [])) for prefix in wanted]

    def _remember(self, found: dict[Prefix, list[str]]) -> None:
        for prefix, persona in found.items():
            self._known[prefix] = persona
            self._known.move_to_end(prefix)
        while len(self._known) > self._cache_size:
            self._known.popitem(last=False)


def infer_personas(
    dataset: datasets.Dataset,
    extractor: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    rules: PersonaFilter | None = None,
    replace: bool = False,
    cache_dir: str | Path | None = None,
    disable_tqdm: bool = False,
    **generation: Any,
) -> datasets.Dataset:
    """Fill `persona[t]` of support dialogues with what an extractor infers from the seeker's words before turn t.

    All prefixes of all dialogues go through the extractor together, each distinct one once, in batches of like
    length. The result is kept on the disk under a fingerprint of the dialogues, the extractor's weights, the tokenizer
    and the settings, so that the next run with the same ones reads it; `datasets.disable_caching()` turns that off.

    Args:
        dataset: Support rows, as `load_support_dataset` gives them.
        extractor: A persona extractor.
        tokenizer: Its tokenizer.
        rules: From when on a persona is inferred, and which sentences are kept; PAL's rules by default.
        replace: Infer also where a dialogue brings personas of its own, as PESConv does; by default these stay.
        cache_dir: Where results are kept; a folder in the cache of `datasets` by default.
        disable_tqdm: No progress bar.
        generation: Passed to `extractor.extract`: `batch_size` and `max_source_length`, and what `generate` takes.

    Returns:
        The same rows with `persona` filled.

    Raises:
        PessError: The rows are no support dialogues.

    Example:
        >>> rows = infer_personas(load_support_dataset("sample"), extractor, tokenizer)  # doctest: +SKIP
    """
    if not {"turns", "persona"} <= set(dataset.column_names):
        raise PessError(
            f"infer_personas: expected the columns 'turns' and 'persona', found {', '.join(dataset.column_names)}. "
            "Load the rows with load_support_dataset."
        )
    from datasets import Features, Value

    rules = rules or PersonaFilter()
    fingerprint = _fingerprint(dataset, extractor, tokenizer, [rules, replace, generation])

    def fill(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        tracker = PersonaTracker(extractor, tokenizer, rules, disable_tqdm=disable_tqdm, **generation)
        return {"persona": _fill(batch["turns"], batch["persona"], tracker.personas, replace)}

    return dataset.map(
        fill,
        batched=True,
        batch_size=None,  # all prefixes together
        # Where every list is empty, nothing but this says that personas are texts.
        features=Features({**dataset.features, "persona": [[Value("string")]]}),
        new_fingerprint=fingerprint,
        cache_file_name=cache_file("personas", fingerprint, cache_dir),
    )


def _fill(
    dialogues: list[list[dict[str, Any]]],
    given: list[list[list[str]]],
    infer: Callable[[Sequence[Sequence[str]]], list[list[str]]],
    replace: bool,
) -> list[list[list[str]]]:
    """Personas of all dialogues, the inferred ones from one call."""
    to_infer = [replace or not any(known) for known in given]
    prefixes = [_prefixes(turns) for turns, infers in zip(dialogues, to_infer, strict=True) if infers]
    inferred = iter(infer([prefix for of_dialogue in prefixes for prefix in of_dialogue]))
    return [
        [next(inferred) for _ in turns] if infers else known
        for turns, known, infers in zip(dialogues, given, to_infer, strict=True)
    ]


def _prefixes(turns: list[dict[str, Any]]) -> list[Prefix]:
    """What the seeker has said before each turn."""
    said: Prefix = ()
    prefixes = []
    for turn in turns:
        prefixes.append(said)
        said += (turn["text"],) if turn["speaker"] == "seeker" else ()
    return prefixes


def _fingerprint(dataset: datasets.Dataset, extractor: Any, tokenizer: Any, settings: list[Any]) -> str:
    """Fingerprint of everything that the personas depend on."""
    from datasets.fingerprint import Hasher

    from pess_hf.weights_digest import weights_digest

    hasher = Hasher()
    for value in (dataset.to_list(), repr(settings), extractor.config.to_json_string(use_diff=False)):
        hasher.update(value)
    hasher.update(extractor.generation_config.to_json_string(use_diff=False))
    hasher.update(tokenizer.backend_tokenizer.to_str())
    hasher.update(weights_digest(extractor))
    return hasher.hexdigest()
