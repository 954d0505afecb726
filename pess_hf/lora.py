"""Wrapping a model for LoRA training, and folding a trained adapter back into it. Needs the extra `lora`."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers.utils import logging

from pess_hf.errors import PessError
from pess_hf.lora_args import BASE_FOLDER, LoraArguments
from pess_hf.resumed_adapter import check_same_base

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

logger = logging.get_logger(__name__)

#: Query and value, the layers that LoRA's authors adapt, as each backbone calls them.
DEFAULT_TARGETS = {
    "bart": ["q_proj", "v_proj"],
    "blenderbot-small": ["q_proj", "v_proj"],
    "t5": ["q", "v"],
    "encoder-decoder": ["query", "value"],
}
#: Modules of a generator that no checkpoint brings along: trained whole.
_GENERATOR_MODULES = ("fusion", "guidance")
_FROZEN_ENCODER = r"(model\.)?encoder\..*"
#: No gradient reaches an encoder's pooler.
_POOLER = r".*\.pooler\..*"


def add_lora(model: Any, args: LoraArguments, base_model: str | None = None) -> PeftModel:
    """Freeze a model and put trainable adapters into it (LoRA, arXiv 2106.09685).

    What has to train and is not low-rank comes along and is saved with the adapter: a generator's fusion, its learned
    guidance strengths and the embedding rows of its strategy tokens. Layers of a frozen encoder get no adapter.
    Nothing is resized.

    Args:
        model: An extractor or a generator; it is changed in place.
        args: Rank, scale, dropout and target modules.
        base_model: Hub id or folder written into the adapter as what it belongs to; by default where the model was
            loaded from.

    Returns:
        The PEFT model; its `save_pretrained` writes the adapter. Every tensor of it that requires a gradient is saved.

    Raises:
        PessError: If peft is missing, the model has an adapter already, or a target module is none of its layers.

    Example:
        >>> from pess_hf import AutoPessExtractor
        >>> model = AutoPessExtractor.from_pretrained("facebook/bart-base")  # doctest: +SKIP
        >>> adapted = add_lora(model, LoraArguments(use_lora=True))  # doctest: +SKIP
    """
    _require_peft()
    from pess_hf.adapter_model import AdapterModel

    _refuse_adapted(model)
    config = lora_config(model, args)
    config.base_model_name_or_path = base_model or getattr(model, "name_or_path", None) or None
    if args.is_quantized:
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    adapted = AdapterModel(model, config)
    adapted.train(model.training)
    if lost := unsaved_tensors(adapted):
        raise RuntimeError(f"add_lora: {lost[0]} would train and not be saved.")
    return adapted


def adapt_for_run(
    model: Any, tokenizer: Any, args: LoraArguments, training_args: Any, base_model: str | None = None
) -> Any:
    """What a recipe trains: the model itself, or with `use_lora` adapters in it.

    A model that no name identifies (built from sizes, or warm-started) is saved in the run's `base` folder first:
    without it nobody could open the adapter.

    Args:
        model: An extractor or a generator.
        tokenizer: Saved with the base model.
        args: Whether and how.
        training_args: `output_dir`, `process_index` and `resume_from_checkpoint` are read.
        base_model: Hub id or folder that `model` was loaded from; None if its weights are in no checkpoint.

    Raises:
        PessError: As `add_lora`; or if a resumed run's base model is another one than it was begun with.

    Example:
        >>> adapt_for_run(model, tokenizer, LoraArguments(), training_args) is model  # doctest: +SKIP
        True
    """
    if not args.use_lora:
        return model
    is_main = training_args.process_index == 0
    if base_model is None:
        folder = Path(training_args.output_dir) / BASE_FOLDER
        if is_main:
            _keep_base(model, tokenizer, folder, training_args.resume_from_checkpoint)
        base_model = str(folder)
    adapted = add_lora(model, args, base_model)
    if is_main:
        print(describe(adapted))
    return adapted


def _keep_base(model: Any, tokenizer: Any, folder: Path, resumed: str | None) -> None:
    """Save so that the folder is there only once it is complete; a resumed run's is there and has to be the same."""
    if folder.exists() and resumed is not None and str(resumed).lower() != "false":
        check_same_base(model, folder)
        return
    growing = folder.with_name(folder.name + ".partial")
    for old in (growing, folder):  # of an earlier run, whose base may be another one
        shutil.rmtree(old, ignore_errors=True)
    model.save_pretrained(growing)
    tokenizer.save_pretrained(growing)
    growing.replace(folder)


def lora_config(model: Any, args: LoraArguments) -> LoraConfig:
    """PEFT's config for a model.

    Args:
        model: An extractor or a generator.
        args: Rank, scale, dropout and target modules.

    Raises:
        PessError: If a target module is none of the model's layers.
    """
    from peft import LoraConfig

    is_generator = model.config.model_type == "pess-generator"
    targets, excluded = target_modules(model, args.lora_target_modules), _excluded(model)
    reaches = any(re.fullmatch(excluded, name) and _ends_with(name, targets) for name, _ in model.named_modules())
    # The task type is for whoever opens the adapter with peft alone; a generator's forward is no plain model's.
    return LoraConfig(
        r=args.lora_rank,
        lora_alpha=args.lora_alpha,  # type: ignore[arg-type]  # peft scales with any number
        lora_dropout=args.lora_dropout,
        target_modules=targets,
        exclude_modules=excluded if reaches else None,  # peft warns of a pattern that excludes nothing
        modules_to_save=[name for name, _ in model.named_children() if name in _GENERATOR_MODULES] or None,
        trainable_token_indices=_strategy_rows(model) if is_generator else None,
        task_type=None if is_generator else "SEQ_2_SEQ_LM",
    )


