"""What the training benchmarks measure with: dialogues of the wanted lengths, and a BART of the wanted shape."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from public_data import DATA
from tokenizers.processors import TemplateProcessing
from transformers import BartConfig, BartForConditionalGeneration

from pess_hf.data import load_persona_dataset
from pess_hf.small_tokenizer import train_tokenizer

FILES = [*(f"msc/session_{session}_valid.jsonl" for session in (2, 3, 4)), "personachat/train_sample.jsonl"]


def load_rows(args: argparse.Namespace, number: int) -> tuple[list[dict[str, Any]], Any, str]:
    """The dialogues nearest to the wanted lengths, no reference cut, and a tokenizer trained on the texts."""
    use_files = args.data == "auto" and DATA.is_dir()
    rows = list(load_persona_dataset([DATA / name for name in FILES] if use_files else "sample"))
    rows = [row for row in rows if row["persona"]]
    texts = [text for row in rows for text in (*row["utterances"], *row["persona"])]
    tokenizer = train_tokenizer(texts, args.vocab_size)
    start, end = tokenizer.bos_token, tokenizer.eos_token
    ids = [(start, tokenizer.bos_token_id), (end, tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"{start} $A {end}", special_tokens=ids)
    source = [len(ids) for ids in tokenizer([" | ".join(row["utterances"]) for row in rows])["input_ids"]]
    target = [len(ids) for ids in tokenizer([" | ".join(row["persona"]) for row in rows])["input_ids"]]

    def distance(row: int) -> int:
        too_long = 10_000 * (target[row] > args.target_tokens)
        return too_long + abs(args.target_tokens - target[row]) + max(0, args.source_tokens - source[row])

    nearest = sorted(range(len(rows)), key=lambda row: (distance(row), row))[:number]
    # In the order of the files, so that lengths are mixed.
    return [rows[row] for row in sorted(nearest)], tokenizer, "real dialogues" if use_files else "embedded corpus"


def build_model(args: argparse.Namespace, tokenizer: Any) -> BartForConditionalGeneration:
    """A BART of the wanted shape with random weights."""
    torch.manual_seed(0)
    heads = max(args.d_model // 64, 1)
    config = BartConfig(
        vocab_size=max(args.vocab_size, len(tokenizer)),
        d_model=args.d_model,
        encoder_layers=args.layers,
        decoder_layers=args.layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * args.d_model,
        decoder_ffn_dim=4 * args.d_model,
        max_position_embeddings=max(args.source_tokens, args.target_tokens) + 2,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config)


def scripted(rows: list[dict[str, Any]]) -> Callable[[list[list[str]]], list[list[str]]]:
    """Stands in for what the model writes: the later half of a reference, from its end, among the next dialogue's.

    So the new target is not the reference, and there are consistent and inconsistent sentences, in turn: truncation
    leaves some of both.
    """
    written = {}
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        half = (len(row["persona"]) + 1) // 2
        turns = zip(row["persona"][::-1][:half], other["persona"], strict=False)
        written[tuple(row["persona"])] = [sentence for pair in turns for sentence in pair]
    return lambda references: [written[tuple(persona)] for persona in references]


def machine(args: argparse.Namespace) -> str:
    """The processor or the accelerator."""
    if args.device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'}, {torch.get_num_threads()} threads"
