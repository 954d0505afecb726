"""Warm-starting an encoder and a shallower decoder from one BERT-like checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from pess_hf.errors import PessError
from pess_hf.similarity import resolve_encoder


def encoder_decoder_from_bert(
    name_or_path: str, decoder_layers: int = 2, **kwargs: Any
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Load a BERT-like encoder and build a decoder out of its embeddings and first layers.

    Args:
        name_or_path: Hub id or folder; the default sentence encoder's id works offline with the extra `offline`.
        decoder_layers: Layers of the decoder, from 1 to the encoder's number.
        **kwargs: Passed to `AutoModel.from_pretrained`.

    Returns:
        The encoder and the decoder with its language-model head.

    Raises:
        PessError: If the checkpoint is no BERT, or has fewer layers than asked for.

    Example:
        >>> encoder, decoder = encoder_decoder_from_bert("sentence-transformers/all-MiniLM-L6-v2", decoder_layers=1)
        >>> decoder.config.is_decoder, decoder.config.add_cross_attention
        (True, True)
    """
    path = resolve_encoder(name_or_path)
    hub = {key: kwargs[key] for key in ("revision", "token", "cache_dir") if key in kwargs}
    config = AutoConfig.from_pretrained(path, **hub)
    _check(config, name_or_path, decoder_layers)
    encoder = AutoModel.from_pretrained(path, **kwargs)
    decoder_config = type(config).from_dict(config.to_dict())
    tokenizer = AutoTokenizer.from_pretrained(path, **hub)
    decoder_config.update(
        {
            "is_decoder": True,
            "add_cross_attention": True,
            "num_hidden_layers": decoder_layers,
            "bos_token_id": tokenizer.cls_token_id,
            "eos_token_id": tokenizer.sep_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    )
    decoder = AutoModelForCausalLM.from_config(decoder_config)
    _copy_weights(encoder, decoder)
    return encoder, decoder


def _check(config: PreTrainedConfig, name_or_path: str, decoder_layers: int) -> None:
    if config.model_type != "bert":
        raise PessError(
            f"{name_or_path}: expected a checkpoint of type bert to warm-start from, found {config.model_type!r}."
        )
    if not 1 <= decoder_layers <= config.num_hidden_layers:
        raise PessError(
            f"decoder_layers: expected a number from 1 to {config.num_hidden_layers} (the layers of {name_or_path}), "
            f"found {decoder_layers}."
        )


@torch.no_grad()
def _copy_weights(encoder: Any, decoder: Any) -> None:
    body = decoder.base_model
    body.embeddings.load_state_dict(encoder.embeddings.state_dict())
    for source, target in zip(encoder.encoder.layer, body.encoder.layer, strict=False):
        target.load_state_dict(source.state_dict(), strict=False)
        target.crossattention.load_state_dict(source.attention.state_dict())
    # The checkpoint has no head: start near the identity, so that a hidden state scores the word it is closest to.
    transform = decoder.cls.predictions.transform.dense
    transform.weight.copy_(torch.eye(*transform.weight.shape))
    transform.bias.zero_()