def target_modules(model: Any, names: list[str] | None = None) -> list[str]:
    """Ends of the names of the layers that get an adapter, checked against the model.

    Args:
        model: An extractor or a generator.
        names: The names asked for; None for the backbone's query and value layers.

    Returns:
        The names.

    Raises:
        PessError: If a name matches no linear layer that can get one; it lists those that can.

    Example:
        >>> from transformers import BartConfig
        >>> from pess_hf import PessExtractor
        >>> target_modules(PessExtractor(BartConfig(vocab_size=9, d_model=16, encoder_layers=1, decoder_layers=1)))
        ['q_proj', 'v_proj']
    """
    backbone = getattr(model.config, "backbone", model.config).model_type
    chosen = names or DEFAULT_TARGETS.get(backbone, [])
    layers = list(_adaptable_layers(model))
    candidates = ", ".join(sorted({layer.rpartition(".")[2] for layer in layers}))
    if not chosen:
        raise PessError(f"lora_target_modules: expected names for a {backbone}, found none. Candidates: {candidates}.")
    for name in chosen:
        if not any(_ends_with(layer, [name]) for layer in layers):
            where = " outside its frozen encoder" if _has_frozen_encoder(model) else ""
            raise PessError(
                f"lora_target_modules: expected linear layers of the {backbone}{where}, found {name!r}, which matches "
                f"none. Candidates: {candidates}."
            )
    return list(chosen)


def unsaved_tensors(adapted: PeftModel) -> list[str]:
    """Names of the tensors that require a gradient and that `save_pretrained` would not write; there should be none.

    Args:
        adapted: A PEFT model.
    """
    from peft import get_peft_model_state_dict

    saved = {tensor.data_ptr() for tensor in get_peft_model_state_dict(adapted, save_embedding_layers=False).values()}
    trained = ((name, tensor) for name, tensor in adapted.named_parameters() if tensor.requires_grad)
    return [name for name, tensor in trained if tensor.data_ptr() not in saved]


def merge_adapter(adapted: PeftModel) -> Any:
    """Fold a trained adapter into the weights.

    Args:
        adapted: The PEFT model; it is used up.

    Returns:
        The model without PEFT: its `save_pretrained` writes a whole checkpoint, an extractor's opens as plain BART.

    Raises:
        PessError: If the merged weights are not finite.

    Example:
        >>> merge_adapter(adapted).save_pretrained("runs/merged")  # doctest: +SKIP
    """
    merging: Any = adapted
    try:
        model = merging.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise PessError(f"merge_adapter: expected finite weights: {' '.join(str(error).split())}") from error
    return model.requires_grad_(True)


def describe(adapted: PeftModel) -> str:
    """One line: how much trains, and what is frozen.

    Args:
        adapted: A PEFT model made by `add_lora`.

    Example:
        >>> describe(adapted)  # doctest: +SKIP
        'LoRA: 589,824 of 139,996,416 parameters train (0.42 %): adapters of rank 16 on q_proj, v_proj. ...'
    """
    trained, total = (
        sum(p.numel() for p in adapted.parameters() if p.requires_grad or every) for every in (False, True)
    )
    config: Any = adapted.peft_config["default"]
    adapters = f"adapters of rank {config.r} on {', '.join(sorted(config.target_modules))}"
    whole = [*(config.modules_to_save or []), *(["strategy tokens"] if config.trainable_token_indices else [])]
    also = f" and, whole, {', '.join(whole)}" if whole else ""
    encoder = (
        "the encoder gets no adapter, because it is frozen; " if _has_frozen_encoder(adapted.get_base_model()) else ""
    )
    return (
        f"LoRA: {trained:,} of {total:,} parameters train ({trained / total:.2%}): {adapters}{also}. Frozen: {encoder}"
        "embeddings, language-model head and every other weight of the model."
    )


def _require_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise PessError("use_lora: expected peft to be installed, found no such package. pip install -e '.[lora]'")


def _refuse_adapted(model: Any) -> None:
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(model, PeftModel) or any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise PessError(
            "add_lora: expected a model without adapters, found one that has some. Merge them first (merge_adapter), "
            "or train the PEFT model as it is."
        )


def _ends_with(layer: str, names: list[str]) -> bool:
    """Whether PEFT takes one of the names for this layer."""
    return any(layer == name or layer.endswith(f".{name}") for name in names)


def _has_frozen_encoder(model: Any) -> bool:
    return bool(getattr(model, "_encoder_is_frozen", False))


def _adaptable_layers(model: Any) -> Iterator[str]:
    """Names of the linear layers but for the language-model head and what is frozen with the encoder."""
    head, excluded = model.get_output_embeddings(), _excluded(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head and not re.fullmatch(excluded, name):
            yield name


def _excluded(model: Any) -> str:
    """Names of modules that get no adapter, whatever is asked for."""
    return _FROZEN_ENCODER if _has_frozen_encoder(model) else _POOLER


def _strategy_rows(model: Any) -> dict[str, list[int]]:
    """Embedding modules to the rows of the strategy tokens; with tied embeddings PEFT follows the ties from one."""
    ids = model.config.strategy_token_ids
    if ids is None:
        raise PessError(
            "add_lora: expected a generator that knows its strategy tokens, found strategy_token_ids: null. "
            "Make it with PessGenerator.from_backbone(..., tokenizer=tokenizer)."
        )
    backbone = model.backbone
    if model.config.tie_word_embeddings:
        wanted = [model.get_input_embeddings()]
    else:
        embeddings = [side.get_input_embeddings() for side in (backbone.get_encoder(), backbone.get_decoder())]
        wanted = [*embeddings, model.get_output_embeddings()]
    return {name: list(ids) for name, module in model.named_modules() if any(module is one for one in wanted)}
