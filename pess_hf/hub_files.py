"""What of a run folder may be published, as the Hub gets it: an allowlist, never the folder as it stands.

A run folder also holds dialogue text (`predictions.jsonl`, rollouts inside checkpoints), pickles
(`training_args.bin`, optimizer states) and folders of this machine (`run.json`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pess_hf.code_export import CODE_FILES, exported_files
from pess_hf.errors import PessError
from pess_hf.run_folder import as_hub_id

Content = Path | bytes

WEIGHTS = (
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
)
_MODEL = ("config.json", "generation_config.json", "adapter_config.json", "pess_adapter.json", *WEIGHTS, *CODE_FILES)
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip
_ABOUT = ("README.md", "metrics.json")
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
        PessError: If a JSON file is broken.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("model.safetensors", "training_args.bin", "predictions.jsonl"):
        ...     _ = (folder / name).write_bytes(b"")
        >>> list(public_files(folder))
        ['model.safetensors']
    """
    files: dict[str, Content] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.is_file() and is_public(path.name):
            files[path.name] = _public_content(path, base_model)
    config = json.loads(text_of(files, "config.json")) if "config.json" in files else {}
    return files | exported_files(config) if config.get("model_type") == "pess-generator" else files


def _public_content(path: Path, base_model: str | None) -> Content:
    if path.name not in ("adapter_config.json", "pess_adapter.json", "config.json", "tokenizer_config.json"):
        return path
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PessError(
            f"{path}: expected JSON, found what cannot be read ({error}). Save the model again."
        ) from error
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
