"""Support examples to one batch for the generator: context, persona, and strategy token plus response as target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pess_hf.data.collator import ID_COLUMN, pad_labels
from pess_hf.data.strategies import normalise_strategy
from pess_hf.errors import PessError
from pess_hf.strategy_names import STRATEGIES
from pess_hf.text import DEFAULT_SEPARATOR, clean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Distinct texts whose tokens are remembered: each turn stands in the context of all later ones.
_CACHED_TEXTS = 50_000


@dataclass
class SupportCollator:
    """Tokenises and pads support examples (PAL's text form, arXiv 2212.09235).

    The context is all turns so far, oldest first, seeker turns behind `seeker_prefix`, supporter turns behind
    `supporter_prefix` and their strategy token, then a last empty `supporter_prefix`. Too long a context loses its
    oldest tokens. The target is the strategy token, the response and the end token.

    Args:
        tokenizer: A tokenizer with the eight strategy tokens, see `add_strategy_tokens`.
        use_persona: Whether the model sees the persona; if not, the batch has none.
        max_context_length: Context tokens at most.
        max_persona_length: Persona tokens at most; the last sentences go first.
        max_target_length: Target tokens at most, strategy and end token included.
        utterance_separator: Stands between turns; the model's config holds it.
        persona_separator: Stands between persona sentences; the model's config holds it.
        seeker_prefix: Stands before a seeker's turn; the model's config holds it.
        supporter_prefix: Stands before a supporter's turn; the model's config holds it.
        with_ids: Name the rows in the batch, for the errors of `PessGeneratorTrainer`; a model does not take them.

    Raises:
        PessError: The tokenizer lacks a strategy token, or has no padding or end token.

    Example:
        >>> collator = SupportCollator(tokenizer)  # doctest: +SKIP
        >>> turns = [{"speaker": "seeker", "text": "I lost my dog.", "strategy": None}]  # doctest: +SKIP
        >>> sorted(collator.encode_prompts([turns], [["I have two dogs."]]))  # doctest: +SKIP
        ['attention_mask', 'input_ids', 'persona_attention_mask', 'persona_input_ids']
    """

    tokenizer: PreTrainedTokenizerBase
    use_persona: bool = True
    max_context_length: int = 512
    max_persona_length: int = 256
    max_target_length: int = 50
    utterance_separator: str = DEFAULT_SEPARATOR
    persona_separator: str = DEFAULT_SEPARATOR
    seeker_prefix: str = "Persona:"
    supporter_prefix: str = "System:"
    with_ids: bool = False
    _strategy_ids: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Look the strategy tokens up."""
        for name in ("pad_token_id", "eos_token_id"):
            if getattr(self.tokenizer, name) is None:
                raise PessError(f"SupportCollator: expected a tokenizer with a {name[:-3]}, found none. Set it.")
        vocabulary = self.tokenizer.get_vocab()
        missing = [token for token in STRATEGIES if token not in vocabulary]
        if missing:
            raise PessError(
                f"SupportCollator: expected the strategy tokens in the tokenizer, {missing} are missing. "
                "Call add_strategy_tokens(tokenizer) first."
            )
        self._strategy_ids = {normalise_strategy(token): vocabulary[token] for token in STRATEGIES}
        self._ids_of = lru_cache(maxsize=_CACHED_TEXTS)(self._tokenize)
        self._frame = self._find_frame()

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows: B examples with `context`, `persona`, `strategy` and `response`, see `build_support_examples`.

        Returns:
            `input_ids` and `attention_mask` (B, L), `labels` (B, T) padded with -100, and with `use_persona`
            `persona_input_ids` and `persona_attention_mask` (B, M); a row of zeros has no persona. With `with_ids`
            `dialogue_id`, B names of dialogue and turn.

        Raises:
            PessError: A row lacks a column, or a speaker or a strategy is unknown.
        """
        for column in ("context", "persona", "strategy", "response"):
            if column not in rows[0]:
                raise PessError(
                    f"training row: expected the column {column!r}, found {', '.join(sorted(rows[0]))}. "
                    "Make the rows with build_support_examples."
                )
        batch = self.encode_prompts([row["context"] for row in rows], [row["persona"] for row in rows])
        batch["labels"] = pad_labels([self.target_ids(row["strategy"], row["response"]) for row in rows])
        if self.with_ids:
            batch[ID_COLUMN] = [f"{row.get(ID_COLUMN, '?')} turn {row.get('turn', '?')}" for row in rows]
        return batch

    def encode_prompts(
        self, contexts: Sequence[Sequence[Mapping[str, Any]]], personas: Sequence[Sequence[str]]
    ) -> dict[str, Any]:
        """The model's inputs without a target.

        Args:
            contexts: B lists of turns, each with `speaker`, `text` and, for a supporter, `strategy` or None.
            personas: B lists of persona sentences, each possibly empty.

        Returns:
            As `__call__`, without `labels`.

        Raises:
            PessError: A speaker or a strategy is unknown, or a text is blank.
        """
        batch = self._pad([self.context_ids(context) for context in contexts])
        if self.use_persona:
            padded = self._pad([self.persona_ids(persona) for persona in personas])
            batch.update({f"persona_{name}": value for name, value in padded.items()})
        return batch

    def context_ids(self, turns: Sequence[Mapping[str, Any]]) -> list[int]:
        """Token ids (L,) of one context, its oldest tokens cut off where it is too long."""
        ids = [token for n, turn in enumerate(turns) for token in self._turn_ids(turn, n)]
        ids += self._ids_of((self.utterance_separator if turns else "") + self.supporter_prefix)
        head, tail = self._frame
        return [*head, *ids[-(self.max_context_length - len(head) - len(tail)) :], *tail]

    def persona_ids(self, persona: Sequence[str]) -> list[int]:
        """Token ids (M,) of one persona, whole sentences from the front as far as they fit; none for no persona."""
        head, tail = self._frame
        room = self.max_persona_length - len(head) - len(tail)
        ids: list[int] = []
        for sentence in filter(None, (clean(sentence, self.persona_separator) for sentence in persona)):
            more = self._ids_of((self.persona_separator if ids else "") + sentence)
            if ids and len(ids) + len(more) > room:
                break
            ids += more
        return [*head, *ids[:room], *tail] if ids else []

    def target_ids(self, strategy: str, response: str) -> list[int]:
        """Label ids (T,): strategy token, response, end token.

        The special tokens that some tokenizers put around a text are left out: the decoder starts from its own start
        token, and the strategy comes first.
        """
        response_ids = self._ids_of(" " + self._clean(response))
        end = self.tokenizer.eos_token_id
        return [self._strategy_id(strategy), *response_ids[: self.max_target_length - 2], end]

    def _turn_ids(self, turn: Mapping[str, Any], position: int) -> list[int]:
        speaker, start = turn["speaker"], self.utterance_separator if position else ""
        text = self._clean(turn["text"])
        if not text:
            raise PessError(f"turn {position}: expected a text with words in it, found a blank one. Leave it out.")
        if speaker == "seeker":
            return self._ids_of(f"{start}{self.seeker_prefix} {text}")
        if speaker != "supporter":
            raise PessError(f"turn {position}: expected the speaker 'seeker' or 'supporter', found {speaker!r}.")
        if turn.get("strategy") is None:
            return self._ids_of(f"{start}{self.supporter_prefix} {text}")
        prefix = self._ids_of(start + self.supporter_prefix)
        return [*prefix, self._strategy_id(turn["strategy"]), *self._ids_of(" " + text)]

    def _clean(self, text: str) -> str:
        return clean(text, self.utterance_separator)

    def _strategy_id(self, name: str) -> int:
        return self._strategy_ids[normalise_strategy(name)]

    def _tokenize(self, text: str) -> list[int]:
        # Special tokens spelled out in a message stay ordinary text: nobody can put a strategy into our mouth.
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]

    def _find_frame(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before and behind a text."""
        inner = self._tokenize("a")
        whole = self.tokenizer("a")["input_ids"]
        start = next(i for i in range(len(whole)) if whole[i : i + len(inner)] == inner)
        return whole[:start], whole[start + len(inner) :]

    def _pad(self, sequences: list[list[int]]) -> dict[str, Any]:
        """Ids and mask (B, L), padded on the right to the longest, at least one position."""
        import torch

        length = max(1, *map(len, sequences))
        pad = self.tokenizer.pad_token_id
        ids = [sequence + [pad] * (length - len(sequence)) for sequence in sequences]
        mask = [[1] * len(sequence) + [0] * (length - len(sequence)) for sequence in sequences]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
