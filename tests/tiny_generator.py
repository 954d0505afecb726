"""Tiny generators, inputs and a tokenizer, all made in process."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BlenderbotSmallConfig,
    BlenderbotSmallForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from pess_hf.configuration_generator import PessGeneratorConfig
from pess_hf.modeling_generator import PessGenerator

BACKBONES = {
    "blenderbot-small": (BlenderbotSmallConfig, BlenderbotSmallForConditionalGeneration),
    "bart": (BartConfig, BartForConditionalGeneration),
}
PAD, START, END = 0, 1, 2
STRATEGY_IDS = list(range(4, 12))
VOCAB = 30
WORDS = [
    "i",
    "you",
    "feel",
    "sad",
    "glad",
    "my",
    "dog",
    "cat",
    "job",
    "exam",
    "lost",
    "have",
    "two",
    "the",
    "a",
    "and",
    "is",
]


def tiny_config(kind: str, **overrides: Any) -> Any:
    settings: dict[str, Any] = {
        "vocab_size": VOCAB,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 64,
        "pad_token_id": PAD,
        "bos_token_id": START,
        "eos_token_id": END,
        "decoder_start_token_id": START,
        "forced_eos_token_id": None,
        "dropout": 0.0,
    }
    return BACKBONES[kind][0](**{**settings, **overrides})


def tiny_backbone(kind: str, **overrides: Any) -> Any:
    torch.manual_seed(0)
    return BACKBONES[kind][1](tiny_config(kind, **overrides)).eval()


def tiny_generator(
    kind: str = "blenderbot-small", seed: int = 0, tied: bool = False, **settings: Any
) -> PessGenerator:
    """A model whose replies vary: wide initial weights and an untied head."""
    torch.manual_seed(seed)
    backbone = tiny_config(kind, init_std=1.0, tie_word_embeddings=tied)
    settings = {"strategy_token_ids": STRATEGY_IDS, **settings}
    return PessGenerator(PessGeneratorConfig(backbone=backbone, **settings)).eval()


def tiny_inputs(rows: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Contexts and personas of several lengths; the last row has no persona."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(12, VOCAB, (rows, 9), generator=draw)
    persona = torch.randint(12, VOCAB, (rows, 5), generator=draw)
    for row in range(rows):
        ids[row, 9 - 2 * row % 5 :] = PAD
        persona[row, 5 - row % 3 :] = PAD
    persona[-1] = PAD
    return {
        "input_ids": ids,
        "attention_mask": (ids != PAD).long(),
        "persona_input_ids": persona,
        "persona_attention_mask": (persona != PAD).long(),
    }


def row_of(inputs: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    """One row of a batch, its padding cut off."""
    length = int(inputs["attention_mask"][row].sum())
    persona_length = int(inputs["persona_attention_mask"][row].sum())
    alone = {name: inputs[name][row : row + 1, :length] for name in ("input_ids", "attention_mask")}
    if persona_length:
        names = ("persona_input_ids", "persona_attention_mask")
        alone |= {name: inputs[name][row : row + 1, :persona_length] for name in names}
    return alone


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
