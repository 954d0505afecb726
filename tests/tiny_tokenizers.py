"""Tokenizers built in the process: no download, the same ids on every machine, a few milliseconds each.

`byte_level_tokenizer()` behaves like BART's (`<s> ... </s>`, blanks belong to the next word, any text is covered),
`unigram_tokenizer()` like T5's (`... </s>`, a leading mark per word, rare characters are unknown).
"""

import math
from collections import Counter
from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = (
    "I have two dogs. | I sing in a choir. | My sister lives in a small town.",
    "I work as a nurse, and I like my job. | I play chess on Sundays.",
    "We went to the sea last summer! | Do you have a garden?",
    "My name is Ann. | I am afraid of the dark. | I have never seen snow.",
    "I love cooking with my mother. | I drive an old car to work.",
    "The weather is nice today. | What do you do for a living?",
)


def byte_level_tokenizer(sentences: Sequence[str] = SENTENCES, vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer like BART's: bos 0, pad 1, eos 2, unk 3; `<s> text </s>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        sentences,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=1024,
    )


def unigram_tokenizer(sentences: Sequence[str] = SENTENCES) -> PreTrainedTokenizerFast:
    """A unigram tokenizer like T5's: pad 0, eos 1, unk 2, bos 3 (unused by the template); `text </s>`.

    Its pieces are the words of the sentences and, below them, their characters. It is not trained, because the
    trainer adds floats in parallel.
    """
    words = Counter("▁" + word for sentence in sentences for word in sentence.split())
    characters = sorted({character for word in words for character in word})
    special = ["<pad>", "</s>", "<unk>", "<s>"]
    pieces = [(piece, 0.0) for piece in special]
    pieces += [(character, -20.0) for character in characters]
    pieces += [(word, math.log(count / words.total())) for word, count in sorted(words.items()) if len(word) > 1]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=512,
    )
