"""The generator's code beside its weights, so that `trust_remote_code=True` opens it where pess_hf is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pess_hf.cli import write_json
from pess_hf.errors import PessError

#: They import each other relatively, and beyond that torch and transformers alone.
CODE_FILES = (
    "configuration_generator.py",
    "guided_decoding.py",
    "modeling_generator.py",
    "persona_fusion.py",
    "strategies.py",
    "strategy_names.py",
)
AUTO_MAP = {
    "AutoConfig": "configuration_generator.PessGeneratorConfig",
    "AutoModel": "modeling_generator.PessGenerator",
    "AutoModelForSeq2SeqLM": "modeling_generator.PessGenerator",
}


def export_code(folder: str | Path) -> list[Path]:
    """Put the generator's code into a folder that `PessGenerator.save_pretrained` wrote, and name it in config.json.

    Args:
        folder: The saved generator.

    Returns:
        The files that were copied.

    Raises:
        PessError: If there is no generator in the folder.

    Example:
        >>> model.save_pretrained("runs/generator")  # doctest: +SKIP
        >>> [path.name for path in export_code("runs/generator")]  # doctest: +SKIP
        ['configuration_generator.py', 'guided_decoding.py', 'modeling_generator.py', ...]
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PessError(f"{folder}: expected a saved generator, found no config.json that can be read.") from error
    if config.get("model_type") != "pess-generator":
        raise PessError(
            f"{folder}: expected a model of type pess-generator, found {config.get('model_type')!r}. "
            "Other models need no code of ours."
        )
    written = [folder / name for name in CODE_FILES]
    for path, source in zip(written, _sources(), strict=True):
        shutil.copyfile(source, path)
    write_json(folder / "config.json", with_auto_map(config))
    return written


def exported_files(config: dict[str, Any]) -> dict[str, Path | bytes]:
    """The same, for an upload: nothing is written.

    Args:
        config: The generator's config.json.

    Returns:
        Path in the repository to the file, or to its bytes.

    Example:
        >>> sorted(exported_files({"model_type": "pess-generator"}))[:2]
        ['config.json', 'configuration_generator.py']
    """
    text = json.dumps(with_auto_map(config), indent=2, ensure_ascii=False) + "\n"
    return {**dict(zip(CODE_FILES, _sources(), strict=True)), "config.json": text.encode()}


def with_auto_map(config: dict[str, Any]) -> dict[str, Any]:
    """A generator's config.json that names the code beside it."""
    return {**config, "auto_map": AUTO_MAP}


def _sources() -> list[Path]:
    return [Path(__file__).resolve().parent / name for name in CODE_FILES]
