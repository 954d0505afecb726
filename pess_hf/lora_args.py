"""What the training recipes take about LoRA, and what it means for loading and resuming.

Imports neither torch nor peft: `--help` works without them.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pess_hf.errors import PessError

ADAPTER_CONFIG = "adapter_config.json"
#: Beside it: the model's own settings, which an adapter's files do not hold. No config.json: with one transformers
#: takes the folder for a whole model.
MODEL_SETTINGS = "pess_adapter.json"
#: Folder inside a run for a base model that is no checkpoint of its own.
BASE_FOLDER = "base"


@dataclass
class LoraArguments:
    """Whether to train low-rank adapters (LoRA, arXiv 2106.09685) in place of the weights, and how.

    Args:
        use_lora: Train adapters; the model itself stays as it is.
        lora_rank: Rank of an adapter, 1 or more.
        lora_alpha: An adapter's output is scaled by `lora_alpha / lora_rank`.
        lora_dropout: Dropout before an adapter, in [0, 1).
        lora_target_modules: Ends of the names of the linear layers that get one; None for the backbone's default.
        load_in_4bit: Hold the frozen weights in 4 bits (NF4) with bitsandbytes.
        load_in_8bit: Hold the frozen weights in 8 bits with bitsandbytes.

    Raises:
        PessError: If a number is out of range, or quantized weights are asked for without LoRA.

    Example:
        >>> LoraArguments(use_lora=True, lora_rank=8).lora_alpha
        32.0
    """

    use_lora: bool = field(default=False, metadata={"help": "Train low-rank adapters and keep the model as it is."})
    lora_rank: int = field(default=16, metadata={"help": "Rank of an adapter."})
    lora_alpha: float = field(default=32.0, metadata={"help": "An adapter's output is scaled by alpha / rank."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout before an adapter, in [0, 1)."})
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={"help": "Ends of the names of the linear layers with an adapter; by default query and value."},
    )
    load_in_4bit: bool = field(default=False, metadata={"help": "Frozen weights in 4 bits; needs bitsandbytes."})
    load_in_8bit: bool = field(default=False, metadata={"help": "Frozen weights in 8 bits; needs bitsandbytes."})

    def __post_init__(self) -> None:
        """Check the ranges and what does not fit together."""
        if self.lora_rank < 1:
            raise PessError(f"lora_rank: expected 1 or more, found {self.lora_rank}.")
        if not 0 < self.lora_alpha < float("inf"):
            raise PessError(f"lora_alpha: expected a finite number above 0, found {self.lora_alpha}.")
        if not 0 <= self.lora_dropout < 1:
            raise PessError(f"lora_dropout: expected a number in [0, 1), found {self.lora_dropout}.")
        if self.lora_target_modules is not None and not all(self.lora_target_modules or [""]):
            raise PessError(
                "lora_target_modules: expected names of linear layers, found none. Leave it out for the default."
            )
        if self.load_in_4bit and self.load_in_8bit:
            raise PessError(
                "load_in_4bit: expected one of load_in_4bit and load_in_8bit, found both. Drop one of them."
            )
        if self.is_quantized and not self.use_lora:
            raise PessError(
                f"{self.quantization}: expected use_lora: true with it, found false. Weights of so few bits cannot be "
                "trained themselves; set use_lora or leave it out."
            )

    @property
    def is_quantized(self) -> bool:
        """Whether the frozen weights are held in fewer bits."""
        return self.load_in_4bit or self.load_in_8bit

    @property
    def quantization(self) -> str:
        """Name of the field that asks for fewer bits."""
        return "load_in_4bit" if self.load_in_4bit else "load_in_8bit"

    def loading_kwargs(self) -> dict[str, Any]:
        """What `from_pretrained` is given so that the weights come in fewer bits; empty as a rule.

        Raises:
            PessError: If bitsandbytes is not installed.

        Example:
            >>> LoraArguments(use_lora=True).loading_kwargs()
            {}
        """
        if not self.is_quantized:
            return {}
        if importlib.util.find_spec("bitsandbytes") is None:
            raise PessError(
                f"{self.quantization}: expected bitsandbytes to be installed, found no such package. "
                "pip install bitsandbytes, or leave it out."
            )
        from transformers import BitsAndBytesConfig

        if self.load_in_8bit:
            return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
        nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        return {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **nf4)}


def check_resumable(checkpoint: str | None, args: LoraArguments) -> None:
    """See that a checkpoint to resume from was written with the same kind of training.

    Args:
        checkpoint: Its folder; None for a new run, which is always right.
        args: How this run trains.

    Raises:
        PessError: If one of the two trains adapters and the other does not, or their shapes differ.

    Example:
        >>> check_resumable(None, LoraArguments())
    """
    if checkpoint is None:
        return
    path = Path(checkpoint) / ADAPTER_CONFIG
    if path.is_file() != args.use_lora:
        found = "an adapter" if path.is_file() else "a whole model"
        raise PessError(
            f"{checkpoint}: expected {'an adapter' if args.use_lora else 'a whole model'} to resume from, found "
            f"{found}. Resume with use_lora: {str(path.is_file()).lower()}, as the run was begun."
        )
    if not args.use_lora:
        return
    written = json.loads(path.read_text(encoding="utf-8"))
    wanted: dict[str, Any] = {"r": args.lora_rank, "lora_alpha": args.lora_alpha}
    names = {"r": "lora_rank", "lora_alpha": "lora_alpha"}
    for name, value in wanted.items():
        if written.get(name) != value:
            raise PessError(
                f"{names[name]}: expected {written.get(name)}, as in {checkpoint}, found {value}. "
                "Resume with the settings that the run was begun with."
            )
