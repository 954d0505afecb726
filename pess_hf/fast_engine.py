"""Batch extraction by CTranslate2 in place of PyTorch: the same beam search, quantised if wanted (extra `fast`).

The model is converted once and kept, under a name made of its weights, in the assets cache of huggingface_hub.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import cached_assets_path

from pess_hf.errors import PessError
from pess_hf.weights_digest import weights_digest

if TYPE_CHECKING:
    from types import ModuleType

    from transformers import GenerationConfig, PreTrainedTokenizerBase

#: Backbones that the converter knows.
CONVERTED_TYPES = ("bart", "t5")

#: Settings of `generate` that have a counterpart here.
_UNDERSTOOD = {
    "num_beams", "max_new_tokens", "max_length", "min_new_tokens", "min_length", "length_penalty", "early_stopping",
    "no_repeat_ngram_size", "forced_bos_token_id", "forced_eos_token_id", "eos_token_id",
}  # fmt: skip
#: Settings that change no text without sampling, or that the converted model carries.
_WITHOUT_EFFECT = {
    "use_cache", "cache_implementation", "cache_config", "max_cache_len", "temperature", "top_k", "top_p", "min_p",
    "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff", "pad_token_id", "bos_token_id", "decoder_start_token_id",
    "transformers_version", "_from_model_config", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind", "return_dict_in_generate",
    "output_attentions", "output_hidden_states", "output_scores", "output_logits",
}  # fmt: skip
#: Parts of a config that say nothing about the model's function and differ between a fresh and a saved one.
_CHANGED_BY_SAVING = {"architectures", "dtype", "transformers_version", "_name_or_path"}


class CTranslate2Engine:
    """A BART or T5 extractor that writes personas through CTranslate2.

    Opening it converts the model, unless that was done before, and loads the result; use one engine for many calls.

    Args:
        model: The extractor, on the CPU or a CUDA device; its weights are read once.
        tokenizer: Its tokenizer.
        compute_type: How it computes: "float32", "int8", or any other that CTranslate2 knows; "default" is that of the
            weights.
        cache_dir: Where converted models are kept; None is the assets cache of huggingface_hub.

    Raises:
        PessError: If CTranslate2 is not installed, the backbone cannot be converted, or the device or compute type is
            not supported.

    Example:
        >>> engine = CTranslate2Engine(model, tokenizer, compute_type="int8")  # doctest: +SKIP
        >>> model.extract(dialogues, tokenizer, engine=engine, num_beams=4)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        compute_type: str = "default",
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        library = _import_library()
        if model.config.model_type not in CONVERTED_TYPES:
            raise PessError(
                f"engine='ctranslate2': expected a backbone of type {' or '.join(CONVERTED_TYPES)}, found "
                f"{model.config.model_type!r}, which cannot be converted. Use engine='torch'."
            )
        self.tokenizer = tokenizer
        self.generation_config: GenerationConfig = model.generation_config
        folder = converted_folder(model, tokenizer, cache_dir)
        try:
            self.translator = library.Translator(
                str(folder),
                device=model.device.type,
                device_index=model.device.index or 0,
                compute_type=compute_type,
                intra_threads=torch.get_num_threads(),
            )
        except (ValueError, RuntimeError) as error:
            raise PessError(
                f"engine='ctranslate2': expected a device and compute_type that it supports, found "
                f"{model.device.type} and {compute_type!r} ({_one_line(error)}). Choose another or engine='torch'."
            ) from error

    def write(self, sources: Sequence[Sequence[int]], generation: dict[str, Any]) -> list[str]:
        """Write one persona text per source.

        Args:
            sources: Source token ids with the special tokens, B rows of any length.
            generation: Settings as `generate` takes them; what is left open comes from the model's own.

        Returns:
            B texts without special tokens.

        Raises:
            PessError: If a setting has no counterpart.
        """
        return [answers[0][0] for answers in self._translate(sources, generation)]

    def write_likeliest(
        self, sources: Sequence[Sequence[int]], number: int, generation: dict[str, Any]
    ) -> list[list[tuple[str, float]]]:
        """Write the likeliest persona texts of each source; as `TorchEngine.write_likeliest`.

        Args:
            sources: Source token ids with the special tokens, B rows of any length.
            number: K texts for each, and beams.
            generation: Settings as `generate` takes them.

        Returns:
            For each source K texts without special tokens and their log-probabilities, the likeliest first.

        Raises:
            PessError: If a setting has no counterpart.
        """
        beams = {"num_beams": number, "length_penalty": 0.0, "do_sample": False}
        return self._translate(sources, generation | beams, num_hypotheses=number, return_scores=True)

    def _translate(
        self, sources: Sequence[Sequence[int]], generation: dict[str, Any], **returned: Any
    ) -> list[list[tuple[str, float]]]:
        """Texts and scores of each source; the scores are 0 unless they are asked for."""
        options, first_token = decoding_options(self.generation_config, generation)
        if options["max_decoding_length"] < 1:  # the only token that may be written is the end
            return [[("", 0.0)]] * len(sources)
        to_tokens: Any = self.tokenizer.convert_ids_to_tokens
        prefix = None if first_token is None else [[to_tokens(first_token)]] * len(sources)
        results = self.translator.translate_batch(
            [to_tokens(list(source)) for source in sources],
            target_prefix=prefix,
            max_input_length=0,  # sources are cut before, by whole utterances
            return_end_token=True,  # `generate` counts it in the length that scores are divided by
            **options,
            **returned,
        )
        return [self._texts(result) for result in results]

    def _texts(self, result: Any) -> list[tuple[str, float]]:
        to_ids: Any = self.tokenizer.convert_tokens_to_ids
        texts = self.tokenizer.batch_decode([to_ids(tokens) for tokens in result.hypotheses], skip_special_tokens=True)
        return list(zip(texts, result.scores or [0.0] * len(texts), strict=True))


