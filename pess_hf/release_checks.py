"""What is looked at before a run is published; each check raises one error that says what to mend."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from pess_hf.errors import PessError
from pess_hf.hub_files import Content, is_weights, size_of, text_of
from pess_hf.model_card import template_text
from pess_hf.redaction import holds_secret
from pess_hf.run_folder import RunFolder

# Shorter ones ("I like it.") may stand anywhere by chance.
_SENTENCE_LENGTH = 20
# Pieces of words, never sentences.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt")
_BINARY = (".model",)


def check_card(card: str, run: RunFolder, train_data_license: str | None = None) -> None:
    """See that a card names licence, data, measured numbers and, for an adapter, the model it belongs to.

    Args:
        card: The rendered card.
        run: The run that it was rendered from.
        train_data_license: The licence of the training data, as it was given.

    Raises:
        PessError: If something is missing.
    """
    head = ModelCard(card, ignore_metadata_errors=True).data
    if not head.get("license"):
        raise PessError(f"{run.path}: expected a licence for the weights, found none. Give one: --license apache-2.0")
    if not run.train_data:
        raise PessError(f"{run.path}: expected train_data in run.json, found none. Train with a recipe.")
    if run.train_data != ["sample"] and not train_data_license:
        raise PessError(
            f"{run.path}: expected the licence of the training data, found none. Say it in words: --train_data_license"
        )
    if not head.get("eval_results"):
        raise PessError(f"{run.path}: expected measured numbers in metrics.json, found none. Train with test_data.")
    if run.adapter and not head.get("base_model"):
        raise PessError(
            f"{run.path}: expected the Hub id of the adapter's base model, found a local path. Publish the base model "
            "and give its id: --base_model namespace/name"
        )


def check_sizes(files: Mapping[str, Content], max_gb: float) -> None:
    """See that no file is larger than a limit.

    Args:
        files: What is to be uploaded.
        max_gb: The limit in gigabytes.

    Raises:
        PessError: If one is.

    Example:
        >>> check_sizes({"README.md": b"# Mine"}, max_gb=1)
    """
    for name, content in files.items():
        gigabytes = size_of(content) / 1e9
        if gigabytes > max_gb:
            raise PessError(
                f"{name}: expected at most {max_gb:g} GB in one file, found {gigabytes:.3g}. "
                "Save the model with a smaller max_shard_size, or raise --max_file_gb."
            )


def check_texts(files: Mapping[str, Content], run: RunFolder, kind: str, token: str | None = None) -> None:
    """See that no token and no sentence of `predictions.jsonl` is in a file to be uploaded.

    Args:
        files: What is to be uploaded.
        run: The run.
        kind: "extractor" or "generator"; the example sentences of its card are no dialogue.
        token: A token beside that of this machine.

    Raises:
        PessError: If there is one. It names the file, never the token or the sentence.
    """
    example = template_text(kind)
    known = {text for text in _predicted(run.path / "predictions.jsonl") if text not in example}
    sentences = {spelling for text in known for spelling in (text, _escaped(text, True), _escaped(text, False))}
    for name in files:
        if name.endswith(_BINARY):
            continue
        text = text_of(files, name)
        if holds_secret(text, token):
            raise PessError(f"{run.path / name}: expected no token in a file to be uploaded, found one. Take it out.")
        if name not in _VOCABULARIES and any(sentence in text for sentence in sentences):
            raise PessError(
                f"{run.path / name}: expected no dialogue text in a file to be uploaded, found a sentence that also "
                "stands in predictions.jsonl. Take it out."
            )


def _escaped(text: str, ascii_only: bool) -> str:
    """As the text stands inside a JSON file."""
    return json.dumps(text, ensure_ascii=ascii_only)[1:-1]


def _predicted(path: Path) -> Iterator[str]:
    """Every sentence of the predictions that is long enough to be known again."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield from (text for text in _strings(json.loads(line)) if len(text) >= _SENTENCE_LENGTH)
            except ValueError:
                raise PessError(f"{path}: expected one JSON object a line, found something else.") from None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.strip()
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def check_weights(folder: str | Path, files: Mapping[str, Content]) -> None:
    """See that the weights are there, whole and finite, and open from safetensors alone.

    Args:
        folder: The run folder.
        files: What is to be uploaded.

    Raises:
        PessError: If they are not.
    """
    folder = Path(folder)
    weights = [name for name in files if is_weights(name) and name.endswith(".safetensors")]
    if not weights:
        raise PessError(f"{folder}: expected weights (model.safetensors), found none. Let the run finish.")
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if shards - set(weights):
            raise PessError(
                f"{folder}: expected {min(shards - set(weights))}, found no such file. Save the model again."
            )
    for name in weights:
        _check_tensors(folder / name)
    if "tokenizer_config.json" not in files:
        raise PessError(f"{folder}: expected a tokenizer, found no tokenizer_config.json. Save it with the model.")
    if "adapter_config.json" not in files:
        _check_opens(folder)


def _check_tensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    raise PessError(f"{path}: expected finite weights, found NaN or infinity in {name}. Train again.")
    except (SafetensorError, OSError) as error:
        raise PessError(
            f"{path}: expected weights, found what cannot be read ({error}). Save the model again."
        ) from error


def _check_opens(folder: Path) -> None:
    """Open the model as somebody who downloads it would."""
    from transformers import AutoConfig, AutoTokenizer

    from pess_hf.modeling_extractor import AutoPessExtractor
    from pess_hf.modeling_generator import PessGenerator, register

    register()
    config = AutoConfig.from_pretrained(folder)
    opener: Any = PessGenerator if config.model_type == "pess-generator" else AutoPessExtractor
    settings = {"use_safetensors": True, "output_loading_info": True, "local_files_only": True}
    try:
        _, info = opener.from_pretrained(str(folder), **settings)
        AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except PessError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise PessError(f"{folder}: expected a model that opens, found: {error}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise PessError(f"{folder}: expected every weight of the model, found none for {missing[0]}. Save it again.")
