"""Cards and pushes of a trainer: our model card, and of the output folder what may be published."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from transformers.trainer_utils import HubStrategy
from transformers.utils import PushInProgress

from pess_hf.errors import PessError
from pess_hf.hub_files import Content, is_stale, public_files
from pess_hf.hub_upload import upload_in_one_commit
from pess_hf.known_sentences import KnownSentences, strings_in
from pess_hf.model_card import KINDS, render_model_card, template_text
from pess_hf.release_checks import check_texts, check_weights, predicted_texts
from pess_hf.run_folder import RunFolder, as_hub_id, read_run_folder
from pess_hf.run_record import flat_arguments, hardware, installed_versions

logger = logging.getLogger(__name__)


class PessHubMixin:
    """What a `Trainer` publishes, done our way; stands before `Trainer` among the bases.

    Uploaded are model, tokenizer, card and metrics. Never uploaded are `training_args.bin` (a pickle), predictions,
    rollouts and optimizer states (dialogue text), whatever else lies in the output folder. The same commit deletes
    weights and pickles of an earlier push that it does not hold, as `recipes/release.py` does.

    What is checked when: `push_to_hub` looks for tokens and for dialogue text (predictions and training rows) in every
    file, and for NaN in every tensor; a push at a save (`hub_strategy: every_save`) reads small files and the headers
    of the weights only, looks for tokens and predictions, and gives way with a warning instead of ending the training.
    A licence and measured numbers are asked for by `recipes/release.py` alone.
    """

    args: Any
    model: Any
    state: Any
    accelerator: Any
    callback_handler: Any
    train_dataset: Any
    control: Any
    hub_model_id: Any
    push_in_progress: Any
    init_hf_repo: Any
    is_world_process_zero: Any
    save_model: Any
    _finish_current_push: Any

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write `README.md` as `render_model_card` does; without a network.

        The card is made from the recipe's `run.json` and `metrics.json` where the output folder has them, else from
        the trainer itself: its arguments and the last evaluation. What was not measured stays blank.

        Args:
            language: Language code.
            license: The licence of the weights.
            tags: Further tags.
            model_name: The title.
            finetuned_from: The Hub id of the model that training started from; a local path is left out.
            tasks: Not used: the card knows its task.
            dataset_tags: Hub ids of the training data.
            dataset: Not used: the results name the data by its id.
            dataset_args: Not used.
        """
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        card = render_model_card(
            read_run_folder(folder) if _is_recorded(folder) else trainer_run(self),
            model_id=as_hub_id(self.hub_model_id or self.args.hub_model_id),
            base_model=as_hub_id(finetuned_from, bare=True),
            model_name=model_name,
            language=language,
            license=license,
            tags=self._tags(tags),
            datasets=dataset_tags,
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "README.md").write_text(card, encoding="utf-8")

    def _tags(self, tags: str | list[str] | None) -> list[str]:
        given = [tags] if isinstance(tags, str) else list(tags or [])
        return list(dict.fromkeys([*given, *(getattr(self.model, "model_tags", None) or [])]))

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Upload model, tokenizer, card and metrics in one commit; the arguments are those of `Trainer.push_to_hub`.

        Args:
            commit_message: The commit's message.
            blocking: Wait until it is done.
            token: The token; by default that of the arguments, else of this machine.
            revision: The branch.
            private: Whether a repository that is made now is private.
            **kwargs: Passed to `create_model_card`.

        Returns:
            The commit, its future if not `blocking`, None on every process but the first.

        Raises:
            PessError: If a check fails (see the class), the Hub refuses or cannot be reached.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = token or self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)
        self._finish_current_push()
        # The card knows best: a recipe's record and `finetuned_from` went into it.
        base_model = ModelCard.load(Path(self.args.output_dir) / "README.md").data.get("base_model")
        files = self._checked_files(self.args.output_dir, base_model, token, self._row_texts())
        return self._upload(files, commit_message or "Upload", blocking, token, revision)

    def _checked_files(
        self, folder: str, base_model: str | None, token: str | None, texts: Iterable[str] | None
    ) -> dict[str, Content]:
        """What goes, looked at; without `texts` the tensors are not read."""
        files = public_files(folder, base_model)
        check_weights(folder, files, finite=texts is not None)
        allowed = "".join(template_text(kind) for kind in KINDS)
        known = KnownSentences([*predicted_texts(self.args.output_dir), *(texts or ())], allowed)
        check_texts(folder, files, known, token)
        return files

    def _row_texts(self) -> Iterator[str]:
        """Every text of the training rows, where these can be gone through again."""
        if hasattr(self.train_dataset, "__len__"):
            for row in self.train_dataset:
                yield from strings_in(row)

    def _upload(
        self, files: dict[str, Content], message: str, blocking: bool, token: str | None, revision: str | None
    ) -> Any:
        revision = revision or self.args.hub_revision
        settings: dict[str, Any] = {"token": token, "revision": revision, "stale": is_stale}
        if blocking:
            return upload_in_one_commit(str(self.hub_model_id), files, message, **settings)
        return HfApi().run_as_future(upload_in_one_commit, str(self.hub_model_id), files, message, **settings)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """As `Trainer` with `hub_strategy: every_save`, but the model and the tokenizer only.

        A failed check or upload is a warning: it shall not end the training, and the next save pushes again.
        """
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        running = self.push_in_progress
        if running is not None and not running.is_done() and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        try:
            files = self._checked_files(checkpoint_folder, _base_model(self), self.args.hub_token, None)
        except PessError as error:
            logger.warning("Step %d is not pushed: %s", self.state.global_step, error)
            return
        message = f"Training in progress, step {self.state.global_step}"
        job = self._upload(files, message, False, self.args.hub_token, None)
        job.add_done_callback(_warn_of_failure)
        running_jobs = [] if running is None else [old for old in running.jobs if not old.done()]
        jobs: Any = [*running_jobs, job]
        self.push_in_progress = PushInProgress(jobs)


