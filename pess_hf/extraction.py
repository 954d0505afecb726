"""Batch extraction: dialogues in, persona sentences out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from pess_hf.beam_sharing import shared_beams
from pess_hf.encoding import encode_sources, warn_of_truncation
from pess_hf.errors import PessError
from pess_hf.rollout import rollout_mode
from pess_hf.text import fold, split_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def extract_personas(
    model: Any,
    dialogues: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int = 16,
    max_source_length: int = 512,
    disable_tqdm: bool = False,
    **generation: Any,
) -> list[list[str]]:
    """Generate personas in length-sorted batches; see `PersonaExtractionMixin.extract` for the arguments."""
    if batch_size < 1:
        raise PessError(f"batch_size: expected 1 or more, found {batch_size}.")
    max_source_length = min(max_source_length, max_positions(model))
    sources = encode_sources(tokenizer, dialogues, model.config.utterance_separator, max_source_length)
    warn_of_truncation([source.num_dropped for source in sources], "oldest utterances", "max_source_length")
    order = sorted(range(len(sources)), key=lambda row: (-len(sources[row].input_ids), row))
    personas: list[list[str]] = [[] for _ in sources]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    bar = tqdm(total=len(order), desc="extract", unit="row", disable=disable_tqdm)
    with rollout_mode(model), shared_beams(model), bar:
        for rows in batches:
            batch = [torch.tensor(sources[row].input_ids, device=model.device) for row in rows]
            texts = _generate_texts(model, tokenizer, batch, generation)
            for row, text in zip(rows, texts, strict=True):
                personas[row] = unique_sentences(split_pieces(text, model.config.persona_separator))
            bar.update(len(rows))
    return personas


def _generate_texts(
    model: Any, tokenizer: PreTrainedTokenizerBase, sources: list[torch.Tensor], generation: dict[str, Any]
) -> list[str]:
    input_ids = pad_sequence(sources, batch_first=True, padding_value=tokenizer.pad_token_id)  # (B, S)
    mask = pad_sequence([torch.ones_like(source) for source in sources], batch_first=True)  # (B, S)
    sequences = model.generate(input_ids=input_ids, attention_mask=mask, **generation)  # (B, T)
    return tokenizer.batch_decode(sequences, skip_special_tokens=True)


def max_positions(model: Any) -> int:
    """Source tokens that the model has positions for; a very large number where positions are relative.

    Args:
        model: An extractor.

    Returns:
        The number of positions.
    """
    config = getattr(model.config, "encoder", None) or model.config
    return getattr(config, "max_position_embeddings", None) or sys.maxsize


def unique_sentences(sentences: Sequence[str]) -> list[str]:
    """Each sentence once, the first time it comes, case and white space folded.

    Example:
        >>> unique_sentences(["I sing.", "i  sing."])
        ['I sing.']
    """
    seen: dict[str, str] = {}
    for sentence in sentences:
        seen.setdefault(fold(sentence), sentence)
    return list(seen.values())
