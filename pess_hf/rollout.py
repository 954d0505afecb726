"""Generation during training: greedy, in eval mode, without gradient, for several micro-batches at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

#: What a rollout keeps of the model's generation config: tokens, never beams, lengths or penalties.
_TOKEN_FIELDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")
_ENCODED_AT_ONCE = 16


@contextlib.contextmanager
def rollout_mode(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode without gradient; every module's own mode is put back, also after an error.

    In training mode gradient checkpointing switches the cache off and generation goes silently wrong, and dropout
    would make rollouts differ between resumed and uninterrupted runs.

    Example:
        >>> layer = torch.nn.Dropout()
        >>> with rollout_mode(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def greedy_config(model: Any, max_new_tokens: int) -> GenerationConfig:
    """Greedy decoding with the model's special tokens and nothing else of its generation settings.

    Args:
        model: Its `generation_config` (or config) names the special tokens.
        max_new_tokens: Tokens written at most.
    """
    tokens = {}
    for name in _TOKEN_FIELDS:
        value = getattr(model.generation_config, name, None)
        tokens[name] = value if value is not None else getattr(model.config, name, None)
    return GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, **tokens)


def greedy_rollouts(
    model: Any, sources: Sequence[torch.Tensor], max_new_tokens: int, batch_size: int = 64
) -> list[torch.Tensor]:
    """Write one persona per source, longest sources first so that batches pad little.

    Args:
        model: The unwrapped model, on the sources' device.
        sources: Source token ids without padding, each (S,).
        max_new_tokens: Tokens written at most per source.
        batch_size: Sources decoded at a time.

    Returns:
        Generated token ids per source, in the order of `sources`, special tokens included, padding cut off, each (T,).

    Example:
        >>> greedy_rollouts(model, [torch.tensor([0, 5, 2])], max_new_tokens=8)  # doctest: +SKIP
        [tensor([2, 0, 7, 2])]
    """
    if hasattr(model, "get_base_model"):  # PEFT: its layers sit in the base model, whose settings `generate` reads
        model = model.get_base_model()
    config = greedy_config(model, max_new_tokens)
    order = sorted(range(len(sources)), key=lambda row: (-len(sources[row]), row))
    rollouts: dict[int, torch.Tensor] = {}
    with rollout_mode(model), _generation_config(model, config):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            generated = _generate(model, [sources[row] for row in rows], config)
            rollouts.update(zip(rows, generated, strict=True))
    return [rollouts[row] for row in range(len(sources))]


@contextlib.contextmanager
def _generation_config(model: Any, config: GenerationConfig) -> Iterator[None]:
    """`generate` fills what a passed config leaves open from the model's own, such as a minimum length."""
    own, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = own


def _generate(model: Any, sources: list[torch.Tensor], config: GenerationConfig) -> list[torch.Tensor]:
    pad = config.pad_token_id
    encoded, mask = _encode(model, sources, pad)
    outputs = BaseModelOutput(last_hidden_state=encoded)
    sequences = model.generate(encoder_outputs=outputs, attention_mask=mask)  # (B, T)
    return [_cut_padding(sequence, pad) for sequence in sequences]


def _encode(model: Any, sources: list[torch.Tensor], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoded sources (B, S, D) and their mask (B, S).

    Sources come sorted by length and are encoded a few at a time: so they pad less, and a CPU keeps what it computes
    in its cache. Decoding, one token at a time, is the other way round and takes all of them.
    """
    states = []
    for start in range(0, len(sources), _ENCODED_AT_ONCE):
        few = sources[start : start + _ENCODED_AT_ONCE]
        input_ids = pad_sequence(few, batch_first=True, padding_value=pad)  # (b, s)
        hidden = model.encode(input_ids, _mask(few))  # (b, s, D)
        states += [row[: len(source)] for row, source in zip(hidden, few, strict=True)]
    return pad_sequence(states, batch_first=True), _mask(sources)  # (B, S, D), (B, S)


def _mask(sources: list[torch.Tensor]) -> torch.Tensor:
    return pad_sequence([torch.ones_like(source) for source in sources], batch_first=True)  # (B, S)


def _cut_padding(sequence: torch.Tensor, pad: int) -> torch.Tensor:
    """Drop the padding on the right; T5 starts with its padding token, which stays."""
    real = sequence.ne(pad).nonzero()
    return sequence[: int(real[-1]) + 1 if len(real) else 1]
