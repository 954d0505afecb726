"""A small tokenizer trained in process, for models that are built from nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_PAD, _START, _END = "<pad>", "<s>", "</s>"
#: What the text form adds to the words; learned as whole tokens where the vocabulary has room.
_MARKS = ("Persona: a | Persona: b | System: c | System:",)


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2000) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer: a small vocabulary, and yet no text is unknown to it.

    Args:
        texts: What it learns from.
        vocab_size: Tokens at most, 300 or more: bytes, three special tokens, and the rest learned.

    Returns:
        A tokenizer with a padding, a start and an end token, none of which it adds by itself.

    Example:
        >>> tokenizer = train_tokenizer(["I lost my dog."] * 5, vocab_size=300)
        >>> tokenizer.decode(tokenizer("I lost my cat")["input_ids"])
        'I lost my cat'
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_PAD, _START, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *_MARKS * 50], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_PAD, bos_token=_START, eos_token=_END)
