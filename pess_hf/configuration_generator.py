"""Configuration of PESS-GEN, the persona-conditioned supporter."""

from __future__ import annotations

import importlib
import math
from dataclasses import field
from typing import Any, ClassVar

from transformers import AutoConfig, PretrainedConfig

from .strategy_names import STRATEGIES

#: PAL's guidance strengths, in the order of the strategies.
PAL_GUIDANCE = (0.0, 0.75, 0.0, 0.0, 0.75, 0.75, 0.75, 0.375)
#: Whether this is the library's module: a copy exported with a model has another name, and registers nothing.
_IS_OURS = __name__ == "pess_hf.configuration_generator"


def _of_backbone(name: str) -> property:
    """A property that reads and writes the backbone's attribute of that name."""

    def read(self: PessGeneratorConfig) -> Any:
        return getattr(self.backbone, name, None)

    def write(self: PessGeneratorConfig, value: Any) -> None:
        setattr(self.backbone, name, value)

    return property(read, write, doc=f"The backbone's `{name}`.")


class PessGeneratorConfig(PretrainedConfig):
    """Settings of `PessGenerator`: its backbone, its strategies, and how its text is laid out.

    Source of the defaults: PAL (arXiv 2212.09235) and its published code.

    Args:
        backbone: Configuration of the encoder-decoder that carries the weights, as an object or as a dict with
            `model_type`; a default BlenderbotSmall where it is None.
        strategies: The strategy tokens, in order.
        strategy_token_ids: Their ids in the tokenizer; None until the tokens are added.
        guidance_strengths: How strongly each strategy's response is guided by the persona, at least 0.
        strategy_guidance: The same for the strategy token itself.
        learn_guidance: Make `guidance_strengths` parameters, starting at these values; training then runs both
            streams with the loss on the combined logits.
        persona_separator: Joins persona sentences.
        utterance_separator: Joins the turns of the context.
        seeker_prefix: Stands before a seeker's turn.
        supporter_prefix: Stands before a supporter's turn.
        kwargs: Further arguments of `transformers.PretrainedConfig`.

    Raises:
        ValueError: A value is out of range; the message names it.

    Example:
        >>> config = PessGeneratorConfig(backbone={"model_type": "bart", "d_model": 16})
        >>> config.backbone.model_type, config.hidden_size
        ('bart', 16)
    """

    model_type = "pess-generator"
    sub_configs: ClassVar[dict[str, Any]] = {"backbone": AutoConfig}
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    backbone: Any = None
    strategies: list[str] = field(default_factory=lambda: list(STRATEGIES))
    strategy_token_ids: list[int] | None = None
    guidance_strengths: list[float] = field(default_factory=lambda: list(PAL_GUIDANCE))
    strategy_guidance: float = 0.075
    learn_guidance: bool = False
    persona_separator: str = " | "
    utterance_separator: str = " | "
    seeker_prefix: str = "Persona:"
    supporter_prefix: str = "System:"
    is_encoder_decoder: bool = True

    vocab_size = _of_backbone("vocab_size")
    hidden_size = _of_backbone("hidden_size")
    pad_token_id = _of_backbone("pad_token_id")
    bos_token_id = _of_backbone("bos_token_id")
    eos_token_id = _of_backbone("eos_token_id")
    decoder_start_token_id = _of_backbone("decoder_start_token_id")
    use_cache = _of_backbone("use_cache")
    tie_word_embeddings = _of_backbone("tie_word_embeddings")

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the backbone's configuration, then check every value."""
        if _IS_OURS:
            # Registers the models: whoever asks an Auto class for one has built its config before.
            importlib.import_module("pess_hf.modeling_generator")
        self.backbone = _backbone_config(self.backbone)
        self.strategies = [str(token) for token in self.strategies]
        self.guidance_strengths = [_strength("guidance_strengths", value) for value in self.guidance_strengths]
        self.strategy_guidance = _strength("strategy_guidance", self.strategy_guidance)
        self._check_strategies()
        # The base class writes its attention implementation into every sub-config, even where it has none.
        kwargs.setdefault("attn_implementation", self.backbone._attn_implementation)
        super().__post_init__(**kwargs)

    def _check_strategies(self) -> None:
        names = self.strategies
        if not names or len(set(names)) != len(names):
            raise ValueError(f"strategies: expected distinct tokens, found {names}. Give each strategy once.")
        if len(self.guidance_strengths) != len(names):
            raise ValueError(
                f"guidance_strengths: expected {len(names)} numbers, one a strategy, "
                f"found {len(self.guidance_strengths)}."
            )
        ids = self.strategy_token_ids
        if ids is not None and (len(ids) != len(names) or len(set(ids)) != len(ids)):
            raise ValueError(f"strategy_token_ids: expected {len(names)} distinct ids, one a strategy, found {ids}.")

    def to_dict(self) -> dict[str, Any]:
        """As upstream, and whether the backbone's embeddings are tied: PEFT reads it here."""
        return {**super().to_dict(), "tie_word_embeddings": self.tie_word_embeddings}

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PretrainedConfig:
        """Return the backbone's text configuration: caches and vocabulary sizes are read from it."""
        return self.backbone.get_text_config(decoder=decoder, encoder=encoder)


def _backbone_config(backbone: Any) -> PretrainedConfig:
    if backbone is None:
        backbone = {"model_type": "blenderbot-small"}
    if isinstance(backbone, dict):
        settings = dict(backbone)
        if "model_type" not in settings:
            raise ValueError("backbone: expected a dict with model_type, found none. Add it, for example 'bart'.")
        # for_model builds from local classes only; a remote dict never reaches from_pretrained.
        backbone = AutoConfig.for_model(settings.pop("model_type"), **settings)
    if not getattr(backbone, "is_encoder_decoder", False):
        raise ValueError(f"backbone: expected an encoder-decoder such as BART, found {type(backbone).__name__}.")
    return backbone


def _strength(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 <= value < math.inf):
        raise ValueError(f"{name}: expected a finite number of at least 0, found {value!r}.")
    return float(value)


if _IS_OURS:
    AutoConfig.register(PessGeneratorConfig.model_type, PessGeneratorConfig, exist_ok=True)
