"""A small BART taught in process, then widened and deepened to the shape of a large one without changing what it says.

A benchmark of extraction needs a model that writes personas of different lengths and ends them: random weights do
neither, and there may be no network to fetch a trained one. So a 2+2-layer BART of width 128 is trained for some
minutes, and its function is carried over to the wanted shape: every feature is repeated (a linear layer's input is
then r times too large, so its weights are divided by r), and the layers that are added pass on what they get, which is
exact because the layer norms are kept without scale and shift in training. The time of a matrix product does not
depend on what is in it.

    python benchmarks/taught_bart.py --steps 800 --shape base --output runs/taught-base
    python benchmarks/taught_bart.py --source runs/taught-base/small --shape large --output runs/taught-large
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from public_data import DATA
from tokenizers import processors
from torch import nn
from transformers import BartConfig, PreTrainedTokenizerBase

from pess_hf.checkpoint import open_tokenizer
from pess_hf.data import load_persona_dataset
from pess_hf.data.collator import PersonaCollator
from pess_hf.modeling_extractor import PessExtractor
from pess_hf.small_tokenizer import train_tokenizer

#: Layers of the encoder and of the decoder, width, tokens.
SHAPES = {"small": (2, 128, None), "base": (6, 768, 50265), "large": (12, 1024, 50265)}
SMALL_LAYERS, SMALL_WIDTH, HEAD_WIDTH = 2, 128, 64
#: Score of the tokens that only fill the vocabulary up.
NEVER = -1e4


def taught_rows() -> list[dict[str, Any]]:
    """Training rows of the embedded corpus and, where it is at hand, of Persona-Chat."""
    rows = list(load_persona_dataset("sample", "train"))
    extra = DATA / "personachat" / "train_sample.jsonl"
    return rows + (list(load_persona_dataset(extra)) if extra.exists() else [])


def bart_tokenizer(texts: Iterator[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A tokenizer of our own that puts texts between a start and an end token as BART's does."""
    tokenizer = train_tokenizer(texts, vocab_size)
    start, end = tokenizer.bos_token, tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.RobertaProcessing(
        (end, tokenizer.eos_token_id), (start, tokenizer.bos_token_id), add_prefix_space=False
    )
    return tokenizer


def bart_config(layers: int, width: int, vocab_size: int, tokenizer: PreTrainedTokenizerBase) -> BartConfig:
    """A BART of a shape, with heads of 64 features and a feed-forward layer of four times the width."""
    size: dict[str, Any] = {"vocab_size": vocab_size, "d_model": width, "init_std": 0.08, "dropout": 0.0}
    for side in ("encoder", "decoder"):
        size |= {
            f"{side}_layers": layers,
            f"{side}_attention_heads": width // HEAD_WIDTH,
            f"{side}_ffn_dim": 4 * width,
        }
    end = tokenizer.eos_token_id
    tokens = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": end}
    return BartConfig(**size, **tokens, decoder_start_token_id=end, forced_eos_token_id=end)


def teach(rows: list[dict[str, Any]], steps: int, batch: int = 16, vocab_size: int = 4000) -> tuple[Any, Any]:
    """Train the small BART and its tokenizer; layer norms stay without scale and shift."""
    texts = [text for row in rows for text in (*row["utterances"], *row["persona"])]
    tokenizer = bart_tokenizer(iter(texts), vocab_size)
    torch.manual_seed(0)
    model = PessExtractor(bart_config(SMALL_LAYERS, SMALL_WIDTH, len(tokenizer), tokenizer)).train()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(False)
    collator = PersonaCollator(tokenizer, max_source_length=192, max_target_length=80)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    started = time.perf_counter()
    for step, chosen in enumerate(itertools.islice(_batches(rows, batch), steps), start=1):
        inputs = collator(chosen)
        inputs.pop("persona")
        loss = model(**inputs).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 25 == 0 or step == steps:
            print(f"step {step} of {steps}: loss {loss.item():.3f}, {time.perf_counter() - started:.0f} s", flush=True)
    return model.eval(), tokenizer


def _batches(rows: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    """Endless batches of rows of like length, in a random order of batches."""
    order = sorted(range(len(rows)), key=lambda n: sum(map(len, rows[n]["utterances"])))
    starts = list(range(0, len(rows), size))
    shuffler = random.Random(0)
    while True:
        shuffler.shuffle(starts)
        yield from ([rows[n] for n in order[start : start + size]] for start in starts)


@torch.no_grad()
def enlarge(
    small: Any, tokenizer: PreTrainedTokenizerBase, layers: int, width: int, vocab_size: int | None
) -> tuple[Any, PreTrainedTokenizerBase]:
    """A BART of another shape that computes what the small one computes, and a tokenizer with names for all tokens.

    Args:
        small: What `teach` returns.
        tokenizer: Its tokenizer.
        layers: Layers of the encoder, and of the decoder; the small one's number or more.
        width: Features; a multiple of the small one's.
        vocab_size: Tokens; those beyond the tokenizer's are never written. None keeps the number.
    """
    old, r = small.config, width // small.config.d_model
    torch.manual_seed(1)
    model = PessExtractor(bart_config(layers, width, vocab_size or old.vocab_size, tokenizer)).eval()
    weights = small.state_dict()
    for name, target in model.state_dict().items():
        if name not in weights:  # a layer that is added: what it adds to its input is nothing
            if name.split(".")[-2] in ("out_proj", "fc2"):
                target.zero_()
        elif name == "final_logits_bias":
            target.fill_(NEVER)[:, : old.vocab_size] = weights[name]
        elif any(part in name for part in ("embed", "shared", "lm_head")) and target.dim() == 2:
            target[: len(weights[name])] = weights[name].repeat(1, r)  # (V, D) -> (V, r * D)
        elif target.dim() == 2:
            target.copy_(weights[name].repeat(r, r) / r)  # (out, in) -> (r * out, r * in)
        else:
            target.copy_(weights[name].repeat(r))
    model.model.decoder.layers[-1].final_layer_norm.weight.fill_(1 / r)  # the head sums over r times the features
    tokenizer.add_tokens([f"<unused{n}>" for n in range(len(tokenizer), model.config.vocab_size)])
    return model, tokenizer


def save(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a checkpoint folder."""
    model.generation_config.max_new_tokens = 80
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Teach or open the small model, enlarge it, save both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800, help="training steps of 16 rows")
    parser.add_argument("--source", type=Path, help="a small model taught before, in place of teaching one")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="base")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    if args.source:
        small, tokenizer = PessExtractor.from_pretrained(args.source), open_tokenizer(str(args.source))
    else:
        small, tokenizer = teach(taught_rows(), args.steps)
        save(small, tokenizer, args.output / "small")
    save(*enlarge(small, tokenizer, *SHAPES[args.shape]), args.output)
    print(f"{args.shape}: {args.output}")


if __name__ == "__main__":
    main()
