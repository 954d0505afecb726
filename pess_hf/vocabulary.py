"""A smaller vocabulary for a warm-started extractor, whose work is mostly the projection onto 30,000 tokens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pess_hf.errors import PessError

_SPECIAL = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
#: Texts tokenized in one call; one by one, most of the time goes into calling.
_BATCH = 1000


def trim_vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], size: int) -> Any:
    """Keep the tokens that texts use most; every other word is still spelt, out of shorter pieces.

    Special tokens and single characters always stay, so that nothing becomes unknown that was not. Room that the texts
    leave is filled in the order of the vocabulary: BERT's begins with the frequent words. The model's
    embeddings and head lose the rows of the other tokens; all kept rows hold what they held, and what was
    frozen stays frozen.

    Args:
        model: An encoder-decoder extractor made from a BERT-like checkpoint; it is changed in place.
        tokenizer: Its WordPiece tokenizer; it is left as it is.
        texts: What to count tokens in: the training texts, never the test texts.
        size: Tokens kept at most, special tokens and characters included.

    Returns:
        The tokenizer of the trimmed model.

    Raises:
        PessError: If the tokenizer is no WordPiece, or `size` does not even hold special tokens and characters.

    Example:
        >>> tokenizer = trim_vocabulary(model, tokenizer, ["I have two dogs."], size=8000)  # doctest: +SKIP
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] != "WordPiece":
        raise PessError(
            f"vocabulary_size: expected a WordPiece tokenizer, found {state['model']['type']}. "
            "Leave vocabulary_size out."
        )
    vocab: dict[str, int] = state["model"]["vocab"]
    kept = _kept_ids(tokenizer, vocab, texts, size)
    _keep_rows(model, torch.tensor(kept))
    return _smaller_tokenizer(tokenizer, state, kept)


def _kept_ids(tokenizer: Any, vocab: dict[str, int], texts: Iterable[str], size: int) -> list[int]:
    """Ids in their old order."""
    always = {token_id for token, token_id in vocab.items() if len(token.removeprefix("##")) == 1}
    always |= set(tokenizer.all_special_ids)
    if size < len(always):
        raise PessError(
            f"vocabulary_size: expected at least {len(always)}, the special tokens and characters, found {size}."
        )
    counts: Counter[int] = Counter()
    remaining = iter(texts)
    while batch := list(islice(remaining, _BATCH)):
        for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            counts.update(ids)
    others = {token_id for token, token_id in vocab.items() if not token.startswith("[unused")} - always
    ranked = sorted(others, key=lambda token: (-counts[token], token))
    return sorted(always | set(ranked[: size - len(always)]))


@torch.no_grad()
def _keep_rows(model: Any, kept: torch.Tensor) -> None:
    new_id = {old: new for new, old in enumerate(kept.tolist())}
    for part in (model.encoder, model.decoder):
        old = part.get_input_embeddings()
        new = nn.Embedding(len(kept), old.embedding_dim, padding_idx=new_id.get(old.padding_idx))
        new.weight = nn.Parameter(old.weight[kept].clone(), requires_grad=old.weight.requires_grad)  # (V, D)
        part.set_input_embeddings(new)
    head = model.decoder.get_output_embeddings()
    head.weight = model.decoder.get_input_embeddings().weight
    head.bias = nn.Parameter(head.bias[kept].clone(), requires_grad=head.bias.requires_grad)  # (V,)
    model.decoder.cls.predictions.bias = head.bias  # BERT keeps the head's bias under two names
    head.out_features = len(kept)
    for config in (model.config, model.config.encoder, model.config.decoder, model.generation_config):
        _renumber(config, new_id)
        if hasattr(config, "vocab_size"):
            config.vocab_size = len(kept)


def _renumber(config: Any, new_id: dict[int, int]) -> None:
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
        if getattr(config, name, None) is not None:
            setattr(config, name, new_id[getattr(config, name)])


def _smaller_tokenizer(tokenizer: Any, state: dict[str, Any], kept: list[int]) -> PreTrainedTokenizerFast:
    new_id = {old: new for new, old in enumerate(kept)}
    state["model"]["vocab"] = {
        token: new_id[old]
        for token, old in sorted(state["model"]["vocab"].items(), key=lambda item: item[1])
        if old in new_id
    }
    for added in state["added_tokens"]:
        added["id"] = new_id[added["id"]]
    for special in state["post_processor"].get("special_tokens", {}).values():
        special["ids"] = [new_id[old] for old in special["ids"]]
    names = {name: getattr(tokenizer, name) for name in _SPECIAL if getattr(tokenizer, name)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), model_max_length=tokenizer.model_max_length, **names
    )