def decoding_options(own: GenerationConfig, generation: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
    """Translate settings of `generate` into those of `Translator.translate_batch`.

    Args:
        own: The model's settings.
        generation: What was passed; it wins. A `generation_config` among it wins over the model's.

    Returns:
        The options, and the token that every text is forced to begin with, if any.

    Raises:
        PessError: If a setting that changes the text has no counterpart.

    Example:
        >>> from transformers import GenerationConfig
        >>> options, _ = decoding_options(GenerationConfig(num_beams=4), {"max_new_tokens": 64})
        >>> options["beam_size"], options["max_decoding_length"]
        (4, 64)
    """
    passed = dict(generation)
    configs = [own] + [config for config in [passed.pop("generation_config", None)] if config is not None]
    settings: dict[str, Any] = {}
    for config in configs:
        settings |= {name: value for name, value in config.to_dict().items() if value is not None}
    settings = {name: value for name, value in (settings | passed).items() if value is not None}
    _refuse_what_has_no_counterpart(settings)
    if settings.get("eos_token_id") not in (None, own.eos_token_id, [own.eos_token_id]):
        raise PessError(
            f"engine='ctranslate2': eos_token_id={settings['eos_token_id']!r}: expected the model's own, "
            f"{own.eos_token_id}. Leave it out or use engine='torch'."
        )
    early = settings.get("early_stopping", False)
    options = {
        "beam_size": settings.get("num_beams", 1),
        # `generate` goes on after num_beams finished texts while a better one may come, unless told to stop early.
        "patience": 1.0 if early else 2.0,
        "length_penalty": settings.get("length_penalty", 1.0),
        "no_repeat_ngram_size": settings.get("no_repeat_ngram_size", 0),
        # A length that is not of new tokens counts the one that decoding starts from; `generate` writes 20 by default.
        "max_decoding_length": settings.get("max_new_tokens", settings.get("max_length", 21) - 1),
        "min_decoding_length": settings.get("min_new_tokens", max(settings.get("min_length", 0) - 1, 0)),
    }
    if settings.get("forced_eos_token_id") is not None:  # the last token is the end, whatever the model says
        options["max_decoding_length"] -= 1
    return options, settings.get("forced_bos_token_id")


def _refuse_what_has_no_counterpart(settings: dict[str, Any]) -> None:
    """Pass over what is understood, without effect, or at its neutral value: nothing, 0 or 1."""
    for name, value in settings.items():
        known = name in _UNDERSTOOD or name in _WITHOUT_EFFECT
        several_ends = name == "eos_token_id" and isinstance(value, list) and len(value) > 1
        never = name == "early_stopping" and value not in (True, False)
        if several_ends or never or not (known or (isinstance(value, bool | int | float) and value in (0, 1))):
            raise PessError(
                f"engine='ctranslate2': {name}={value!r} has no counterpart there. Leave it out or use engine='torch'."
            )
    if settings.get("do_sample"):
        raise PessError("engine='ctranslate2': expected beam or greedy search, found do_sample. Use engine='torch'.")


def converted_folder(
    model: Any, tokenizer: PreTrainedTokenizerBase, cache_dir: str | os.PathLike[str] | None = None
) -> Path:
    """The folder of the converted model; converts it where that was not done before.

    Args:
        model: A BART or T5 extractor.
        tokenizer: Its tokenizer.
        cache_dir: Where converted models are kept; None is the assets cache of huggingface_hub.

    Raises:
        PessError: If it cannot be converted.
    """
    name = f"ctranslate2-{_import_library().__version__}"
    parent = Path(cache_dir) / name if cache_dir else cached_assets_path("pess_hf", name, "converted")
    folder = parent / model_digest(model, tokenizer)
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="unfinished-") as scratch:
        made = Path(scratch) / "converted"
        _convert(model, tokenizer, Path(scratch) / "checkpoint", made)
        try:
            os.rename(made, folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    return folder


def model_digest(model: Any, tokenizer: PreTrainedTokenizerBase) -> str:
    """A name that two models share only if their weights, configs and vocabularies are the same."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in _CHANGED_BY_SAVING}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    digest.update(repr(sorted(tokenizer.get_vocab().items())).encode())
    digest.update(weights_digest(model).encode())
    return digest.hexdigest()[:32]


def _convert(model: Any, tokenizer: PreTrainedTokenizerBase, checkpoint: Path, output: Path) -> None:
    converters = importlib.import_module("ctranslate2.converters")
    model.save_pretrained(checkpoint)
    _with_all_roles(tokenizer).save_pretrained(checkpoint)
    try:
        converters.TransformersConverter(str(checkpoint)).convert(str(output))
    except (ValueError, KeyError, AttributeError, NotImplementedError) as error:
        raise PessError(
            f"engine='ctranslate2': expected a model that can be converted, found one that cannot "
            f"({_one_line(error)}). Use engine='torch'."
        ) from error
    shutil.rmtree(checkpoint)


def _with_all_roles(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The converter wants a start and an unknown token; where there is none no text needs it, so padding stands in."""
    copied = copy.deepcopy(tokenizer)
    for role in ("bos_token", "unk_token"):
        if getattr(copied, role) is None:
            setattr(copied, role, copied.pad_token)
    return copied


def _import_library() -> ModuleType:
    try:
        return importlib.import_module("ctranslate2")
    except ImportError as error:
        raise PessError(
            "engine='ctranslate2': expected the package ctranslate2, found none. Run: pip install 'pess_hf[fast]'."
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
