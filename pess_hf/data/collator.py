"""Rows of a persona dataset to one training batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pess_hf.encoding import EncodedTarget, encode_sources, encode_targets, warn_of_truncation
from pess_hf.errors import PessError
from pess_hf.text import DEFAULT_SEPARATOR

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The column that names the rows in errors; a dataset may be without it.
ID_COLUMN = "dialogue_id"
#: The columns of a persona dataset that training needs.
PERSONA_COLUMNS = ("utterances", "persona")


@dataclass
class PersonaCollator:
    """Tokenises and pads persona rows.

    Args:
        tokenizer: A fast tokenizer with a padding token.
        utterance_separator: Stands between utterances; the model's config holds it.
        persona_separator: Stands between persona sentences; the model's config holds it.
        max_source_length: Source tokens at most; the oldest utterances go first.
        max_target_length: Target tokens at most; the last sentences go first.
        pad_to_multiple_of: Pad the source to a multiple of this.

    Example:
        >>> collator = PersonaCollator(tokenizer)  # doctest: +SKIP
        >>> batch = collator([{"utterances": ["My dogs bark."], "persona": ["I have two dogs."]}])  # doctest: +SKIP
        >>> sorted(batch)  # doctest: +SKIP
        ['attention_mask', 'input_ids', 'labels', 'persona']
    """

    tokenizer: PreTrainedTokenizerBase
    utterance_separator: str = DEFAULT_SEPARATOR
    persona_separator: str = DEFAULT_SEPARATOR
    max_source_length: int = 512
    max_target_length: int = 128
    pad_to_multiple_of: int | None = None

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows: B rows with `utterances` and `persona`.

        Returns:
            `input_ids` and `attention_mask` (B, S), `labels` (B, T) padded with -100, `persona`, the B lists of
            reference sentences that the matching reads, and `dialogue_id` where the rows have one.

        Raises:
            PessError: If a row lacks a column.
        """
        for column in PERSONA_COLUMNS:
            if column not in rows[0]:
                raise PessError(
                    f"training row: expected the column {column!r}, found {', '.join(sorted(rows[0]))}. "
                    "Load the rows with load_persona_dataset."
                )
        sources = encode_sources(
            self.tokenizer, [row["utterances"] for row in rows], self.utterance_separator, self.max_source_length
        )
        targets = self.encode_personas([row["persona"] for row in rows])
        batch = self.tokenizer.pad(
            {"input_ids": [source.input_ids for source in sources]},
            return_tensors="pt",
            pad_to_multiple_of=self.pad_to_multiple_of,
        )
        labels = pad_labels([target.input_ids for target in targets])
        personas = [list(row["persona"]) for row in rows]
        return {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "labels": labels,
            "persona": personas,
            **({ID_COLUMN: [row[ID_COLUMN] for row in rows]} if ID_COLUMN in rows[0] else {}),
        }

    def warn_of_truncation(self, rows: Any) -> None:
        """Tokenise all rows once and log, in one line each, what truncation will leave out of sources and targets.

        Args:
            rows: A persona dataset.
        """
        sources = encode_sources(self.tokenizer, rows["utterances"], self.utterance_separator, self.max_source_length)
        targets = self.encode_personas(rows["persona"])
        warn_of_truncation([source.num_dropped for source in sources], "oldest utterances", "max_source_length")
        warn_of_truncation([target.num_dropped for target in targets], "last sentences", "max_target_length")

    def encode_personas(self, personas: list[list[str]]) -> list[EncodedTarget]:
        """Token ids and sentence spans of persona lists, under this collator's separator and limit."""
        return encode_targets(self.tokenizer, personas, self.persona_separator, self.max_target_length)


def pad_labels(sequences: list[list[int]]) -> Any:
    """Pad label sequences on the right with -100 to (B, T).

    Example:
        >>> pad_labels([[5, 2], [2]]).tolist()
        [[5, 2], [2, -100]]
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    return pad_sequence(
        [torch.tensor(ids, dtype=torch.long) for ids in sequences], batch_first=True, padding_value=-100
    )
