"""The tiny training runs that `crash_campaign.py` kills: one process each, telling its supervisor where it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: What a run tells its supervisor, a byte each.
STEP, SAVING, SAVED, IN_WINDOW = b"s", b"w", b"W", b"p"
MAX_STEPS, SAVE_STEPS = 14, 3
FINAL = "final.safetensors"
_SIZES: dict[str, Any] = {
    f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in (("layers", 1), ("ffn_dim", 16))
}
_HEADS: dict[str, Any] = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}


@dataclass(frozen=True)
class Setting:
    """One way of training.

    Args:
        name: As the table shows it.
        rollout_steps: Micro-batches in a window; 0 for the generator, which has none.
        lora: Whether an adapter is trained.
    """

    name: str
    rollout_steps: int
    lora: bool = False


SETTINGS = (
    Setting("full, rollout_steps 1", 1),
    Setting("full, rollout_steps 8", 8),
    Setting("LoRA, rollout_steps 1", 1, lora=True),
    Setting("LoRA, rollout_steps 8", 8, lora=True),
    Setting("generator", 0),
)


class LetterEncoder:
    """Stands in for the sentence encoder: letter counts."""

    def encode(self, sentences: Sequence[str], **_: Any) -> Any:
        """Unit vectors, shape (sentences, 26)."""
        counts = np.array([[text.lower().count(chr(97 + k)) + 0.01 for k in range(26)] for text in sentences])
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def run(setting: Setting, folder: str, resume: bool, events: Any) -> None:
    """Train in this process and leave the final weights in `folder`; what is printed goes into its `log.txt`.

    Args:
        setting: The way of training.
        folder: The run's folder.
        resume: Whether to go on from the newest whole checkpoint.
        events: The connection to the supervisor.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    log = os.open(Path(folder) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    from safetensors.torch import save_file

    trainer = _trainer(setting, folder, events)
    trainer.train(resume_from_checkpoint=resume)
    if trainer.state.global_step != MAX_STEPS:
        raise RuntimeError(f"expected {MAX_STEPS} steps, found {trainer.state.global_step}")
    weights = {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}
    save_file(weights, Path(folder) / FINAL)


def _trainer(setting: Setting, folder: str, events: Any) -> Any:
    import torch
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback

    torch.set_num_threads(1)
    set_seed(0)
    trainer = _extractor_trainer(setting, folder) if setting.rollout_steps else _generator_trainer(folder)
    trainer.remove_callback(PrinterCallback)
    return _reporting(trainer, events)


def _arguments(folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "max_steps": MAX_STEPS,
        "save_strategy": "steps",
        "save_steps": SAVE_STEPS,
        "save_total_limit": 2,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": False,
    }


def _extractor_trainer(setting: Setting, folder: str) -> Any:
    from transformers import BartConfig

    from pess_hf import PersonaMatcher, PessExtractor, PessTrainer, PessTrainingArguments, load_persona_dataset
    from pess_hf.data.collator import PersonaCollator
    from pess_hf.small_tokenizer import train_tokenizer

    rows = load_persona_dataset("sample").select(range(40))
    tokenizer = train_tokenizer([text for row in rows for text in row["utterances"]], vocab_size=400)
    tokens: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    config = BartConfig(vocab_size=len(tokenizer), d_model=16, max_position_embeddings=64, init_std=0.5, dropout=0.1,
                        **_SIZES, **_HEADS, **tokens)  # fmt: skip
    model: Any = PessExtractor(config)
    if setting.lora:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)
        model = get_peft_model(model, lora)
    args = PessTrainingArguments(
        **_arguments(folder), rollout_steps=setting.rollout_steps, rollout_max_new_tokens=8, pess_start=0.2,
        consistency_weight=0.5, similarity_threshold=0.5,
    )  # fmt: skip
    collator = PersonaCollator(tokenizer, " | ", " | ", 48, 32)
    matcher = PersonaMatcher(LetterEncoder(), args.similarity_threshold)
    return PessTrainer(model, args, matcher, collator, train_dataset=rows, processing_class=tokenizer)


def _generator_trainer(folder: str) -> Any:
    from transformers import Seq2SeqTrainingArguments

    from pess_hf.generator_args import (
        GeneratorArguments,
        PersonaSourceArguments,
        load_examples,
        load_generator,
        make_collator,
    )
    from pess_hf.generator_trainer import PessGeneratorTrainer

    personas = PersonaSourceArguments(persona_source="reference")
    examples = load_examples(["sample"], "train", 6, personas)
    backbone = {"model_type": "bart", "d_model": 16, "max_position_embeddings": 96, "dropout": 0.1, **_SIZES, **_HEADS}
    model, tokenizer = load_generator(GeneratorArguments(backbone_config=backbone, vocab_size=400), examples)
    lengths = {"max_context_length": 64, "max_persona_length": 32, "max_target_length": 24}
    args = Seq2SeqTrainingArguments(**_arguments(folder), remove_unused_columns=False)
    return PessGeneratorTrainer(
        model,
        args,
        data_collator=make_collator(model, tokenizer, personas, lengths),
        train_dataset=examples,
        processing_class=tokenizer,
    )


def _reporting(trainer: Any, events: Any) -> Any:
    """Make a trainer of a class that tells the supervisor about steps, windows and checkpoints."""

    class Reporting(type(trainer)):  # type: ignore[misc]
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            window = getattr(self, "_window", None)
            events.send_bytes(IN_WINDOW if window is not None and window.pending() else STEP)
            return super().training_step(*args, **kwargs)

        def _roll_out(self, *args: Any, **kwargs: Any) -> Any:
            events.send_bytes(IN_WINDOW)
            return super()._roll_out(*args, **kwargs)

        def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            events.send_bytes(SAVING)
            super()._save_checkpoint(*args, **kwargs)
            events.send_bytes(SAVED)

    trainer.__class__ = Reporting
    return trainer
