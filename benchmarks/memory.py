"""Memory of full training against LoRA: weights, gradients, optimizer state, and the peak, at the same batch.

Each variant runs in a process of its own: builds an extractor of BART-large's shape (406M parameters, random weights),
switches activation checkpointing on, takes AdamW steps on a random batch, and reports. Bytes are counted over the
tensors themselves; the peak is what the accelerator's allocator saw, or, without one, the largest resident memory of
the process, which has Python, torch and transformers in it as well (`before the model`).

    python benchmarks/memory.py --json runs/memory.json

The last line says how much LoRA saves of the bytes for gradients and optimizer state, and of the peak.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

VARIANTS = ("full", "lora")


def main(argv: list[str] | None = None) -> int:
    """Run the variants one after the other, print a table, write the figures."""
    args = parse_args(argv)
    if args.worker:
        print(json.dumps(measure(args)))
        return 0
    words = list(sys.argv[1:] if argv is None else argv)
    variants = {}
    for name in VARIANTS:
        print(f"{name}: running", file=sys.stderr, flush=True)
        command = [sys.executable, str(Path(__file__).resolve()), *words, "--worker", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"error: the process of variant {name} ended with status {done.returncode}", file=sys.stderr)
            return 1
        variants[name] = json.loads(done.stdout.splitlines()[-1])
    result = {"variants": variants, "saved": saved(variants), "settings": settings_of(args), **machine()}
    report(result)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line; the defaults are BART-large's shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"d_model": 1024, "layers": 12, "heads": 16, "ffn_dim": 4096, "vocab_size": 50265}
    batch = {"batch_size": 2, "source_length": 128, "target_length": 64, "steps": 2}
    for name, default in (sizes | batch | {"lora_rank": 16}).items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One variant, in this process."""
    import torch

    before = resident_bytes("VmRSS")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(args).to(device)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    batch = {name: tensor.to(device) for name, tensor in random_batch(args).items()}
    seconds = []
    for step in range(args.steps):
        started = time.perf_counter()
        loss = model(**batch).loss
        loss.backward()
        gradients = sum(p.grad.nbytes for p in trained if p.grad is not None)
        without = sum(p.grad is None for p in trained)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
        print(
            f"  step {step + 1}/{args.steps}: loss {loss.item():.3f}, {seconds[-1]:.0f} s", file=sys.stderr, flush=True
        )
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        "trained_tensors_without_gradient": without,
        "weights": sum(parameter.nbytes for parameter in model.parameters()),
        "gradients": gradients,
        "optimizer": optimizer_bytes(optimizer),
        "before_model": 0 if on_gpu else before,
        "peak": torch.cuda.max_memory_allocated(device) if on_gpu else resident_bytes("VmHWM"),
        "loss": loss.item(),
    }


def build(args: argparse.Namespace) -> Any:
    """The extractor in training mode, every layer's activations recomputed; with adapters for `lora`."""
    import torch
    from transformers import BartConfig

    from pess_hf import PessExtractor
    from pess_hf.lora import add_lora
    from pess_hf.lora_args import LoraArguments

    torch.manual_seed(0)
    sides: dict[str, Any] = {
        f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in shape(args).items()
    }
    longest = max(args.source_length, args.target_length, 1024)
    config = BartConfig(
        vocab_size=args.vocab_size, d_model=args.d_model, max_position_embeddings=longest, use_cache=False, **sides
    )
    model: Any = PessExtractor(config).train()
    if args.worker == "lora":
        lora = LoraArguments(use_lora=True, lora_rank=args.lora_rank, lora_alpha=2 * args.lora_rank)
        model = add_lora(model, lora)
    model.gradient_checkpointing_enable()
    return model


def shape(args: argparse.Namespace) -> dict[str, int]:
    """One side's sizes, under the names of BART's config."""
    return {"layers": args.layers, "attention_heads": args.heads, "ffn_dim": args.ffn_dim}


def random_batch(args: argparse.Namespace) -> dict[str, Any]:
    """Sources (B, S) and labels (B, T) of random tokens, without padding."""
    import torch

    draw = torch.Generator().manual_seed(1)
    source = torch.randint(4, args.vocab_size, (args.batch_size, args.source_length), generator=draw)
    labels = torch.randint(4, args.vocab_size, (args.batch_size, args.target_length), generator=draw)
    return {"input_ids": source, "attention_mask": torch.ones_like(source), "labels": labels}


def optimizer_bytes(optimizer: Any) -> int:
    """Bytes of all tensors that the optimizer keeps."""
    import torch

    states = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in states if isinstance(value, torch.Tensor))


def resident_bytes(field: str) -> int:
    """Resident memory of this process from the kernel: VmRSS now, VmHWM the largest so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        raise SystemExit("error: without an accelerator the peak is read from /proc, which this system lacks")
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def saved(variants: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The share that LoRA saves, from 0 to 1."""
    full, lora = (
        {"gradients_and_optimizer": one["gradients"] + one["optimizer"], "peak": one["peak"]}
        for one in (variants["full"], variants["lora"])
    )
    return {name: 1 - lora[name] / full[name] for name in full}


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked for."""
    return {name: value for name, value in vars(args).items() if name not in ("json", "worker")}


def machine() -> dict[str, Any]:
    """Versions and threads."""
    import peft
    import torch
    import transformers

    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    return {**versions, "cpu": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def report(result: dict[str, Any]) -> None:
    """Print the table and what LoRA saves."""
    names = ("trained_parameters", "weights", "gradients", "optimizer", "before_model", "peak")
    print(f"{'MiB':<22}{'full':>14}{'LoRA':>14}")
    for name in names:
        values = [result["variants"][variant][name] for variant in VARIANTS]
        shown = [f"{value:,}" if name == "trained_parameters" else f"{value / 2**20:,.1f}" for value in values]
        print(f"{name.replace('_', ' '):<22}{shown[0]:>14}{shown[1]:>14}")
    device = result["variants"]["full"]["device"]
    kind = "peak resident memory of the process" if device == "cpu" else f"peak allocated on {device}"
    print(
        f"LoRA saves {result['saved']['gradients_and_optimizer']:.2%} of gradients and optimizer state, "
        f"{result['saved']['peak']:.1%} of the {kind}"
    )


if __name__ == "__main__":
    sys.exit(main())
