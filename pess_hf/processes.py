"""Several processes: which rows of an evaluation batch are real, who does which part, what does not go together.

Letters: B rows of a batch, P processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object

from pess_hf.errors import PessError

Part = TypeVar("Part")


def num_real_rows(accelerator: Accelerator, batch_size: int) -> int:
    """How many rows of this process's evaluation batch are real.

    So that all processes get batches of one size, accelerate fills the last ones up with rows from the beginning of
    the data. The real ones come first over the processes in order, as in `Accelerator.gather_for_metrics`.

    Args:
        accelerator: Knows the data loader that is being read.
        batch_size: B, the rows of this process's batch.

    Returns:
        A number in [0, B]; the real rows are the first.

    Example:
        >>> num_real_rows(Accelerator(cpu=True), 4)  # no data loader is being read
        4
    """
    state = accelerator.gradient_state
    if not state.end_of_dataloader or state.remainder <= 0:
        return batch_size
    return min(max(state.remainder - accelerator.process_index * batch_size, 0), batch_size)


def gather_real(accelerator: Accelerator, use_gather_object: bool = False) -> Callable[[Any], Any]:
    """How an evaluation gathers what was predicted: of the real rows alone.

    `Seq2SeqTrainer` keeps the repeated rows of the last batch.

    Args:
        accelerator: Of the trainer.
        use_gather_object: The trainer's `eval_use_gather_object`.

    Example:
        >>> trainer.gather_function = gather_real(trainer.accelerator)  # doctest: +SKIP
    """
    return partial(accelerator.gather_for_metrics, use_gather_object=use_gather_object)


def share_of(parts: Sequence[Part], accelerator: Accelerator | None) -> list[tuple[Part, bool]]:
    """This process's parts of some work, as many for each process.

    Sharded models need every process in every forward pass: where the work does not divide, the last part is done
    again by the others, for nothing.

    Args:
        parts: All the work, the same list on all processes.
        accelerator: Knows the processes; None for one.

    Returns:
        Parts, and whether this process's result for the part counts.

    Example:
        >>> share_of(["a", "b"], None)
        [('a', True), ('b', True)]
    """
    rank, world = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    places = range(rank, len(parts) + -len(parts) % world, world)
    return [(parts[min(place, len(parts) - 1)], place < len(parts)) for place in places]


def from_all(values: list[Any], accelerator: Accelerator | None) -> list[Any]:
    """The values of all processes in one list, in the processes' order; for small objects.

    Example:
        >>> from_all([3], None)
        [3]
    """
    return values if accelerator is None or accelerator.num_processes == 1 else gather_object(values)


def check_sharding(accelerator: Accelerator, model: Any) -> None:
    """Refuse ways of sharding that would fail or be left out without a word.

    Args:
        accelerator: Knows how processes share the model.
        model: The model to train.

    Raises:
        PessError: FSDP without an accelerator, FSDP 1, or a cache of encoder outputs under a sharded model.

    Example:
        >>> check_sharding(Accelerator(cpu=True), model)  # doctest: +SKIP
    """
    is_fsdp = accelerator.distributed_type == DistributedType.FSDP
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" and not is_fsdp:
        raise PessError(
            "FSDP: expected several processes with an accelerator each, found none; accelerate would train with DDP "
            "instead. Launch with recipes/accelerate/cpu-2.yaml or ddp.yaml."
        )
    if is_fsdp and not accelerator.is_fsdp2:
        raise PessError("FSDP: expected version 2, found 1. Set fsdp_version: 2 (recipes/accelerate/fsdp2.yaml).")
    if (is_fsdp or is_zero3(accelerator)) and getattr(model, "_encoder_cache", None):
        raise PessError(
            "encoder_cache_rows: expected 0 with a sharded model (FSDP, ZeRO-3), found a cache: a process that reads "
            "it would leave the others waiting. Set it to 0, or launch with recipes/accelerate/ddp.yaml."
        )


def is_zero3(accelerator: Accelerator | None) -> bool:
    """Whether DeepSpeed shards the weights.

    Example:
        >>> is_zero3(Accelerator(cpu=True))
        False
    """
    if accelerator is None or accelerator.distributed_type != DistributedType.DEEPSPEED:
        return False
    return accelerator.state.deepspeed_plugin.zero_stage == 3
