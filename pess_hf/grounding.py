"""Which utterance tells a persona sentence: by the data set's own labels, or by sentence embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pess_hf.data.windows import TURNS_COLUMN
from pess_hf.result_cache import cache_file
from pess_hf.text import split_sentences
from pess_hf.weights_digest import scorer_digest

if TYPE_CHECKING:
    import datasets

    from pess_hf.similarity import PersonaMatcher

Turns = list[int | None]


def ground_personas(
    personas: Sequence[Sequence[str]],
    utterances: Sequence[Sequence[str]],
    matcher: PersonaMatcher,
    min_similarity: float,
) -> list[Turns]:
    """The utterance that each persona sentence is most similar to.

    An utterance is compared as a whole and sentence by sentence; its best counts.

    Args:
        personas: N lists of persona sentences.
        utterances: N lists of that speaker's turns.
        matcher: Its encoder embeds both sides; its threshold plays no part.
        min_similarity: Below this cosine, in [-1, 1], no utterance tells the sentence.

    Returns:
        N lists: the index of an utterance for each persona sentence, or None.

    Example:
        >>> from pess_hf.similarity import DEFAULT_ENCODER, PersonaMatcher
        >>> said = [["Hi! It rains.", "I walk my two dogs."]]
        >>> ground_personas([["I have two dogs.", "I am a nurse."]], said, PersonaMatcher(DEFAULT_ENCODER), 0.42)
        [[1, None]]
    """
    pieces = [[(turn, text) for turn, said in enumerate(row) for text in _pieces(said)] for row in utterances]
    similarities = matcher.similarities([[text for _, text in row] for row in pieces], personas)
    found: list[Turns] = []
    for row, similarity in zip(pieces, similarities, strict=True):
        best = [(row[column][0], cosines[column]) for cosines in similarity for column in [cosines.argmax()]]
        found.append([turn if cosine >= min_similarity else None for turn, cosine in best])
    return found


def _pieces(utterance: str) -> list[str]:
    return list(dict.fromkeys([utterance, *split_sentences([utterance])]))


def persona_turns(
    rows: datasets.Dataset, matcher: PersonaMatcher, min_similarity: float
) -> tuple[list[Turns], list[bool]]:
    """Which utterance tells each persona sentence of some rows.

    What similarity finds is kept in the cache of `datasets` under a fingerprint of the rows, the encoder and the least
    similarity, so that the next run reads it; `datasets.disable_caching()` turns that off.

    Args:
        rows: N persona rows. Where the column `persona_turns` has a value, people said it; the rest is grounded.
        matcher: As in `ground_personas`.
        min_similarity: As in `ground_personas`.

    Returns:
        N lists as `ground_personas` gives them, and for each row whether it was grounded by similarity.

    Example:
        >>> turns, is_grounded = persona_turns(rows, matcher, 0.42)  # doctest: +SKIP
    """
    known: list[Turns | None] = list(rows[TURNS_COLUMN]) if TURNS_COLUMN in rows.column_names else [None] * len(rows)
    unknown = [row for row, turns in enumerate(known) if turns is None]
    grounded = iter(_ground_rows(rows.select(unknown), matcher, min_similarity) if unknown else [])
    return [next(grounded) if turns is None else turns for turns in known], [turns is None for turns in known]


def _ground_rows(rows: datasets.Dataset, matcher: PersonaMatcher, min_similarity: float) -> list[Turns]:
    """`ground_personas` with the progress bar and the cache of `datasets`."""
    from datasets import Features, Value
    from datasets.fingerprint import Hasher, generate_random_fingerprint

    said = rows.select_columns(["persona", "utterances"])
    digest = scorer_digest(matcher.encoder)
    known = Hasher.hash([said.to_list(), digest, min_similarity])
    fingerprint = generate_random_fingerprint() if digest is None else known
    return said.map(
        lambda batch: {TURNS_COLUMN: ground_personas(batch["persona"], batch["utterances"], matcher, min_similarity)},
        batched=True,
        batch_size=64,
        remove_columns=said.column_names,
        features=Features({TURNS_COLUMN: [Value("int64")]}),
        new_fingerprint=fingerprint,
        cache_file_name=None if digest is None else cache_file("grounding", fingerprint),
        desc="finding the turns that tell the personas",
    )[TURNS_COLUMN][:]
