"""Opening a folder or repository that holds a LoRA adapter: its base model with the adapter merged into it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pess_hf.checkpoint import readable_weights
from pess_hf.errors import PessError
from pess_hf.json_files import read_json_object
from pess_hf.lora_args import ADAPTER_CONFIG, BASE_FOLDER, MODEL_SETTINGS
from pess_hf.run_folder import as_hub_id

_HUB_KEYS = ("revision", "token", "cache_dir", "subfolder", "local_files_only")


def is_adapter(name_or_path: str | os.PathLike[str], **hub: Any) -> bool:
    """Whether a folder or a repository holds an adapter rather than a whole model.

    Args:
        name_or_path: Hub id or folder.
        **hub: `revision`, `token`, `cache_dir`, `subfolder`.

    Example:
        >>> is_adapter("runs/demo")
        False
    """
    if os.path.isdir(name_or_path):
        folder = Path(name_or_path) / hub.get("subfolder", "")
        return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()
    if as_hub_id(str(name_or_path), bare=True) is None:
        return False
    from transformers.utils import find_adapter_config_file

    return find_adapter_config_file(str(name_or_path), **hub) is not None


def open_adapter(name_or_path: str | os.PathLike[str], open_base: Callable[..., Any], **kwargs: Any) -> Any:
    """Open an adapter's base model and merge the adapter into it.

    Args:
        name_or_path: Hub id or folder of the adapter.
        open_base: Called with the base model's name, the config that the adapter was trained with (empty for an
            adapter that peft alone has saved) and the loading arguments; returns the model.
        **kwargs: As `from_pretrained`; `revision` is the adapter's, the base model's stands in the adapter.

    Returns:
        The model without PEFT, in eval mode, with the generation config of the training.

    Raises:
        PessError: If peft is missing, the base model is or cannot be fetched, or the adapter does not fit or cannot
            be read.

    Example:
        >>> AutoPessExtractor.from_pretrained("runs/demo-lora")  # doctest: +SKIP
    """
    name = os.fspath(name_or_path)
    if importlib.util.find_spec("peft") is None:
        raise PessError(f"{name}: expected peft to open this adapter, found no such package. pip install peft")
    from transformers import GenerationConfig

    hub = {key: kwargs.pop(key) for key in _HUB_KEYS if key in kwargs}
    written = _read_json(name, ADAPTER_CONFIG, hub)
    settings = _read_json(name, MODEL_SETTINGS, hub, needed=False)
    config = settings.get("config", {})
    if config.get("dtype"):
        kwargs.setdefault("dtype", config["dtype"])
    shared = {key: value for key, value in hub.items() if key not in ("revision", "subfolder")}
    if written.get("revision"):
        shared["revision"] = written["revision"]
    base = _base_of(name, written)
    with _needed_by(name, base):
        model = open_base(base, config, **shared, **kwargs)
    model = _merge(model, name, hub)
    if settings.get("generation_config"):
        model.generation_config = GenerationConfig.from_dict(settings["generation_config"])
    return model.eval()


def trained_type(name_or_path: str, **hub: Any) -> str | None:
    """The `model_type` of the model that an adapter was trained on; for one that peft alone saved, its base model's.

    Example:
        >>> trained_type("runs/demo-lora")  # doctest: +SKIP
        'encoder-decoder'
    """
    settings = _read_json(name_or_path, MODEL_SETTINGS, hub, needed=False)
    if settings:
        return settings.get("config", {}).get("model_type")
    from transformers import AutoConfig

    base = _base_of(name_or_path, _read_json(name_or_path, ADAPTER_CONFIG, hub))
    with _needed_by(name_or_path, base):
        return AutoConfig.from_pretrained(base).model_type


def _merge(model: Any, name: str, hub: dict[str, Any]) -> Any:
    """Load the adapter onto its base model, see that every weight found its place, and merge."""
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    from pess_hf.lora import merge_adapter

    try:
        with readable_weights(name):
            adapted = PeftModel.from_pretrained(model, name, **hub)
            written = set(load_peft_weights(name, device="cpu", **hub))
    except (RuntimeError, ValueError) as error:
        if isinstance(error, PessError):
            raise
        raise PessError(
            f"{name}: expected an adapter that fits its base model, found: {' '.join(str(error).split())[:200]}"
        ) from error
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if lost := sorted(wanted ^ written):
        raise PessError(
            f"{name}: expected the adapter's weights to be those of its base model, found {len(lost)} that have no "
            f"counterpart, such as {lost[0]}. Check base_model_name_or_path in {ADAPTER_CONFIG}."
        )
    return merge_adapter(adapted)


def _base_of(name: str, written: dict[str, Any]) -> str:
    """Hub id or folder of the base model; one that a run saved beside its adapters moves along with them."""
    base = written.get("base_model_name_or_path")
    if not base:
        raise PessError(
            f"{name}: expected base_model_name_or_path in {ADAPTER_CONFIG}, found none. Write the Hub id or the "
            "folder of the model that the adapter was trained on."
        )
    places = [Path(base)]
    if Path(base).name == BASE_FOLDER:
        places = [Path(name) / BASE_FOLDER, Path(name).resolve().parent / BASE_FOLDER, *places]
    found = next((str(folder) for folder in places if _is_model(folder)), None)
    if found is None and as_hub_id(base, bare=True):
        return base
    if found is None:
        raise PessError(
            f"{name}: expected its base model in {base}, found no model there. Put it there, or write where it is "
            f"into {ADAPTER_CONFIG} (base_model_name_or_path)."
        )
    return found


def _is_model(folder: Path) -> bool:
    return any((folder / config).is_file() for config in ("config.json", ADAPTER_CONFIG))


@contextlib.contextmanager
def _needed_by(adapter: str, base: str) -> Iterator[None]:
    """Name both where the base model does not open: it is no longer there, or the Hub cannot be reached."""
    try:
        yield
    except OSError as error:  # as transformers and huggingface_hub say it
        reason = " ".join(str(error).split())[:200]
        raise PessError(
            f"{adapter}: expected its base model {base}, found none that opens ({reason}). Fetch it where there is a "
            f"network (without HF_HUB_OFFLINE=1), or write the folder where it is into {ADAPTER_CONFIG} "
            "(base_model_name_or_path)."
        ) from error


def _read_json(name: str, file: str, hub: dict[str, Any], needed: bool = True) -> dict[str, Any]:
    """A JSON object of the adapter; empty where an optional file is missing."""
    from transformers.utils import cached_file

    path = cached_file(name, file, _raise_exceptions_for_missing_entries=needed, **hub)
    return {} if path is None else read_json_object(path, "Save the adapter again.")
