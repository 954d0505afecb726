"""The processes of a recipe that trains nothing, and what one of them does for all."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from typing import Any, TypeVar

from pess_hf.errors import PessError

Result = TypeVar("Result")
#: How long a process may wait for the others; shares of hours may differ by hours.
_PATIENCE = datetime.timedelta(days=30)


def join_processes() -> Any:
    """Join the processes that a launcher started, on accelerators or on the CPU.

    Returns:
        An accelerate `PartialState`.

    Raises:
        PessError: If the launcher started several and they do not find each other: each would do all the work.

    Example:
        >>> join_processes().num_processes
        1
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # PartialState joins processes on a CPU only where it is told that there is nothing else.
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=on_cpu, timeout=_PATIENCE)
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != state.num_processes:
        raise PessError(
            f"WORLD_SIZE: expected the {state.num_processes} process(es) that found each other, found {started}. "
            "Start with accelerate launch or torchrun, or unset it."
        )
    return state


def on_main_process(state: Any, function: Callable[[], Result]) -> Result:
    """Call a function on the main process and give its result to every process.

    If it raises, the main process raises; the others leave with status 1, so that an error is reported once and
    nobody waits.

    Args:
        state: An accelerate `PartialState`.
        function: What the main process calls; its result must be picklable.

    Returns:
        Its result, on every process.

    Raises:
        SystemExit: On the other processes, if it raised.

    Example:
        >>> from accelerate import PartialState
        >>> on_main_process(PartialState(), lambda: 3)
        3
    """
    from accelerate.utils import broadcast_object_list

    outcome: list[Any] = [False, None]
    try:
        if state.is_main_process:
            outcome = [True, function()]
    finally:
        broadcast_object_list(outcome)
    if not outcome[0]:
        raise SystemExit(1)
    return outcome[1]
