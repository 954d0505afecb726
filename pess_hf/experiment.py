"""The machine of the experiments: a grid of settings and seeds, each run in a process of its own, restartable.

Runs of one seed are the same until the PESS terms switch on. So the first setting of a seed is trained whole and keeps
a checkpoint of that step, and every other setting that differs in PESS terms only goes on from it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pess_hf.cli import prepare_output_dir, write_json
from pess_hf.errors import PessError

#: Settings that change nothing before the PESS terms switch on.
PESS_SETTINGS = frozenset(
    {
        "completeness_weight",
        "consistency_weight",
        "consistency_temperature",
        "similarity_model",
        "similarity_threshold",
        "one_to_one_matching",
        "in_batch_negatives",
        "rollout_steps",
        "rollout_max_new_tokens",
        "rollout_batch_size",
    }
)
#: Where a run writes and begins: no part of what it is.
_PLACE = ("output_dir", "resume_from_checkpoint", "save_before_pess")
#: Training settings that the machine decides itself.
DECIDED = (*_PLACE, "seed", "save_strategy", "evaluate_before_pess", "push_to_hub")
SETTINGS, FINISHED, LOG = "settings.yaml", "finished.json", "train.log"
#: Runs the training recipe with a settings file, output to a log; returns its exit status.
Launch = Callable[[Path, Path], int]


@dataclass(frozen=True)
class Variant:
    """One setting of a grid.

    Args:
        name: Its name in tables and folders.
        settings: The training settings in which it differs from the grid's common ones.

    Example:
        >>> Variant("baseline", {"completeness_weight": 0.0, "consistency_weight": 0.0}).shares_first_phase
        True
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def shares_first_phase(self) -> bool:
        """Whether it is like the others until the PESS terms switch on."""
        return set(self.settings) <= PESS_SETTINGS


@dataclass(frozen=True)
class Run:
    """One setting under one seed.

    Args:
        variant: The setting.
        seed: The seed.
        folder: Where the run writes.
        settings: Everything the training recipe is told but where to go on from.
        has_first_phase: Whether the recipe has PESS terms, which switch on after a phase that runs may share.
    """

    variant: Variant
    seed: int
    folder: Path
    settings: dict[str, Any]
    has_first_phase: bool = True

    @property
    def is_finished(self) -> bool:
        """Whether it ended well."""
        return (self.folder / FINISHED).is_file()


def plan_runs(
    variants: Sequence[Variant],
    seeds: Sequence[int],
    common: dict[str, Any],
    folder: str | Path,
    has_first_phase: bool = True,
) -> list[Run]:
    """The runs of a grid, those of one variant together; `<folder>/<variant>/seed-<seed>`.

    Args:
        variants: The settings, the first of which lends the others its first phase.
        seeds: Training seeds.
        common: Training settings of all.
        folder: The experiment's folder.
        has_first_phase: Whether the runs train extractors; the generator's recipe has no PESS terms, and its runs keep
            the checkpoints that they are told to.

    Raises:
        PessError: A name or a seed comes twice, or a setting is one that the machine decides.

    Example:
        >>> [run.folder.as_posix() for run in plan_runs([Variant("full")], [1, 2], {}, "runs/x")]
        ['runs/x/full/seed-1', 'runs/x/full/seed-2']
    """
    for what, values in (("variants", [variant.name for variant in variants]), ("seeds", list(seeds))):
        if not values or len(set(values)) < len(values):
            raise PessError(f"{what}: expected one or more, each once, found {', '.join(map(str, values)) or 'none'}.")
    decided = DECIDED if has_first_phase else (*_PLACE, "seed", "push_to_hub")
    own = [name for name in decided if name in common]
    if own:
        raise PessError(f"{own[0]}: expected no such setting, the experiment decides it. Leave it out.")
    # A run's own checkpoints would fill the disk; measuring before the terms would be skipped where a run goes on.
    fixed = {"save_strategy": "no", "evaluate_before_pess": False} if has_first_phase else {}
    return [
        Run(variant, seed, run_folder, {**common, **fixed, **variant.settings, "seed": seed}, has_first_phase)
        for variant in variants
        for seed in seeds
        for run_folder in [Path(folder) / variant.name / f"seed-{seed}"]
    ]


def run_grid(runs: Sequence[Run], launch: Launch, jobs: int = 1) -> None:
    """Train what is not finished yet: the first variant of every seed, then all that go on from it.

    Args:
        runs: From `plan_runs`.
        launch: Starts the training recipe, see `launcher`.
        jobs: Runs at the same time.

    Raises:
        PessError: A run failed, or a folder holds a run with other settings. What is finished stays; start again to go
            on.

    Example:
        >>> run_grid(plan_runs([Variant("full")], [1], {}, "runs/x"), launcher("train_extractor.py"))  # doctest: +SKIP
    """
    first = {run.seed: run for run in reversed(runs) if run.variant.name == runs[0].variant.name}
    for run in runs:
        _check_folder(run)
    leaders = [run for run in runs if run is first[run.seed]]
    others = [run for run in runs if run is not first[run.seed]]
    progress = _Progress(len(runs))
    for wave in (leaders, others):
        pending = [run for run in wave if not progress.is_finished(run)]
        _run_all(pending, lambda run: _train(run, first[run.seed], launch, progress), jobs)


