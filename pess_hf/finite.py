"""Stops training at the first loss or gradient that is not a finite number, before it reaches the weights.

Letters: B rows of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn.utils import get_total_norm

from pess_hf.errors import PessError
from pess_hf.processes import from_all

#: Rows named in an error at most.
_MAX_NAMED = 50


class FiniteWatch:
    """Remembers, on the device, which rows of an optimiser step had a term that is not finite.

    Args:
        terms: Names of the terms.

    Example:
        >>> watch = FiniteWatch(["nll", "consistency"])
        >>> watch.add(torch.tensor([[False, True], [False, False]]), ["row-1", "row-2"])
        >>> watch.flags().tolist(), watch.bad_rows()
        ([1.0, 0.0], {'nll': ['row-2']})
    """

    def __init__(self, terms: Sequence[str]) -> None:
        self.terms = tuple(terms)
        self._steps: list[tuple[torch.Tensor, list[str]]] = []

    def add(self, not_finite: torch.Tensor, ids: Sequence[str] | None) -> None:
        """Take in a micro-batch, without waiting for the device.

        Args:
            not_finite: Per term and row whether it is not finite, (terms, B) bool.
            ids: Names of the B rows, None where the data has none.
        """
        seen, count = len(self.rows()), not_finite.shape[1]
        names = [f"unnamed row {seen + n}" for n in range(count)] if ids is None else list(ids)
        self._steps.append((not_finite.detach(), names))

    def flags(self, device: Any = None) -> torch.Tensor:
        """1.0 for each term that is not finite somewhere, else 0.0; (terms,), on the device.

        Args:
            device: Where they are made if there was no micro-batch, as in a subclass with a `compute_loss` of its own.
        """
        if not self._steps:
            return torch.zeros(len(self.terms), device=device)
        return torch.stack([flags.any(dim=1) for flags, _ in self._steps]).any(dim=0).float()

    def bad_rows(self) -> dict[str, list[str]]:
        """Per term that is not finite somewhere, the names of the rows; waits for the device."""
        found: dict[str, list[str]] = {}
        for flags, ids in self._steps:
            for term, of_rows in zip(self.terms, flags.tolist(), strict=True):
                found.setdefault(term, []).extend(name for name, is_bad in zip(ids, of_rows, strict=True) if is_bad)
        return {term: names for term, names in found.items() if names}

    def rows(self) -> list[str]:
        """The names of all rows since the last `clear`."""
        return [name for _, ids in self._steps for name in ids]

    def clear(self) -> None:
        """Begin the next optimiser step."""
        self._steps.clear()


class FiniteMixin:
    """What a `Trainer` does about numbers that are not finite; stands before `Trainer` among the bases.

    `compute_loss` of the class tells `finite_watch` about each micro-batch. Once per optimiser step, before the
    optimiser moves, all processes add up their findings, and read them: the one time that the device is waited for.
    A gradient overflow under a GradScaler (fp16) is normal: the scaler leaves the step out by itself.
    """

    accelerator: Any
    model: Any
    state: Any
    finite_watch: FiniteWatch

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """As `Trainer.training_step`; raises `PessError` where a number of this optimiser step is not finite."""
        loss = super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]
        if self.accelerator.sync_gradients:
            scaled = self.accelerator.scaler is not None
            check_finite(self.finite_watch, [] if scaled else model.parameters(), self.accelerator, self.state)
            self.finite_watch.clear()
        return loss

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As `Trainer.save_model`; weights that are not finite are never written over good ones.

        Raises:
            PessError: A weight is not finite.
        """
        trained = (p.detach() for p in self.model.parameters() if p.requires_grad)
        if not bool(_is_finite(trained)):  # no exchange between processes: the first may be saving alone
            raise PessError(
                f"step {self.state.global_step}: expected finite weights to save, found nan or infinity. Nothing was "
                "saved; lower learning_rate and go on from the last checkpoint."
            )
        super().save_model(output_dir, _internal_call)  # type: ignore[misc]


def check_finite(watch: FiniteWatch, parameters: Iterable[torch.nn.Parameter], accelerator: Any, state: Any) -> None:
    """Raise, on all processes alike, where a loss term or the gradient norm of this optimiser step is not finite.

    Args:
        watch: What the micro-batches of this process said.
        parameters: Whose gradients are looked at, after they were added up over processes; none under fp16.
        accelerator: Adds up over processes.
        state: Its `global_step` is the last step that was finished.

    Raises:
        PessError: Naming step, terms and rows.

    Example:
        >>> from types import SimpleNamespace
        >>> from accelerate import Accelerator
        >>> watch = FiniteWatch(["nll"])
        >>> watch.add(torch.tensor([[True]]), ["row-7"])
        >>> try:
        ...     check_finite(watch, [], Accelerator(cpu=True), SimpleNamespace(global_step=4))
        ... except PessError as error:
        ...     print(str(error)[:66])
        step 5: expected finite numbers, found nan or infinity in nll of r
    """
    flags = watch.flags(accelerator.device)
    gradients = (parameter.grad for parameter in parameters if parameter.grad is not None)
    bad_gradient = (~_is_finite(gradients, flags.device)).float()
    flags = accelerator.reduce(torch.cat([flags, bad_gradient[None]]), reduction="sum")  # (terms + 1,)
    if not flags.any():
        return
    everywhere = from_all([watch.bad_rows()], accelerator)
    by_term = {term: [name for found in everywhere for name in found.get(term, [])] for term in watch.terms}
    if not any(by_term.values()):
        by_term = {"the gradient norm": from_all(watch.rows(), accelerator)}
    places = "; ".join(f"{term} of {_list(names)}" for term, names in by_term.items() if names)
    raise PessError(
        f"step {state.global_step + 1}: expected finite numbers, found nan or infinity in {places}. The weights are "
        "those of the step before and nothing was saved; look at these rows or lower learning_rate, and go on from "
        "the last checkpoint."
    )


def _is_finite(tensors: Iterable[torch.Tensor], device: Any = None) -> torch.Tensor:
    """Whether the norm over this process's shards is a finite number; a bool scalar on the device."""
    local = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    return get_total_norm(local).isfinite().to(device) if local else torch.ones((), dtype=torch.bool, device=device)


def _list(names: list[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
