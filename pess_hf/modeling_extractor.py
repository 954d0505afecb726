"""The persona extractor: one thin class per backbone, and the one that picks among them."""

from __future__ import annotations

from typing import Any, Self

import torch
from transformers import (
    AutoConfig,
    BartForConditionalGeneration,
    EncoderDecoderModel,
    PreTrainedConfig,
    PreTrainedModel,
    T5ForConditionalGeneration,
)

from pess_hf.adapter import is_adapter, open_adapter
from pess_hf.checkpoint import readable_weights
from pess_hf.errors import PessError
from pess_hf.extraction_mixin import PersonaExtractionMixin, SharedEncoderOutput
from pess_hf.rollout import greedy_config
from pess_hf.text import DEFAULT_SEPARATOR
from pess_hf.warm_start import encoder_decoder_from_bert

__all__ = [
    "AutoPessExtractor",
    "PersonaExtractionMixin",
    "PessEncoderDecoderExtractor",
    "PessExtractor",
    "PessT5Extractor",
    "SharedEncoderOutput",
]


class PessExtractor(PersonaExtractionMixin, BartForConditionalGeneration):
    """A persona extractor on BART. Its folder opens as plain `BartForConditionalGeneration` with the same logits.

    Example:
        >>> model = PessExtractor.from_pretrained("facebook/bart-large-cnn")  # doctest: +SKIP
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for name, value in _BART_CONVERTER_FIELDS.items():
            if getattr(config, name, None) is None:
                setattr(config, name, value)
        _default_separators(config)

    def decode(
        self, decoder_input_ids: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor | None, cache: Any = None
    ) -> torch.Tensor:
        """See `PersonaExtractionMixin.decode`."""
        return self.model.decoder(
            input_ids=decoder_input_ids,
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=False,
        )[0]

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `PersonaExtractionMixin.project`."""
        return self.lm_head(hidden) + self.final_logits_bias.to(hidden.device)


class PessT5Extractor(PersonaExtractionMixin, T5ForConditionalGeneration):
    """A persona extractor on T5. Its folder opens as plain `T5ForConditionalGeneration`.

    Example:
        >>> model = PessT5Extractor.from_pretrained("google-t5/t5-small")  # doctest: +SKIP
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        _default_separators(config)

    def decode(
        self, decoder_input_ids: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor | None, cache: Any = None
    ) -> torch.Tensor:
        """See `PersonaExtractionMixin.decode`."""
        return self.decoder(
            input_ids=decoder_input_ids,
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=False,
        )[0]

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `PersonaExtractionMixin.project`."""
        if self.config.scale_decoder_outputs:
            hidden = hidden * self.model_dim**-0.5
        return self.lm_head(hidden)


class PessEncoderDecoderExtractor(PersonaExtractionMixin, EncoderDecoderModel):
    """A persona extractor from a BERT-like encoder and a (shallower) decoder warm-started from it.

    With the encoder frozen it trains on a CPU: the embedded default is MiniLM. Its folder opens as plain
    `EncoderDecoderModel`.

    Example:
        >>> model = PessEncoderDecoderExtractor.from_backbone(  # doctest: +SKIP
        ...     "sentence-transformers/all-MiniLM-L6-v2"
        ... )
        >>> model.config.decoder.num_hidden_layers  # doctest: +SKIP
        2
    """

    def __init__(
        self,
        config: PreTrainedConfig | None = None,
        encoder: PreTrainedModel | None = None,
        decoder: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config, encoder, decoder)
        _default_separators(self.config)
        pooler = getattr(self.encoder, "pooler", None)
        if pooler is not None:  # part of the checkpoint, but no gradient reaches it, which DDP would wait for
            pooler.requires_grad_(False)

    @classmethod
    def from_backbone(
        cls, name_or_path: str, decoder_layers: int = 2, encoder_layers: int | None = None, **kwargs: Any
    ) -> Self:
        """Warm-start encoder and decoder from one BERT-like checkpoint.

        Args:
            name_or_path: Hub id or folder of the checkpoint; the default sentence encoder's id works offline where
                the extra `offline` is installed.
            decoder_layers: How many of the checkpoint's first layers the decoder starts from.
            encoder_layers: Keep only so many of the encoder's first layers; None keeps all.
            **kwargs: Passed to `AutoModel.from_pretrained`.

        Returns:
            A model whose decoder has the checkpoint's embeddings and first layers; each cross-attention starts from
            its layer's self-attention, the last one and the head so that attended tokens are copied.
        """
        encoder, decoder = encoder_decoder_from_bert(name_or_path, decoder_layers, encoder_layers, **kwargs)
        model = cls(encoder=encoder, decoder=decoder)
        model.config.vocab_size = decoder.config.vocab_size
        model.config.decoder_start_token_id = decoder.config.bos_token_id
        model.config.eos_token_id = decoder.config.eos_token_id
        model.config.pad_token_id = decoder.config.pad_token_id
        model.generation_config = greedy_config(model, max_new_tokens=64)
        return model

    def decode(
        self, decoder_input_ids: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor | None, cache: Any = None
    ) -> torch.Tensor:
        """See `PersonaExtractionMixin.decode`."""
        if hasattr(self, "enc_to_dec_proj"):
            encoded = self.enc_to_dec_proj(encoded)
        return self.decoder.base_model(
            input_ids=decoder_input_ids,
            encoder_hidden_states=encoded,
            encoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=False,
        )[0]

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """See `PersonaExtractionMixin.project`."""
        head: Any = self.decoder.cls
        return head(hidden)