def launcher(recipe: str | Path, jobs: int = 1) -> Launch:
    """What starts a training recipe in a process of its own.

    Args:
        recipe: The script.
        jobs: Runs at the same time, which share the cores unless OMP_NUM_THREADS says otherwise.

    Returns:
        A function of settings file and log file that returns the exit status.

    Example:
        >>> launch = launcher("recipes/train_extractor.py", jobs=2)
    """
    return _start_process(recipe, str(max(1, (os.cpu_count() or 1) // jobs)))


def _start_process(recipe: str | Path, threads: str) -> Launch:
    environment = {"OMP_NUM_THREADS": threads} | os.environ | {"PYTHONUNBUFFERED": "1"}

    def launch(settings: Path, log: Path) -> int:
        command = [sys.executable, str(recipe), "--config", str(settings)]
        with log.open("a", encoding="utf-8") as output:
            return subprocess.run(command, env=environment, stdout=output, stderr=subprocess.STDOUT).returncode

    return launch


class _Progress:
    """Prints a line when a run starts, ends or is found finished."""

    def __init__(self, total: int) -> None:
        self.total, self.number = total, 0

    def is_finished(self, run: Run) -> bool:
        if run.is_finished:
            self.say(run, "was finished before")
        return run.is_finished

    def say(self, run: Run, what: str, ends: bool = True) -> None:
        self.number += ends
        print(f"[{self.number}/{self.total}] {run.variant.name}, seed {run.seed}: {what}", flush=True)


def _check_folder(run: Run) -> None:
    path = run.folder / SETTINGS
    if not path.is_file():
        return
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    if {name: value for name, value in before.items() if name not in _PLACE} != run.settings:
        raise PessError(
            f"{path}: expected the settings of this experiment, found others. Choose another --output_dir, or remove "
            "the folder to train anew."
        )


def _train(run: Run, first: Run, launch: Launch, progress: _Progress) -> None:
    prepare_output_dir(run.folder)
    checkpoint = _checkpoint(run, first)
    where: dict[str, Any] = {"output_dir": str(run.folder)}
    if run.has_first_phase:
        where["save_before_pess"] = run is first
    if checkpoint is not None:
        where["resume_from_checkpoint"] = str(checkpoint)
    path = run.folder / SETTINGS
    path.write_text(yaml.safe_dump({**run.settings, **where}, sort_keys=False), encoding="utf-8")
    goes_on = "" if checkpoint is None else f", from step {_step(checkpoint)}"
    progress.say(run, f"training{goes_on}; log: {run.folder / LOG}", ends=False)
    begin = time.monotonic()
    status = launch(path, run.folder / LOG)
    if status:
        raise PessError(
            f"{run.variant.name}, seed {run.seed}: the training ended with status {status}: {_last_line(run)} "
            f"See {run.folder / LOG}; start again to go on with what is left."
        )
    seconds = round(time.monotonic() - begin, 1)
    write_json(run.folder / FINISHED, {"seconds": seconds, "from_step": _step(checkpoint) if checkpoint else 0})
    progress.say(run, f"finished in {seconds:.0f} s")


def _checkpoint(run: Run, first: Run) -> Path | None:
    """Where a run goes on: its own checkpoint if it was interrupted, or the first phase that it shares."""
    own = _checkpoints(run.folder)
    if own:
        return own[-1]
    if run is first or not (run.variant.shares_first_phase and first.variant.shares_first_phase):
        return None
    shared = _checkpoints(first.folder)
    return shared[0] if shared else None


def _checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first; one that an interruption cut short is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=_step)
    for path in found:
        if not (path / "trainer_state.json").is_file():
            shutil.rmtree(path)
    return [path for path in found if path.is_dir()]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _last_line(run: Run) -> str:
    lines = (run.folder / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing.")


def _run_all(runs: Sequence[Run], train: Callable[[Run], None], jobs: int) -> None:
    """Train several runs at the same time; the first failure stops what has not begun."""
    has_failed = threading.Event()

    def unless_failed(run: Run) -> None:
        if has_failed.is_set():
            return
        try:
            train(run)
        except BaseException:
            has_failed.set()
            raise

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        waiting = [pool.submit(unless_failed, run) for run in runs]
        try:
            for done in as_completed(waiting):
                done.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def seconds_of(run: Run) -> float:
    """Wall-clock seconds of a finished run's training and measuring, the first phase only where it was its own."""
    return float(json.loads((run.folder / FINISHED).read_text(encoding="utf-8"))["seconds"])
