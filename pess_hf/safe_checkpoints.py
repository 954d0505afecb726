"""Checkpoints that survive a kill at any moment: finished ones are marked, and only these are resumed from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pess_hf.checkpoint_manifest import write_manifest
from pess_hf.resumed_adapter import ADAPTER_WEIGHTS, check_adapter_fits
from pess_hf.run_checkpoints import discard, resolve_checkpoint, rotate


class SafeCheckpointsMixin:
    """How a `Trainer` saves and finds its checkpoints; stands before `Trainer` among the bases.

    A checkpoint is finished when its manifest is written: after every process has written its part and all of it is
    on the disk. Older ones are deleted only then. Resuming takes the newest whole checkpoint and warns of a damaged
    one that it passes over; a damaged one asked for by name is an error.
    """

    args: Any
    model: Any
    state: Any
    accelerator: Any
    _get_output_dir: Any
    control: Any

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """As `Trainer.train`, from a whole checkpoint only.

        Args:
            resume_from_checkpoint: True for the newest whole checkpoint of `output_dir`, or a checkpoint's folder.
            trial: As in `Trainer.train`.
            ignore_keys_for_eval: As in `Trainer.train`.

        Returns:
            What `Trainer.train` returns.

        Raises:
            PessError: If there is no whole checkpoint, the one asked for is damaged, or its adapter is another one.

        Example:
            >>> trainer.train(resume_from_checkpoint=True)  # doctest: +SKIP
        """
        if resume_from_checkpoint:
            resume_from_checkpoint = resolve_checkpoint(resume_from_checkpoint, self.args)
            if (Path(resume_from_checkpoint) / ADAPTER_WEIGHTS).is_file():
                check_adapter_fits(self.model, resume_from_checkpoint)
        parent: Any = super()
        return parent.train(resume_from_checkpoint or None, trial, ignore_keys_for_eval)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """As upstream, which would train one step more when it resumes from a checkpoint of the last step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        parent: Any = super()
        parent._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            discard(folder)  # one of the same step, from before a restart, must not mix with this one
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            parent: Any = super()
            parent._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_manifest(folder, self.args.world_size)
            rotate(folder, limit, self.state.best_model_checkpoint, self.args.world_size)
