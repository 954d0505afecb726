"""What one process does for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


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