#: Fields that converters for BART checkpoints read; the values are what BART is.
_BART_CONVERTER_FIELDS = {
    "normalize_before": False,
    "normalize_embedding": True,
    "add_final_layer_norm": False,
    "add_bias_logits": False,
    "static_position_embeddings": False,
    "extra_pos_embeddings": 2,
}

_EXTRACTORS: dict[str, Any] = {
    "bart": PessExtractor,
    "t5": PessT5Extractor,
    "encoder-decoder": PessEncoderDecoderExtractor,
}


class AutoPessExtractor:
    """Opens an extractor, or warm-starts one from a plain checkpoint, picking the class by the config's `model_type`.

    Example:
        >>> model = AutoPessExtractor.from_pretrained("facebook/bart-base")  # doctest: +SKIP
    """

    @staticmethod
    def from_pretrained(name_or_path: str, **kwargs: Any) -> Any:
        """Load by Hub id or folder.

        Args:
            name_or_path: Hub id or folder of a BART, T5 or encoder-decoder checkpoint, or of a LoRA adapter for one,
                which is merged into its base model.
            **kwargs: As `PreTrainedModel.from_pretrained`.

        Raises:
            PessError: If the checkpoint's type has no extractor class.
        """
        hub_kwargs = {key: kwargs[key] for key in ("revision", "token", "cache_dir", "subfolder") if key in kwargs}
        if "config" not in kwargs and is_adapter(name_or_path, **hub_kwargs):
            return open_adapter(name_or_path, _open_base, **kwargs)
        config = kwargs.pop("config", None) or _read_config(name_or_path, hub_kwargs)
        model_class = AutoPessExtractor.class_for(config, name_or_path)
        with readable_weights(name_or_path):
            return model_class.from_pretrained(name_or_path, config=config, **kwargs)

    @staticmethod
    def class_for(config: PreTrainedConfig, name_or_path: str = "this config") -> Any:
        """The extractor class for a config.

        Raises:
            PessError: If its type has none.
        """
        if config.model_type not in _EXTRACTORS:
            raise PessError(
                f"{name_or_path}: expected a model of type {', '.join(sorted(_EXTRACTORS))}, found "
                f"{config.model_type!r}. A BERT-like encoder is warm-started with decoder_layers set "
                "(PessEncoderDecoderExtractor.from_backbone)."
            )
        return _EXTRACTORS[config.model_type]


def _read_config(name_or_path: str, hub_kwargs: Any) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(name_or_path, **hub_kwargs)
    except ValueError as error:  # a type that transformers does not know, or none
        reason = " ".join(str(error).split())[:160]
        raise PessError(
            f"{name_or_path}: expected a model of type {', '.join(sorted(_EXTRACTORS))}, its config.json is of none "
            f"that can be read ({reason}). Check the name or the folder."
        ) from error


def _open_base(name_or_path: str, config: dict[str, Any], **kwargs: Any) -> Any:
    """The model that an adapter belongs to, with the separators and the window that it was trained with."""
    model = AutoPessExtractor.from_pretrained(name_or_path, **kwargs)
    if config.get("utterance_window") is not None:
        model.config.utterance_window = config["utterance_window"]
    names = {"utterance": "utterance_separator", "persona": "persona_separator"}
    return model.set_separators(
        **{side: config.get(name, getattr(model.config, name)) for side, name in names.items()}
    )


def _default_separators(config: PreTrainedConfig) -> None:
    for name in ("utterance_separator", "persona_separator"):
        if getattr(config, name, None) is None:
            setattr(config, name, DEFAULT_SEPARATOR)