def _warn_of_failure(job: Any) -> None:
    """`Trainer` never looks at what became of a push in the background."""
    error = None if job.cancelled() else job.exception()
    if error is not None:
        logger.warning("A push during training failed: %s", error)


def trainer_run(trainer: Any) -> RunFolder:
    """What the folder of a finished run would say about a trainer that no recipe started.

    Args:
        trainer: A `Trainer`.

    Returns:
        The model's config, the arguments, the numbers of the last evaluation, versions and hardware.

    Example:
        >>> render_model_card(trainer_run(trainer))  # doctest: +SKIP
    """
    measured: dict[str, float] = {}
    for entry in trainer.state.log_history:
        measured |= {name: value for name, value in entry.items() if name.startswith(("eval_", "before_pess_"))}
    arguments = flat_arguments([trainer.args]) | {"model_name_or_path": _base_model(trainer)}
    run: dict[str, Any] = {"arguments": arguments, "versions": installed_versions(), "hardware": hardware()}
    if hasattr(trainer.train_dataset, "__len__"):
        run["train_rows"] = len(trainer.train_dataset)
    model = trainer.accelerator.unwrap_model(trainer.model)
    config: Any = getattr(model, "config", None)
    is_adapter = bool(getattr(model, "peft_config", None))
    return RunFolder(
        path=Path(trainer.args.output_dir),
        config=config.to_dict() if hasattr(config, "to_dict") else {},
        adapter={"base_model_name_or_path": _base_model(trainer)} if is_adapter else {},
        metrics=measured,
        run=run,
        state={"global_step": trainer.state.global_step},
    )


def _is_recorded(folder: Path) -> bool:
    """Whether a recipe has left in the folder everything that a card is made from."""
    has = {name for name in ("config", "adapter_config", "run", "metrics") if (folder / f"{name}.json").exists()}
    return {"run", "metrics"} < has


def _base_model(trainer: Any) -> str | None:
    """The Hub id of the model that training started from; None for a local path."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = getattr(model, "name_or_path", None) or getattr(getattr(model, "config", None), "_name_or_path", None)
    return as_hub_id(name, near=Path(trainer.args.output_dir), bare=True)
