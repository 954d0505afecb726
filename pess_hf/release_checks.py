"""What is looked at before a run is published; each check raises one error that says what to mend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from pess_hf.checkpoint import open_tokenizer
from pess_hf.cli import one_line
from pess_hf.errors import PessError
from pess_hf.hub_files import ADAPTER, SINGLE, Content, is_weights, size_of, text_of
from pess_hf.known_sentences import KnownSentences, sentence_token, spellings, strings_in
from pess_hf.redaction import holds_secret, place_of_machine
from pess_hf.run_folder import RunFolder


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


def check_texts(folder: str | Path, files: Mapping[str, Content], known: KnownSentences, *tokens: str | None) -> None:
    """See that no token, no sentence of a dialogue and no folder of this machine is in a file to be uploaded.

    Args:
        folder: Where the files are, for the errors.
        files: What is to be uploaded; of weights the header is looked at.
        known: The sentences; vocabularies are searched for them too.
        *tokens: Tokens beside that of this machine.

    Raises:
        PessError: If there is one. It names the file, and the key of a folder, never the token or the sentence.
    """
    for name in files:
        text, path = text_of(files, name), Path(folder) / name
        if any(holds_secret(spelling, *tokens) for spelling in spellings(name, text)):
            raise PessError(f"{path}: expected no token in a file to be uploaded, found one. Take it out.")
        if name.endswith("config.json") and (key := place_of_machine(json.loads(text))) is not None:
            raise PessError(
                f"{path}: expected no folder of this machine in a file to be uploaded, found one at {key!r}. Take it "
                "out, or write the Hub id of what is meant."
            )
        if known.are_in(name, text):
            raise PessError(
                f"{path}: expected no dialogue text in a file to be uploaded, found a sentence of the predictions or "
                "of the training data. Take it out."
            )
        if sentence_token(name, text) is not None:
            raise PessError(
                f"{path}: expected words and pieces of words, found a token of five words or more: that may be "
                "dialogue text. Train the tokenizer on words, or take the token out."
            )


def predicted_texts(folder: str | Path) -> Iterator[str]:
    """Every text of a run's `predictions.jsonl`; nothing where there is no such file.

    Args:
        folder: The run folder.

    Yields:
        Reference and generated sentences.

    Raises:
        PessError: If a line is not JSON.
    """
    path = Path(folder) / "predictions.jsonl"
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield from strings_in(json.loads(line))
            except (ValueError, RecursionError):
                raise PessError(
                    f"{path}, line {number}: expected one JSON object a line, found something else. "
                    "Run the recipe again, or delete the file."
                ) from None


def training_texts(run: RunFolder, kind: str) -> tuple[list[str], list[str]]:
    """Every text of the training data that is on this machine; the sample is public and is left out.

    Args:
        run: The run; `train_data` and `train_split` of its arguments are read as its recipe did.
        kind: "extractor" or "generator".

    Returns:
        The texts, and the sources that could not be looked at: ids on the Hub, files that are gone.
    """
    texts: list[str] = []
    unseen: list[str] = []
    for source in run.train_data:
        try:
            if source != "sample":
                texts += _source_texts(source, run.arguments.get("train_split"), kind)
        except (PessError, OSError):
            unseen.append(source)
    return texts, unseen


def _source_texts(source: str, split: str | None, kind: str) -> list[str]:
    from pess_hf.data import load_persona_dataset, load_support_dataset

    if not Path(source).exists():
        raise PessError(f"{source}: no such file.")
    rows: Any = (load_support_dataset if kind == "generator" else load_persona_dataset)(source, split)
    return list({text for row in rows for text in strings_in(row)})


def check_weights(folder: str | Path, files: Mapping[str, Content], finite: bool = True) -> None:
    """See that the weights are there, whole and finite.

    Args:
        folder: The run folder or a checkpoint.
        files: What is to be uploaded.
        finite: Read every tensor and look for NaN; otherwise only the files' headers are read, which is cheap.

    Raises:
        PessError: If they are not.
    """
    weights = [name for name in files if is_weights(name) and name.endswith(".safetensors")]
    if not weights:
        stray = next((path.name for path in sorted(Path(folder).iterdir()) if is_weights(path.name)), None)
        found = f"{stray}, which nothing names" if stray else "none"
        wanted = ADAPTER if "adapter_config.json" in files else SINGLE
        raise PessError(f"{folder}: expected weights ({wanted}), found {found}. Let the run finish.")
    for name in weights:
        _check_tensors(Path(folder) / name, finite)


def _check_tensors(path: Path, finite: bool) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys() if finite else ():
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    raise PessError(f"{path}: expected finite weights, found NaN or infinity in {name}. Train again.")
    except (SafetensorError, OSError) as error:
        raise PessError(
            f"{path}: expected weights, found what cannot be read ({error}). Save the model again."
        ) from error


def check_opens(folder: str | Path, files: Mapping[str, Content]) -> None:
    """Open model and tokenizer as somebody who downloads them would; of an adapter the tokenizer and the config.

    Args:
        folder: The run folder.
        files: What is to be uploaded.

    Raises:
        PessError: If one does not open, or a weight of the model is missing.
    """
    if "tokenizer_config.json" not in files:
        raise PessError(f"{folder}: expected a tokenizer, found no tokenizer_config.json. Save it with the model.")
    folder = Path(folder)
    if "adapter_config.json" not in files:
        missing = sorted(_opened(folder, "a model", lambda: _loading_info(folder))["missing_keys"])
        if missing:
            raise PessError(f"{folder}: expected every weight of the model, found no {missing[0]}. Save it again.")
    _opened(folder, "a tokenizer", lambda: open_tokenizer(str(folder), local_files_only=True))


def _opened(folder: Path, what: str, opens: Callable[[], Any]) -> Any:
    """What comes of a broken config or tokenizer is any error at all, of Python or of a compiled library."""
    try:
        return opens()
    except PessError:
        raise
    except Exception as error:
        reason = one_line(str(error)).rstrip(".") or type(error).__name__
        raise PessError(f"{folder}: expected {what} that opens, found: {reason}. Save it again.") from error


def _loading_info(folder: Path) -> dict[str, Any]:
    from transformers import AutoConfig

    from pess_hf.modeling_extractor import AutoPessExtractor
    from pess_hf.modeling_generator import PessGenerator, register

    register()
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    opener: Any = PessGenerator if config.model_type == "pess-generator" else AutoPessExtractor
    settings = {"use_safetensors": True, "output_loading_info": True, "local_files_only": True}
    return opener.from_pretrained(str(folder), **settings)[1]
