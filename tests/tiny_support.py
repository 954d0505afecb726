"""Tiny support models: a generator with a tokenizer that knows every text, and an extractor that counts its calls."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.models.bart.configuration_bart import BartConfig

from pess_hf.configuration_generator import PessGeneratorConfig
from pess_hf.modeling_generator import PessGenerator
from pess_hf.strategies import add_strategy_tokens

WELCOME = "Persona: System: | I am here, what about you?"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the special ones."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([WELCOME] * 2, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def tiny_support_model(seed: int = 0, positions: int = 128) -> tuple[PessGenerator, PreTrainedTokenizerFast]:
    """A generator with random weights and its tokenizer."""
    tokenizer = byte_tokenizer()
    ids = add_strategy_tokens(tokenizer)
    torch.manual_seed(seed)
    sizes = {
        f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in (("layers", 1), ("ffn_dim", 16))
    }
    heads = {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    backbone = BartConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        max_position_embeddings=positions,
        init_std=0.5,
        dropout=0.0,
        forced_eos_token_id=None,
        **sizes,
        **heads,
        **tokens,
    )
    return PessGenerator(PessGeneratorConfig(backbone=backbone, strategy_token_ids=ids)).eval(), tokenizer


class CountingExtractor:
    """Stands in for an extractor: the persona is "said: " and the last utterance; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, ...]]] = []
        self.config = BartConfig()
        self.generation_config = GenerationConfig()

    def extract(self, dialogues, tokenizer, **kwargs):
        self.asked.append([tuple(dialogue) for dialogue in dialogues])
        return [[f"said: {dialogue[-1]}", "single", "My favorite color is blue."] for dialogue in dialogues]

    def state_dict(self):
        return {"weight": torch.zeros(2)}
