"""Generation during training: greedy, in eval mode, without gradient, for several micro-batches at once.

Under sharding (FSDP2, ZeRO-3) it is made safe by one context manager, `generation_ready`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch.distributed.fsdp import FSDPModule
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from pess_hf.processes import is_zero3

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


@dataclass(frozen=True)
class ReadyModel:
    """A model that this process may generate with.

    Args:
        model: Out of the wrapping of DDP, whole or gathered layer by layer.
        synced: Whether all processes have to make the same calls, in step (ZeRO-3).
    """

    model: Any
    synced: bool

    def generate(self, **inputs: Any) -> torch.Tensor:
        """As `generate`; in step with the other processes where that is needed."""
        return self.model.generate(**inputs, synced_gpus=self.synced)


@contextlib.contextmanager
def generation_ready(model: Any, accelerator: Accelerator | None = None) -> Iterator[ReadyModel]:
    """Make a model that is being trained ready to generate on each process; put everything back after.

    All processes enter and leave it together. Under FSDP2 the weights are gathered once on entry: processes may then
    make different calls and stop at different lengths. Under ZeRO-3 DeepSpeed's hooks gather layer by layer, so the
    processes go on together until the last one stops, and each has to make as many calls. Otherwise there is nothing
    to gather. Mode, cache flag and what FSDP does after a forward pass are put back, also after an error.

    Args:
        model: A model, wrapped or not.
        accelerator: Knows the wrapping and how weights are sharded; None for a model that nothing wraps.

    Yields:
        The model to generate with.

    Example:
        >>> with generation_ready(model, trainer.accelerator) as ready:  # doctest: +SKIP
        ...     ready.generate(input_ids=input_ids)
    """
    plain = model if accelerator is None else accelerator.unwrap_model(model)
    with rollout_mode(plain), _with_cache(plain), _gathered(plain, accelerator):
        yield ReadyModel(plain, synced=is_zero3(accelerator))


@contextlib.contextmanager
def _with_cache(model: Any) -> Iterator[None]:
    """Gradient checkpointing switches the cache off in the config; generation is quadratic without it."""
    config: Any = getattr(model, "config", None)
    flag = getattr(config, "use_cache", None)
    if flag is not None:
        config.use_cache = True
    try:
        yield
    finally:
        if flag is not None:
            config.use_cache = flag


@contextlib.contextmanager
def _gathered(model: Any, accelerator: Accelerator | None) -> Iterator[None]:
    """Whole weights under FSDP2, between one gathering of all layers and one freeing of them."""
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if not shards:
        yield
        return
    # The first module that runs forward is FSDP's root, and generation would begin with an inner one.
    token = torch.zeros(1, 1, dtype=torch.long, device=_device(model))
    model(input_ids=token, decoder_input_ids=token)
    for shard in shards:
        shard.set_reshard_after_forward(False, recurse=False)
        shard.unshard()
    try:
        yield
    finally:
        for shard in shards:
            shard.reshard()
            shard.set_reshard_after_forward(_reshards(shard is model, accelerator), recurse=False)


def _reshards(is_root: bool, accelerator: Accelerator | None) -> bool:
    """What a module does after a forward pass in training: as accelerate was told, else `fully_shard`'s default."""
    plugin = None if accelerator is None else getattr(accelerator.state, "fsdp_plugin", None)
    return not is_root if plugin is None else bool(plugin.reshard_after_forward)


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


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
    return GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, use_cache=True, **tokens)


def greedy_rollouts(
    model: Any,
    sources: Sequence[torch.Tensor],
    max_new_tokens: int,
    batch_size: int = 64,
    accelerator: Accelerator | None = None,
) -> list[torch.Tensor]:
    """Write one persona per source, longest sources first so that batches pad little.

    Args:
        model: The model, wrapped or not, on the sources' device.
        sources: Source token ids without padding, each (S,).
        max_new_tokens: Tokens written at most per source.
        batch_size: Sources decoded at a time.
        accelerator: Of the training; under sharding all processes call this together.

    Returns:
        Generated token ids per source, in the order of `sources`, special tokens included, padding cut off, each (T,).

    Example:
        >>> greedy_rollouts(model, [torch.tensor([0, 5, 2])], max_new_tokens=8)  # doctest: +SKIP
        [tensor([2, 0, 7, 2])]
    """
    order = sorted(range(len(sources)), key=lambda row: (-len(sources[row]), row))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    rollouts: dict[int, torch.Tensor] = {}
    with generation_ready(model, accelerator) as ready:
        if ready.synced:
            batches = _as_many_for_all(batches, accelerator)
        base = _base(ready.model)
        config = greedy_config(base, max_new_tokens)
        with _generation_config(base, config):
            for rows in batches:
                generated = _generate(ReadyModel(base, ready.synced), [sources[row] for row in rows], config)
                rollouts.update(zip(rows, generated, strict=True))
    return [rollouts[row] for row in range(len(sources))]


def _base(model: Any) -> Any:
    """PEFT's layers sit in the base model, whose settings `generate` reads."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _as_many_for_all(batches: list[list[int]], accelerator: Any) -> list[list[int]]:
    """Repeat the last batch where another process has more: each call needs all of them."""
    count = accelerator.gather(torch.tensor([len(batches)], device=accelerator.device)).max()
    return batches + batches[-1:] * (int(count) - len(batches))


@contextlib.contextmanager
def _generation_config(model: Any, config: GenerationConfig) -> Iterator[None]:
    """`generate` fills what a passed config leaves open from the model's own, such as a minimum length."""
    own, model.generation_config = model.generation_config, config
    try:
        yield
    finally:
        model.generation_config = own


def _generate(ready: ReadyModel, sources: list[torch.Tensor], config: GenerationConfig) -> list[torch.Tensor]:
    pad = config.pad_token_id
    # Under ZeRO-3 every process has to run the encoder equally often.
    encoded, mask = _encode(ready.model, sources, pad, len(sources) if ready.synced else _ENCODED_AT_ONCE)
    outputs = BaseModelOutput(last_hidden_state=encoded)
    sequences = ready.generate(encoder_outputs=outputs, attention_mask=mask)  # (B, T)
    return [_cut_padding(sequence, pad) for sequence in sequences]


def _encode(model: Any, sources: list[torch.Tensor], pad: int, at_once: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoded sources (B, S, D) and their mask (B, S).

    Sources come sorted by length and are encoded a few at a time: so they pad less, and a CPU keeps what it computes
    in its cache. Decoding, one token at a time, is the other way round and takes all of them.
    """
    states = []
    for start in range(0, len(sources), at_once):
        few = sources[start : start + at_once]
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
