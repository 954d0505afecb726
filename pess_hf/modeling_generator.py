"""PESS-GEN: a supporter that answers with a strategy and with the seeker's persona (PAL, arXiv 2212.09235).

Letters used in shapes: B batch, L context positions, M persona positions, T decoder positions, D hidden size,
V vocabulary, S strategies.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils import can_return_tuple

from .configuration_generator import PessGeneratorConfig
from .guided_decoding import (
    GuidanceStrengths,
    GuidedGenerationMixin,
    PersonaEncoderOutput,
    double_rows,
    merge_streams,
)
from .persona_fusion import PersonaFusion

logger = logging.getLogger(__name__)


class PessGenerator(PreTrainedModel, GuidedGenerationMixin):
    """Encoder-decoder whose encoding of the context is fused with the seeker's persona.

    The decoder writes a strategy token and then the response. In generation two logit streams, with the persona and
    without it, stand side by side in one decoder batch: ``(1 + a) * with - a * without``, where a depends on the
    strategy. Source: PAL (arXiv 2212.09235). BlenderbotSmall and BART backbones are tested. Nothing about a call is
    kept on the module, so threads may share one model.

    Args:
        config: The settings; the backbone is built from `config.backbone` with random weights. To start from a
            trained one, use `from_backbone`.

    Example:
        >>> tokenizer = AutoTokenizer.from_pretrained(folder)  # or "facebook/blenderbot_small-90M"
        >>> ids = add_strategy_tokens(tokenizer)
        >>> model = PessGenerator.from_backbone(folder, tokenizer=tokenizer)
        >>> context = tokenizer(["Persona: i lost my dog"], return_tensors="pt")
        >>> persona = tokenizer(["i have two dogs"], return_tensors="pt")
        >>> reply = model.generate(**context, persona_input_ids=persona.input_ids, strategy="Question")
        >>> model.strategies_of(reply)
        ['[Question]']
    """

    config: PessGeneratorConfig
    config_class = PessGeneratorConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    # Nothing of its own is tied; a mapping, not None, makes PEFT look for the backbone's ties.
    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012 - the base class declares no ClassVar
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: PessGeneratorConfig) -> None:
        super().__init__(config)
        self.backbone = AutoModelForSeq2SeqLM.from_config(config.backbone)
        if not hasattr(self.backbone, "final_logits_bias"):
            raise ValueError(f"backbone: expected BlenderbotSmall or BART, found {config.backbone.model_type}.")
        self._share_config()
        self.fusion = PersonaFusion(config.hidden_size)
        self.guidance = GuidanceStrengths(config.guidance_strengths) if config.learn_guidance else None
        self.post_init()

    def _share_config(self) -> None:
        # from_config copies what it is given; a resized embedding has to show in both places.
        self.config.backbone = self.backbone.config

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PersonaFusion):
            init.zeros_(module.mix_logits)
        elif isinstance(module, GuidanceStrengths):
            init.copy_(module.weight, torch.tensor(self.config.guidance_strengths))

    @classmethod
    def from_backbone(
        cls, backbone: str | os.PathLike[str] | PreTrainedModel, tokenizer: Any = None, **kwargs: Any
    ) -> PessGenerator:
        """Warm-start from a trained encoder-decoder.

        Args:
            backbone: A model id, a path, or a loaded BlenderbotSmall or BART model with a language-model head.
            tokenizer: A tokenizer that holds the strategy tokens (see `add_strategy_tokens`). Their ids go into the
                config, and the embedding grows to its size where that is larger; the growth is logged. Without one,
                pass `strategy_token_ids` here or set them later: `generate` needs them.
            kwargs: Fields of `PessGeneratorConfig`; everything else goes to the backbone's `from_pretrained`. The
                weights are loaded as float32 unless `dtype` says otherwise.

        Returns:
            The model, with fresh fusion weights.

        Raises:
            ValueError: The tokenizer lacks a strategy token.

        Example:
            >>> model = PessGenerator.from_backbone(folder, learn_guidance=True)
            >>> model.guidance().shape
            torch.Size([8])
        """
        settings = {name: kwargs.pop(name) for name in list(kwargs) if name in PessGeneratorConfig.__annotations__}
        trained: Any = backbone
        if not isinstance(backbone, PreTrainedModel):
            kwargs.setdefault("dtype", torch.float32)
            trained = AutoModelForSeq2SeqLM.from_pretrained(backbone, **kwargs)
        if os.path.isdir(trained.config.name_or_path):  # saved with the config, which may be published
            trained.config.name_or_path = ""
        config = PessGeneratorConfig(backbone=trained.config, dtype=trained.config.dtype, **settings)
        if tokenizer is not None:
            config.strategy_token_ids = _ids_in(tokenizer, config.strategies)
        model: Any = cls(config)
        # Replaced only now: post_init would draw new weights for rows that were resized by hand.
        model.backbone = trained
        model._share_config()
        for own in filter(None, (model.fusion, model.guidance)):  # quantized weights must not be moved
            own.to(dtype=trained.dtype, device=trained.device)
        if tokenizer is not None and len(tokenizer) > config.vocab_size:
            logger.warning("The embedding grows from %d to %d rows.", config.vocab_size, len(tokenizer))
            model.resize_token_embeddings(len(tokenizer))
        return model.eval()

    def get_input_embeddings(self) -> nn.Module:
        """Return the backbone's input embedding."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the backbone's input embedding."""
        self.backbone.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the backbone's language-model head."""
        return self.backbone.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the backbone's language-model head."""
        self.backbone.set_output_embeddings(new_embeddings)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize the backbone's embeddings and its logits bias; same arguments as upstream."""
        return self.backbone.resize_token_embeddings(*args, **kwargs)

    def encode(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        persona_input_ids: Tensor | None = None,
        persona_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        two_streams: bool = False,
        **kwargs: Any,
    ) -> PersonaEncoderOutput:
        """Encode context and persona and fuse them.

        Args:
            input_ids: (B, L), the context.
            attention_mask: (B, L), zero at the context's padding.
            persona_input_ids: (B, M), the persona; None for no persona.
            persona_attention_mask: (B, M), zero at the persona's padding; a row of zeros has no persona. Without it,
                everything but the padding token counts.
            encoder_outputs: The context's encoding, where it is known; what this method returned passes through.
            two_streams: Keep the context's own encoding too; decoding is guided only where it is there.
            kwargs: Further arguments of the encoder.

        Returns:
            The fused encoding, and both streams if asked for.

        Raises:
            ValueError: Context or persona is longer than the backbone's positions.

        Example:
            >>> encoded = model.encode(**context, persona_input_ids=persona.input_ids, two_streams=True)
            >>> reply = model.generate(encoder_outputs=encoded, attention_mask=context.attention_mask)
        """
        if isinstance(encoder_outputs, PersonaEncoderOutput):
            return encoder_outputs
        self._check_length("context", input_ids)
        self._check_length("persona", persona_input_ids)
        if encoder_outputs is None:
            encoder_outputs = self.get_encoder()(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        elif isinstance(encoder_outputs, tuple):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        context = encoder_outputs.last_hidden_state  # (B, L, D)
        persona, mask = self._encode_persona(context, persona_input_ids, persona_attention_mask)
        fused = context if persona is None else self.fusion(context, persona, attention_mask, mask)  # (B, L, D)
        return PersonaEncoderOutput(
            last_hidden_state=fused,
            streams=torch.stack([fused, context], dim=1) if two_streams and persona is not None else None,
            has_persona=None if mask is None else mask.any(dim=1),  # (B,)
            hidden_states=encoder_outputs.hidden_states,
            attentions=encoder_outputs.attentions,
        )

    def _check_length(self, name: str, ids: Tensor | None) -> None:
        limit = self.config.backbone.max_position_embeddings
        if ids is not None and ids.shape[1] > limit:
            raise ValueError(f"{name}: expected at most {limit} tokens, found {ids.shape[1]}. Truncate it.")

    def _encode_persona(
        self, context: Tensor, input_ids: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Encoding (B, M, D) and mask (B, M) of the persona, or a pair of None."""
        if input_ids is None or input_ids.shape[1] == 0:
            if not self.training:
                return None, None
            # Each weight takes part in each training step: DDP waits for every gradient.
            input_ids = context.new_full((context.shape[0], 1), self.config.pad_token_id, dtype=torch.long)
            mask = torch.zeros_like(input_ids)
        mask = (input_ids != self.config.pad_token_id) if mask is None else mask.bool()
        # A row without persona shows the encoder one token: attention over nothing has no gradient but NaN.
        readable = mask.clone()
        readable[:, 0] |= ~mask.any(dim=1)
        return self.get_encoder()(input_ids=input_ids, attention_mask=readable.long())[0], mask

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        persona_input_ids: Tensor | None = None,
        persona_attention_mask: Tensor | None = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        strengths: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Score or train: one stream as a rule, two with `learn_guidance` or with an encoding that holds two.

        Args:
            input_ids: (B, L), the context.
            attention_mask: (B, L), zero at the context's padding.
            persona_input_ids: (B, M), the persona; None for no persona.
            persona_attention_mask: (B, M); a row of zeros has no persona.
            decoder_input_ids: (B, T), start token, strategy token, response; made from `labels` where missing.
            decoder_attention_mask: (B, T).
            labels: (B, T), strategy token, response, end token; -100 is ignored.
            encoder_outputs: What `encode` returned, or the backbone's encoding of the context.
            past_key_values: The cache of earlier positions.
            inputs_embeds: (B, L, D), in place of `input_ids`.
            use_cache: Return the cache; never with `labels`.
            strengths: (B, T), the guidance strengths of these positions; read off `decoder_input_ids` where missing,
                which then has to begin with the start token.
            num_items_in_batch: Label tokens of the whole optimiser step: the loss is the summed negative
                log-likelihood over this number. Without it, the mean over the labels here.
            kwargs: Further arguments of the backbone.

        Returns:
            Loss, logits (B, T, V), combined where two streams ran, and the rest of the stream with the persona.
        """
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        encoded = self.encode(
            input_ids,
            attention_mask,
            persona_input_ids,
            persona_attention_mask,
            encoder_outputs,
            two_streams=self.config.learn_guidance,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        if encoded.streams is not None and strengths is None:
            strengths = self.guidance_at(decoder_input_ids)
        decoder_inputs = {"decoder_input_ids": decoder_input_ids, "decoder_attention_mask": decoder_attention_mask}
        kwargs |= {"past_key_values": past_key_values, "use_cache": use_cache}
        outputs = self._decode(encoded, attention_mask, decoder_inputs, strengths, kwargs)
        if labels is None:
            return outputs
        loss = _negative_log_likelihood(outputs.logits, labels, num_items_in_batch)
        return Seq2SeqLMOutput(loss=loss, **outputs)

    def _decode(
        self,
        encoded: PersonaEncoderOutput,
        attention_mask: Tensor | None,
        decoder_inputs: dict[str, Tensor | None],
        strengths: Tensor | None,
        kwargs: dict[str, Any],
    ) -> Any:
        """Run the decoder, over 2B rows where there are two streams, and the language-model head over B rows."""
        hidden = encoded.last_hidden_state
        if encoded.streams is not None:
            hidden = encoded.streams.flatten(0, 1)  # (B, 2, L, D) -> (2B, L, D), a view
            attention_mask = double_rows(attention_mask)
            decoder_inputs = {name: double_rows(value) for name, value in decoder_inputs.items()}
        outputs = self.backbone.base_model(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            attention_mask=attention_mask,
            return_dict=True,
            **decoder_inputs,
            **kwargs,
        )
        if encoded.streams is not None and strengths is not None:
            outputs = merge_streams(outputs, strengths, encoded.has_persona)
        decoded = dict(outputs)
        head = self.backbone.get_output_embeddings()
        logits = head(decoded.pop("last_hidden_state")) + self.backbone.final_logits_bias  # (B, T, D) -> (B, T, V)
        return Seq2SeqLMOutput(logits=logits, **decoded)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Shift labels right behind the start token; ignored positions become padding.

        Args:
            labels: (B, T), with -100 where ignored.

        Returns:
            (B, T).

        Example:
            >>> model.prepare_decoder_input_ids_from_labels(torch.tensor([[9, 5, 2]])).tolist()  # 1 is the start token
            [[1, 9, 5]]
        """
        shifted = labels.roll(1, dims=1)  # (B, T)
        shifted[:, 0] = self.config.decoder_start_token_id
        return shifted.masked_fill(shifted == -100, self.config.pad_token_id)


def _negative_log_likelihood(logits: Tensor, labels: Tensor, num_items: Tensor | int | None) -> Tensor:
    """Summed over tokens and divided by `num_items`, or by the labels counted here."""
    flat = logits.flatten(0, 1).float()  # (B, T, V) -> (B T, V)
    total = functional.cross_entropy(flat, labels.flatten().to(flat.device), ignore_index=-100, reduction="sum")
    if num_items is None:
        num_items = (labels != -100).sum().clamp(min=1)
    return total / (num_items.to(total.device) if isinstance(num_items, Tensor) else num_items)


def _ids_in(tokenizer: Any, strategies: list[str]) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in strategies if token not in vocabulary]
    if missing:
        raise ValueError(f"The tokenizer lacks strategy tokens: {missing}. Call add_strategy_tokens(tokenizer) first.")
    return [vocabulary[token] for token in strategies]


def register() -> None:
    """Make `AutoConfig`, `AutoModel` and `AutoModelForSeq2SeqLM` know the model type; calling it twice is harmless.

    Example:
        >>> register()
        >>> AutoConfig.for_model("pess-generator").model_type
        'pess-generator'
    """
    AutoConfig.register(PessGeneratorConfig.model_type, PessGeneratorConfig, exist_ok=True)
    AutoModel.register(PessGeneratorConfig, PessGenerator, exist_ok=True)
    AutoModelForSeq2SeqLM.register(PessGeneratorConfig, PessGenerator, exist_ok=True)


if __name__ == "pess_hf.modeling_generator":  # a copy exported with a model has another name
    register()
