"""Kill training with SIGKILL at bad moments, go on from what is left, and compare the final weights.

Every run is a process of its own: a tiny extractor (full or LoRA, `rollout_steps` 1 or 8) or a tiny generator, 14
optimiser steps, two micro-batches each, a checkpoint every 3 steps, two kept, dropout on. A run is killed up to three
times, goes on each time from the newest whole checkpoint, and must end with the weights of a run that nobody
disturbed. The moments: anywhere; while a checkpoint is being written; inside a rollout window (generating, or between
its micro-batches). After some kills a file of the newest checkpoint is cut or deleted as well, as a full disk or a
lost page would do it; then the checkpoint before it must be taken.

    python benchmarks/crash_campaign.py --kills 24 --seed 0 --json runs/crash_campaign.json
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from crash_runs import FINAL, IN_WINDOW, MAX_STEPS, SAVED, SAVING, SETTINGS, Setting, run
from safetensors.numpy import load_file

from pess_hf.checkpoint_faults import checkpoint_fault
from pess_hf.checkpoint_manifest import read_manifest
from pess_hf.errors import PessError
from pess_hf.run_checkpoints import checkpoints, resolve_checkpoint

TOLERANCE = 1e-6
ANYWHERE, WRITING, WINDOW, DAMAGE = "anywhere", "checkpoint write", "rollout window", "damaged file"
# The server process imports these once; every run is a fork of it.
_PRELOAD = ["crash_runs", "peft", "pess_hf.trainer", "pess_hf.generator_args", "pess_hf.generator_trainer"]


@dataclass
class Kill:
    """One kill and what was found after it."""

    setting: str
    moment: str
    checkpoints: int
    found: str
    goes_on_from: str


@dataclass
class Finished:
    """One run that came to its end, killed or not."""

    setting: str
    kills: int
    difference: float


@dataclass
class Whole:
    """The undisturbed run of a setting: its weights and how long it and a write of a checkpoint took, in seconds."""

    weights: dict[str, np.ndarray]
    seconds: float
    write_seconds: float


@dataclass
class _Arguments:
    """What `resolve_checkpoint` reads of the training arguments."""

    output_dir: str
    world_size: int = 1
    process_index: int = 0


class Campaign:
    """Runs, kills and goes on.

    Args:
        folder: Where the runs are.
        seed: Of all that is drawn at random.
        settings: The ways of training.
    """

    def __init__(self, folder: Path, seed: int, settings: tuple[Setting, ...] = SETTINGS) -> None:
        self.folder, self.draw, self.settings = folder, random.Random(seed), settings
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(_PRELOAD)
        self.kills: list[Kill] = []
        self.finished: list[Finished] = []
        self.lost: list[str] = []
        self.whole: dict[str, Whole] = {}

    def run(self, kills: int) -> None:
        """Kill so often, the settings in turn, and let every run come to its end."""
        number = 0
        while len(self.kills) < kills:
            setting = self.settings[number % len(self.settings)]
            if setting.name not in self.whole:
                self.whole[setting.name] = self._undisturbed(setting)
            self._life(setting, self.folder / f"run-{number}", min(self.draw.randint(1, 3), kills - len(self.kills)))
            number += 1

    def _undisturbed(self, setting: Setting) -> Whole:
        folder = self.folder / "undisturbed" / setting.name
        start, writes = time.perf_counter(), [0.0]
        process, events = self._start(setting, folder, resume=False)
        for event, at in _events(events):
            if event == SAVING:
                writes.append(-at)
            elif event == SAVED:
                writes[-1] += at
        process.join()
        self._must_end_well(process, folder)
        return Whole(load_file(folder / FINAL), time.perf_counter() - start, max(writes))

    def _life(self, setting: Setting, folder: Path, kills: int) -> None:
        """One run, killed so often if it lasts, then left in peace and compared."""
        done = 0
        while True:
            process, events = self._start(setting, folder, resume=self._can_resume(folder))
            moment = self._moment(setting)
            if done < kills and self._kill(process, events, moment, setting, checkpoints(folder)):
                self._record(setting, folder, moment)
                done += 1
                continue
            collections.deque(_events(events), maxlen=0)
            process.join()
            break
        self._must_end_well(process, folder)
        self._compare(setting, folder, done)
        shutil.rmtree(folder)

    def _start(self, setting: Setting, folder: Path, resume: bool) -> tuple[Any, Connection]:
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=run, args=(setting, str(folder), resume, theirs), daemon=True)
        process.start()
        theirs.close()  # so that reading ends when the run does
        return process, ours

    def _can_resume(self, folder: Path) -> bool:
        """Whether there is a whole checkpoint; damaged ones alone are refused, and the run begins anew."""
        if not checkpoints(folder):
            return False
        try:
            resolve_checkpoint(True, _Arguments(str(folder)))
        except PessError:
            shutil.rmtree(folder)
            return False
        return True

    def _moment(self, setting: Setting) -> str:
        moments = [ANYWHERE, WRITING, DAMAGE] + [WINDOW] * bool(setting.rollout_steps)
        counts = collections.Counter(kill.moment for kill in self.kills if kill.setting == setting.name)
        fewest = min(counts[moment] for moment in moments)
        return self.draw.choice([moment for moment in moments if counts[moment] == fewest])

    def _kill(self, process: Any, events: Connection, moment: str, setting: Setting, there: list[Path]) -> bool:
        """Wait for the moment and kill; False if the run came to its end before."""
        whole = self.whole[setting.name]
        to_go = 1 - int(there[-1].name.rsplit("-", 1)[1]) / MAX_STEPS if there else 1.0
        event = {WRITING: SAVING, WINDOW: IN_WINDOW, DAMAGE: SAVED}.get(moment)
        delay = {WRITING: whole.write_seconds, WINDOW: 0.02, DAMAGE: 0.02}.get(moment, whole.seconds * to_go)
        left = self.draw.randint(1, 16) if event == IN_WINDOW else self.draw.randint(1, 2)
        left += event == SAVED and not there  # damage one of two
        if event is not None:
            for seen, _ in _events(events):
                left -= seen == event
                if not left:
                    break
            else:
                return False
        process.join(self.draw.uniform(0, delay))
        if process.exitcode is not None:
            return False
        process.kill()
        process.join()
        events.close()
        return True

    def _record(self, setting: Setting, folder: Path, moment: str) -> None:
        there = checkpoints(folder)
        before = [path for path in there if checkpoint_fault(path) is None]
        if moment == DAMAGE and len(before) > 1 and read_manifest(before[-1]):
            self._damage(before.pop())
        faults = [fault for fault in map(checkpoint_fault, there) if fault is not None]
        found = "no checkpoint" if not there else f"{len(there) - len(faults)} whole"
        found += f", damaged: {faults[-1]}" if faults else ""
        on = before[-1].name if before else "the start"
        if before:
            chosen = Path(resolve_checkpoint(True, _Arguments(str(folder)))).name
            if chosen != on:
                self.lost.append(f"{setting.name}: went on from {chosen}, expected {on}")
        self.kills.append(Kill(setting.name, moment, len(there), found, on))
        print(f"kill {len(self.kills):3}  {setting.name:22} {moment:17} {on:14} {found}", flush=True)

    def _damage(self, checkpoint: Path) -> None:
        """Cut a file of a checkpoint, or delete it."""
        path = self.draw.choice([checkpoint / name for name in sorted((read_manifest(checkpoint) or {})["files"])])
        if self.draw.random() < 0.5:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: self.draw.randrange(path.stat().st_size)])

    def _must_end_well(self, process: Any, folder: Path) -> None:
        if process.exitcode:
            tail = (folder / "log.txt").read_text(encoding="utf-8")[-2000:]
            raise SystemExit(f"error: a run ended with status {process.exitcode}: {tail}")

    def _compare(self, setting: Setting, folder: Path, kills: int) -> None:
        ours, theirs = load_file(folder / FINAL), self.whole[setting.name].weights
        if ours.keys() != theirs.keys():
            raise SystemExit(f"error: {setting.name}: the two runs have different weights.")
        difference = max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)
        self.finished.append(Finished(setting.name, kills, difference))
        if not difference <= TOLERANCE:
            self.lost.append(f"{setting.name}: the weights differ by {difference:.2g} after {kills} kills")


def _events(events: Connection) -> Any:
    """Events and when they came, until the run ends."""
    while True:
        try:
            yield events.recv_bytes(), time.perf_counter()
        except (EOFError, OSError):
            return


def table(campaign: Campaign) -> str:
    """The count as a Markdown table."""
    moments = (ANYWHERE, WRITING, WINDOW, DAMAGE)
    lines = [f"| setting | {' | '.join(moments)} | damaged checkpoint found | runs compared | largest difference |"]
    lines.append("| --- |" + " --- |" * (len(moments) + 3))
    for setting in campaign.settings:
        kills = [kill for kill in campaign.kills if kill.setting == setting.name]
        runs = [run for run in campaign.finished if run.setting == setting.name]
        counts = [sum(kill.moment == moment for kill in kills) for moment in moments]
        damaged = sum("damaged" in kill.found for kill in kills)
        largest = max((run.difference for run in runs), default=float("nan"))
        cells = [setting.name, *counts, damaged, len(runs), f"{largest:.1e}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(args: list[str] | None = None) -> None:
    """Run the campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=24, help="how often to kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the files that are damaged")
    parser.add_argument("--json", type=Path, help="where to write every kill and every comparison")
    parsed = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), parsed.seed)
        campaign.run(parsed.kills)
    print(f"\n{table(campaign)}\n")
    runs = len(campaign.finished)
    print(f"{len(campaign.kills)} kills, {runs} runs compared, {len(campaign.lost)} lost (seed {parsed.seed})")
    if parsed.json:
        from pess_hf.cli import write_json

        record = {"seed": parsed.seed, "kills": [asdict(kill) for kill in campaign.kills], "lost": campaign.lost}
        parsed.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(parsed.json, record | {"finished": [asdict(run) for run in campaign.finished]})
    if campaign.lost:
        print("\n".join(campaign.lost), file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
