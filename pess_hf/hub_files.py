"""What of a run folder may be published, as the Hub gets it: an allowlist, never the folder as it stands.

A run folder also holds dialogue text (`predictions.jsonl`, rollouts inside checkpoints), pickles
(`training_args.bin`, optimizer states) and folders of this machine (`run.json`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pess_hf.code_export import CODE_FILES, exported_files
from pess_hf.errors import PessError
from pess_hf.run_folder import as_hub_id, read_object

logger = logging.getLogger(__name__)

Content = Path | bytes

SINGLE, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"
WEIGHTS = (SINGLE, "model-*-of-*.safetensors", INDEX, ADAPTER)
_MODEL = ("config.json", "generation_config.json", "adapter_config.json", "pess_adapter.json", *WEIGHTS, *CODE_FILES)
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip
_ABOUT = ("README.md", "metrics.json")
# In the repository that a release goes to: pickles wherever they lie, weights at the top and in pushed checkpoints.
_STALE = (
    "*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.bin.index.json", *WEIGHTS,
    "tf_model*.h5", "flax_model*.msgpack", "*checkpoint*/*.safetensors",
)  # fmt: skip
# Fields that from_pretrained fills with the place that something was loaded from.
_PLACES = ("_name_or_path", "name_or_path")


def is_public(name: str) -> bool:
    """Whether a file of a run folder is one of those that are published.

    Args:
        name: The file's name.

    Returns:
        Whether it is on the allowlist.

    Example:
        >>> is_public("model.safetensors"), is_public("predictions.jsonl"), is_public("training_args.bin")
        (True, False, False)
    """
    return any(fnmatch(name, pattern) for pattern in (*_MODEL, *_TOKENIZER, *_ABOUT))


def is_weights(name: str) -> bool:
    """Whether a file holds weights, or says which file holds which."""
    return any(fnmatch(name, pattern) for pattern in WEIGHTS)


def is_stale(name: str) -> bool:
    """Whether a file of a repository is deleted by a release that does not hold it: weights or a pickle.

    Args:
        name: The path in the repository.

    Returns:
        Whether it goes.

    Example:
        >>> is_stale("pytorch_model.bin"), is_stale("last-checkpoint/optimizer.pt"), is_stale("notes.md")
        (True, True, False)
    """
    return any(fnmatch(name, pattern) for pattern in _STALE)


def weight_files(folder: str | Path) -> list[str]:
    """The weights that a loader of the folder takes: the adapter's, the single file, or what the index names.

    Args:
        folder: The run folder or a checkpoint.

    Returns:
        The names, the index among them; empty where there are no weights. A shard that no index names is left out
        with a warning.

    Raises:
        PessError: If the index is broken or names a missing file, or if a whole second set of weights is there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("model.safetensors", "model-00001-of-00002.safetensors"):
        ...     _ = (folder / name).write_bytes(b"")
        >>> weight_files(folder)
        ['model.safetensors']
    """
    folder = Path(folder)
    found = {path.name for path in folder.iterdir() if path.is_file() and is_weights(path.name)}
    if (folder / "adapter_config.json").exists():
        named = found & {ADAPTER}
    elif {SINGLE, INDEX} <= found:
        raise PessError(
            f"{folder}: expected one set of weights, found {SINGLE} and {INDEX}. Delete the older one and its shards."
        )
    else:
        named = {INDEX, *_shards(folder / INDEX)} if INDEX in found else found & {SINGLE}
    for name in sorted(found - named):
        logger.warning("%s belongs to no weights that are loaded from there and is not uploaded. Delete it.", name)
    return sorted(named)


def _shards(index: Path) -> set[str]:
    """The files that an index names, all of them there."""
    weight_map = read_object(index, cure="Save the model again.").get("weight_map")
    names: set[Any] = set(weight_map.values()) if isinstance(weight_map, dict) and weight_map else {None}
    if not all(isinstance(name, str) and is_weights(name) and name.endswith(".safetensors") for name in names):
        raise PessError(
            f"{index}: expected weight_map with a model-*-of-*.safetensors for each weight, found something else. "
            "Save the model again."
        )
    for name in sorted(names):
        if not (index.parent / name).is_file():
            raise PessError(f"{index.parent}: expected {name}, found no such file. Save the model again.")
    return names


def public_files(folder: str | Path, base_model: str | None = None) -> dict[str, Content]:
    """The files of a run folder that are published, each as it is uploaded.

    In small JSON files a place on this machine gives way to `base_model`, or to nothing; a generator gets its code;
    all else stays as it is.

    Args:
        folder: The run folder or a checkpoint.
        base_model: The Hub id of the model that an adapter belongs to.

    Returns:
        Path in the repository to the file, or to the bytes that replace it.

    Raises:
        PessError: If a JSON file is broken, or it is not clear which weights are the model's.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("model.safetensors", "training_args.bin", "predictions.jsonl"):
        ...     _ = (folder / name).write_bytes(b"")
        >>> list(public_files(folder))
        ['model.safetensors']
    """
    files: dict[str, Content] = {}
    weights = weight_files(folder)
    for path in sorted(Path(folder).iterdir()):
        if path.is_file() and is_public(path.name) and (path.name in weights or not is_weights(path.name)):
            files[path.name] = _public_content(path, base_model)
    config = json.loads(text_of(files, "config.json")) if "config.json" in files else {}
    return files | exported_files(config) if config.get("model_type") == "pess-generator" else files


def _public_content(path: Path, base_model: str | None) -> Content:
    if path.suffix != ".json" or path.name == INDEX:
        return path
    found = read_object(path, cure="Save the model and the tokenizer again.")
    if path.name not in ("adapter_config.json", "pess_adapter.json", "config.json", "tokenizer_config.json"):
        return path
    changed = _without_places(found, path.parent)
    if path.name == "adapter_config.json":
        changed["base_model_name_or_path"] = base_model or as_hub_id(
            found.get("base_model_name_or_path"), near=path.parent
        )
    return path if changed == found else (json.dumps(changed, indent=2, ensure_ascii=False) + "\n").encode()


def _without_places(found: Any, near: Path) -> Any:
    if not isinstance(found, dict):
        return found
    return {
        key: _without_places(value, near)
        for key, value in found.items()
        if key not in _PLACES or as_hub_id(value, near=near, bare=True)
    }


def size_of(content: Content) -> int:
    """Bytes that a file has once it is uploaded."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def text_of(files: Mapping[str, Content], name: str) -> str:
    """The text of a file to be uploaded; of weights, their header (names, shapes and free metadata)."""
    content = files[name]
    if isinstance(content, bytes):
        return content.decode(errors="replace")
    if not name.endswith(".safetensors"):
        return content.read_bytes().decode(errors="replace")
    with content.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(min(length, 100_000_000)).decode(errors="replace")
