"""Fold a LoRA adapter into its base model and save a whole model, which opens without peft."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pess_hf.adapter import is_adapter, trained_type
from pess_hf.arguments import parse_recipe_args
from pess_hf.cli import prepare_output_dir, run_recipe
from pess_hf.errors import PessError
from pess_hf.lora_args import BASE_FOLDER

#: What a run has left beside its adapter and a release of the merged model needs.
_RECORDS = ("run.json", "metrics.json", "trainer_state.json", "predictions.jsonl")


@dataclass
class MergeArguments:
    """Which adapter, and where the model goes."""

    adapter: str = field(metadata={"help": "Adapter of an extractor or a generator: Hub id or folder."})
    output: str = field(metadata={"help": "Folder for the model and its tokenizer."})
    dtype: Literal["float32", "bfloat16", "float16"] | None = field(
        default=None, metadata={"help": "Data type to save in; by default that of the training."}
    )


def main(args: list[str] | None = None) -> None:
    """Open, merge, save."""
    (parsed,) = parse_recipe_args(MergeArguments, args, __doc__)
    if not is_adapter(parsed.adapter):
        raise PessError(
            f"{parsed.adapter}: expected a LoRA adapter, found none (no adapter_config.json). Check --adapter."
        )
    folder = prepare_output_dir(parsed.output)
    if any((folder / name).exists() for name in ("config.json", "adapter_config.json", BASE_FOLDER)):
        raise PessError(f"{folder}: expected a folder without a model, found one. Name another --output.")
    model, tokenizer = open_merged(parsed.adapter, **({"dtype": parsed.dtype} if parsed.dtype else {}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    copy_records(Path(parsed.adapter), folder)
    print(f"merged {type(model).__name__}: {folder}")


def open_merged(adapter: str, **kwargs: Any) -> tuple[Any, Any]:
    """The model with the adapter in its weights, and the tokenizer."""
    from pess_hf.checkpoint import open_tokenizer
    from pess_hf.modeling_extractor import AutoPessExtractor
    from pess_hf.open_generator import open_generator

    is_generator = trained_type(adapter) == "pess-generator"
    model = open_generator(adapter, **kwargs) if is_generator else AutoPessExtractor.from_pretrained(adapter, **kwargs)
    return model, open_tokenizer(adapter)


def copy_records(run: Path, folder: Path) -> None:
    """Take along what a finished run says about itself, and write the card anew."""
    from pess_hf.model_card import write_model_card

    for name in _RECORDS:
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    if (folder / "run.json").is_file() and (folder / "metrics.json").is_file():
        write_model_card(folder)


if __name__ == "__main__":
    run_recipe(main)
