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
    PreTrainedTokenizerBase,
)

from pess_hf.errors import PessError
from pess_hf.run_folder import as_hub_id
from pess_hf.similarity import resolve_encoder

#: Shift of the head's pre-activations (of unit variance) at which GELU is the identity to three digits.
_LINEAR_REGION = 4.0


def encoder_decoder_from_bert(
    name_or_path: str, decoder_layers: int = 2, encoder_layers: int | None = None, **kwargs: Any
) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Load a BERT-like encoder and build a decoder out of its embeddings and first layers that is ready to copy.

    Personas repeat words of the dialogue, most of them words that training never shows as targets. So the decoder
    starts with a path from a source token to the same token's score: its last cross-attention passes the attended
    hidden state on as it is, and the head maps such states to word embeddings, by ridge regression over
    words drawn from the whole vocabulary. What training has to find is where to look.

    Args:
        name_or_path: Hub id or folder; the default sentence encoder's id works offline with the extra `offline`.
        decoder_layers: Layers of the decoder, from 1 to the checkpoint's number.
        encoder_layers: Keep only so many of the encoder's first layers, whose states tell tokens apart better;
            None keeps all.
        **kwargs: Passed to `AutoModel.from_pretrained`.

    Returns:
        The encoder and the decoder with its language-model head.

    Raises:
        PessError: If the checkpoint is no BERT, or has fewer layers than asked for.

    Example:
        >>> encoder, decoder = encoder_decoder_from_bert(  # doctest: +SKIP
        ...     "sentence-transformers/all-MiniLM-L6-v2", decoder_layers=1
        ... )
        >>> decoder.config.is_decoder, decoder.config.add_cross_attention  # doctest: +SKIP
        (True, True)
    """
    path = resolve_encoder(name_or_path)
    hub = {key: kwargs[key] for key in ("revision", "token", "cache_dir") if key in kwargs}
    config = AutoConfig.from_pretrained(path, **hub)
    _check(config, name_or_path, "decoder_layers", decoder_layers)
    _check(config, name_or_path, "encoder_layers", encoder_layers or config.num_hidden_layers)
    config.num_hidden_layers = encoder_layers or config.num_hidden_layers
    full_encoder: Any = AutoModel.from_pretrained(path, **kwargs)
    # Both configs are saved inside the extractor's, which may be published: no folder of this machine in them.
    config.name_or_path = full_encoder.config.name_or_path = as_hub_id(name_or_path, bare=True) or ""
    encoder = _first_layers(full_encoder, config.num_hidden_layers)
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
    _copy_weights(full_encoder, decoder)
    _make_ready_to_copy(encoder, decoder, tokenizer)
    return encoder, decoder.to(encoder.dtype)


def _check(config: PreTrainedConfig, name_or_path: str, name: str, layers: int) -> None:
    if config.model_type != "bert":
        raise PessError(
            f"{name_or_path}: expected a checkpoint of type bert to warm-start from, found {config.model_type!r}."
        )
    if not 1 <= layers <= config.num_hidden_layers:
        raise PessError(
            f"{name}: expected a number from 1 to {config.num_hidden_layers} (the layers of {name_or_path}), "
            f"found {layers}."
        )


def _first_layers(encoder: Any, number: int) -> Any:
    kept = type(encoder)(type(encoder.config).from_dict(encoder.config.to_dict() | {"num_hidden_layers": number}))
    kept.load_state_dict({name: weight for name, weight in encoder.state_dict().items() if name in kept.state_dict()})
    return kept.to(encoder.dtype)


@torch.no_grad()
def _copy_weights(encoder: Any, decoder: Any) -> None:
    body = decoder.base_model
    body.embeddings.load_state_dict(encoder.embeddings.state_dict())
    for source, target in zip(encoder.encoder.layer, body.encoder.layer, strict=False):
        target.load_state_dict(source.state_dict(), strict=False)
        target.crossattention.load_state_dict(source.attention.state_dict())


@torch.no_grad()
def _make_ready_to_copy(encoder: Any, decoder: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    cross = decoder.base_model.encoder.layer[-1].crossattention
    for linear in (cross.self.value, cross.output.dense):
        linear.weight.copy_(torch.eye(*linear.weight.shape))
        linear.bias.zero_()
    embeddings = decoder.get_input_embeddings().weight.float()  # (V, D)
    states, tokens = _states_of_words(encoder, tokenizer)  # (N, D), (N,)
    slope, intercept = _ridge(states / states.std(), embeddings[tokens])
    # The head's activation passes what lies far above 0 as it is, and its layer norm takes the shift off again.
    transform = decoder.cls.predictions.transform.dense
    scale = 1 / (states / states.std() @ slope).std()
    transform.weight.copy_(slope.T * scale)
    transform.bias.copy_(intercept * scale + _LINEAR_REGION)


def _states_of_words(
    encoder: Any, tokenizer: PreTrainedTokenizerBase, number: int = 9000, length: int = 60
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder states (N, D) and ids (N,) of words drawn from the whole vocabulary, in sequences."""
    order = torch.randperm(len(tokenizer), generator=torch.Generator().manual_seed(0))
    special = torch.isin(order, torch.tensor(tokenizer.all_special_ids))
    tokens = order[~special][:number]
    sequences = tokens[: len(tokens) // length * length].view(-1, length)  # (sequences, length)
    sides = [torch.full((len(sequences), 1), token) for token in (tokenizer.cls_token_id, tokenizer.sep_token_id)]
    input_ids = torch.cat([sides[0], sequences, sides[1]], dim=1)  # (sequences, length + 2)
    encoder.eval()
    states = torch.cat([encoder(input_ids=batch)[0][:, 1:-1].float() for batch in input_ids.split(64)])
    return states.flatten(0, 1), sequences.flatten()  # (sequences, length, D) -> (N, D), (N,)


def _ridge(inputs: torch.Tensor, targets: torch.Tensor, strength: float = 1e-3) -> tuple[torch.Tensor, torch.Tensor]:
    """Slope (D, D) and intercept (D,) of the regularised linear map from inputs (N, D) to centred targets (N, D)."""
    mean = inputs.mean(dim=0)
    centred = inputs - mean
    gram = centred.T @ centred + strength * len(inputs) * torch.eye(inputs.shape[1])
    slope = torch.linalg.solve(gram, centred.T @ (targets - targets.mean(dim=0)))
    return slope, -mean @ slope
