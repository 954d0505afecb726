"""The PEFT model around an extractor or a generator: what it saves beside the adapter's weights. Needs peft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from peft import PeftModel

from pess_hf.cli import write_json
from pess_hf.lora_args import MODEL_SETTINGS
from pess_hf.run_folder import as_hub_id


class AdapterModel(PeftModel):
    """`PeftModel` that saves adapter, trained modules, trained token rows and the model's settings, nothing more.

    `PeftModel` itself adds all embeddings where the vocabulary is larger than the base model's, asks the Hub for the
    base model's config at every save, and writes a card with the base model's local folder. The rows that train are in
    the adapter, so none of it is needed.

    Example:
        >>> add_lora(model, LoraArguments(use_lora=True)).save_pretrained("runs/adapter")  # doctest: +SKIP
    """

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As `PeftModel.save_pretrained`, and `pess_adapter.json` with config and generation config."""
        kwargs.setdefault("save_embedding_layers", False)
        super().save_pretrained(str(save_directory), *args, **kwargs)
        if kwargs.get("is_main_process", True):
            write_json(Path(save_directory) / MODEL_SETTINGS, model_settings(self.get_base_model()))

    def create_or_update_model_card(self, output_dir: str) -> None:
        """Write none: a run's card is made from the whole run (`pess_hf.model_card`)."""


def model_settings(model: Any) -> dict[str, Any]:
    """What of a model is neither weights nor in its base checkpoint.

    Args:
        model: The model under the adapter.

    Returns:
        Its config, without the folder that it was loaded from, and its generation config, as JSON holds them.
    """
    config = json.loads(model.config.to_json_string(use_diff=False))
    if as_hub_id(config.get("_name_or_path"), bare=True) is None:
        config.pop("_name_or_path", None)
    generation_config = getattr(model, "generation_config", None)
    return {
        "config": config,
        "generation_config": json.loads(generation_config.to_json_string()) if generation_config else {},
    }
