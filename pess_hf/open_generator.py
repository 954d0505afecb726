"""Opening a generator: a whole one, or a LoRA adapter for one or for its plain backbone."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoTokenizer

from pess_hf.adapter import is_adapter, open_adapter
from pess_hf.configuration_generator import PessGeneratorConfig
from pess_hf.errors import PessError
from pess_hf.modeling_generator import PessGenerator


def open_generator(name_or_path: str, **kwargs: Any) -> PessGenerator:
    """Open a generator by Hub id or folder; an adapter is merged into its base model.

    Args:
        name_or_path: A generator, or an adapter that `train_generator.py --use_lora true` wrote.
        **kwargs: As `PreTrainedModel.from_pretrained`.

    Returns:
        The model in eval mode.

    Raises:
        PessError: If it is a model of another kind.

    Example:
        >>> open_generator("runs/generator-lora").generate(**inputs)  # doctest: +SKIP
    """
    hub: dict[str, Any] = {key: kwargs[key] for key in ("revision", "token", "cache_dir") if key in kwargs}
    if is_adapter(name_or_path, **hub):

        def open_base(base: str, config: dict[str, Any], **settings: Any) -> PessGenerator:
            return _open_base(base, config, name_or_path, hub, **settings)

        return open_adapter(name_or_path, open_base, **kwargs)
    kind = AutoConfig.from_pretrained(name_or_path, **hub).model_type
    if kind != PessGeneratorConfig.model_type:
        raise PessError(f"{name_or_path}: expected a PESS generator, found a model of type {kind!r}. Check --model.")
    return PessGenerator.from_pretrained(name_or_path, **kwargs)


def _open_base(
    base: str, config: dict[str, Any], adapter: str, adapter_hub: dict[str, Any], **kwargs: Any
) -> PessGenerator:
    """The generator under an adapter; on a plain backbone it is built as it was for training.

    Rows of strategy tokens and the fusion come out with random weights then: the adapter brings theirs.
    """
    hub = {key: kwargs[key] for key in ("revision", "token", "cache_dir") if key in kwargs}
    if is_adapter(base, **hub) or AutoConfig.from_pretrained(base, **hub).model_type == PessGeneratorConfig.model_type:
        return open_generator(base, **kwargs)
    if config.get("model_type") != PessGeneratorConfig.model_type:
        raise PessError(f"{adapter}: expected the adapter of a PESS generator, found one of {base}. Check --model.")
    own = set(PessGeneratorConfig.__annotations__) - {"backbone", "strategy_token_ids"}
    settings = {name: value for name, value in config.items() if name in own}
    tokenizer = AutoTokenizer.from_pretrained(adapter, **adapter_hub)
    return PessGenerator.from_backbone(base, tokenizer=tokenizer, **settings, **kwargs)
