"""Accumulation steps, processes, full or LoRA training: the same loss and gradient norm from each.

    python benchmarks/invariance.py --json runs/invariance.json

A small BART with random weights takes two SGD steps with all three terms on the embedded corpus; reported are loss and
gradient norm of the second, which also depends on the update of the first. The global batch is 16 dialogues however it
is split. What the model "writes" is scripted (the first reference sentence, and one that is wrong) so that all three
terms count though it is untrained. Two processes are started with `recipes/accelerate/cpu-2.yaml` and exchange
gradients with gloo. The sentence encoder comes with the extra `offline`, LoRA with `lora`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import BartConfig

from pess_hf import PessExtractor, PessTrainer, PessTrainingArguments, load_persona_dataset
from pess_hf.cli import run_recipe
from pess_hf.data.collator import PersonaCollator
from pess_hf.decoder_batch import Rollout
from pess_hf.errors import PessError
from pess_hf.run_record import hardware
from pess_hf.small_tokenizer import train_tokenizer

CONFIG = Path(__file__).resolve().parent.parent / "recipes" / "accelerate" / "cpu-2.yaml"
GLOBAL_BATCH, STEPS = 16, 2
ACCUMULATION, PROCESSES, WAYS = (1, 2, 4), (1, 2), ("full", "LoRA")
_MARK = "measured: "


class ScriptedRollouts(PessTrainer):
    """In place of generation: a sentence that is right in other words, and one that is wrong."""

    def _roll_out(self, batches: list[dict[str, Any]], token_ids: Any = None) -> list[list[Rollout]]:
        made = []
        for batch in batches:
            generated = [[f"Well, {persona[0]}", "Quantum jazz baffles wizards."] for persona in batch["persona"]]
            matches = self.matcher.match(generated, batch["persona"])
            tokens = torch.tensor([self.processing_class.eos_token_id])
            made.append([Rollout(*pair, tokens) for pair in zip(generated, matches, strict=True)])
        return made


def small_bart(tokenizer: Any) -> PessExtractor:
    """The same random weights each time."""
    torch.manual_seed(0)
    layers = {f"{side}_layers": 2 for side in ("encoder", "decoder")}
    heads = {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
    widths = {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 256}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    shape: dict[str, Any] = {**layers, **heads, **widths, **ids, "dropout": 0.0, "forced_eos_token_id": None}
    return PessExtractor(BartConfig(vocab_size=len(tokenizer), **shape))


def measure(way: str, accumulation: int, world: int, folder: str) -> dict[str, Any]:
    """Loss and gradient norm of the last step."""
    rows = load_persona_dataset("sample", "train").filter(lambda row: bool(row["persona"])).select(range(64))
    tokenizer = train_tokenizer([" ".join(row["utterances"] + row["persona"]) for row in rows], 500)
    model: Any = small_bart(tokenizer)
    if way == "LoRA":
        model = get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", r=8, target_modules=["q_proj", "v_proj"]))
    args = PessTrainingArguments(
        output_dir=folder,
        max_steps=STEPS,
        per_device_train_batch_size=GLOBAL_BATCH // world // accumulation,
        gradient_accumulation_steps=accumulation,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        pess_start=0.0,
        rollout_steps=1,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    collator = PersonaCollator(tokenizer, max_source_length=192, max_target_length=96)
    trainer = ScriptedRollouts(model, args, data_collator=collator, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    if trainer.accelerator.num_processes != world:
        raise PessError(f"processes: expected {world}, found {trainer.accelerator.num_processes}.")
    log = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    names = ("loss", "grad_norm", "nll", "completeness", "consistency")
    return {"way": way, "processes": world, "accumulation": accumulation, **{name: log[name] for name in names}}


def measure_all(world: int) -> None:
    """In one of `world` processes: every way, one line each, from the first process."""
    from accelerate import PartialState

    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            for accumulation in ACCUMULATION:
                found = measure(way, accumulation, world, folder)
                if PartialState().is_main_process:
                    print(_MARK + json.dumps(found), flush=True)


def started(world: int) -> list[dict[str, Any]]:
    """Start the processes and read what they measured."""
    print(f"measuring with {world} process{'es' if world > 1 else ''} ...", file=sys.stderr, flush=True)
    own = [str(Path(__file__).resolve()), "--measure", str(world)]
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIG), "--main_process_port", "0"]
    command = [sys.executable, *(launcher if world > 1 else []), *own]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise PessError(f"{world} processes: expected exit status 0, found {done.returncode}. See the lines above.")
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    return [json.loads(line.removeprefix(_MARK)) for line in lines]


def table(found: list[dict[str, Any]]) -> str:
    """The rows in Markdown, with how far each is from the first of its way."""
    lines = [
        "| training | processes | accumulation | loss | gradient norm | largest relative difference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in found:
        first = next(other for other in found if other["way"] == row["way"])
        difference = max(abs(row[name] / first[name] - 1) for name in ("loss", "grad_norm"))
        values = f"{row['loss']:.6f} | {row['grad_norm']:.6f} | {difference:.1e}"
        lines.append(f"| {row['way']} | {row['processes']} | {row['accumulation']} | {values} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure_all(options.measure)
        return
    found = sorted((row for world in PROCESSES for row in started(world)), key=lambda row: WAYS.index(row["way"]))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"hardware": hardware(), "rows": found}, indent=1) + "\n")
    print(table(found))
    print(f"\n{hardware()}, torch {torch.__version__}, transformers {transformers.__version__}")


if __name__ == "__main__":
    run_recipe(main)
