"""What two processes do, written down by the first for tests/test_two_processes.py; one launch for all of it.

Usage, by the launcher: checks.py FOLDER. Every function is called by both processes. The last thing that happens is
an error of the second process alone.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import torch  # noqa: E402
from accelerate import PartialState  # noqa: E402
from accelerate.utils import gather_object  # noqa: E402
from runs_to_compare import (  # noqa: E402
    evaluated,
    generator_measured,
    grouped_by_length,
    poisoned_message,
    rollouts_by_row,
    trained,
)
from safetensors.torch import save_file  # noqa: E402
from sharded import sharded_is_like_whole  # noqa: E402

from pess_hf import PessError  # noqa: E402
from pess_hf.cli import run_recipe  # noqa: E402
from pess_hf.extractor_args import PersonaDataArguments, load_splits  # noqa: E402


def same_on_all(value):
    """The value, if every process has it."""
    everywhere = gather_object([value])
    assert all(other == everywhere[0] for other in everywhere), everywhere
    return value


def weights_of(trainer):
    """Weights after training, if they are the same to the last bit on both processes."""
    weights = {name: weight.detach().clone() for name, weight in trainer.model.state_dict().items()}
    for weight in weights.values():
        everywhere = gathered(weight)
        assert torch.equal(everywhere[0], everywhere[1])
    return weights


def gathered(weight):
    parts = [torch.empty_like(weight) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, weight.contiguous())
    return parts


def main():
    folder, world = Path(sys.argv[1]), PartialState(cpu=True).num_processes
    found = {"world": world, "ranks": gather_object([PartialState().process_index])}
    logs = {}
    for terms in ("plain", "pess"):
        for steps in (1, 2, 4):
            trainer = trained(folder / "out", terms, world, steps)
            logs[f"{terms}-{steps}"] = same_on_all(trainer.logged)
            weights = weights_of(trainer)
            if PartialState().is_main_process:
                save_file({n: w.contiguous() for n, w in weights.items()}, folder / f"{terms}-{steps}.safetensors")
    found["logs"] = logs
    found["rollouts"] = gather_object([rollouts_by_row(folder / "out", world)])
    found["evaluated"] = {name: same_on_all(evaluated(folder / "out", *name.split("-"))) for name in ("9-2", "3-4")}
    found["generator"] = same_on_all(generator_measured(folder / "out", world))
    splits = load_splits(PersonaDataArguments(train_data=[str(folder / "rows.jsonl")], held_out_fraction=0.3))
    found["held_out"] = same_on_all(list(splits.test["dialogue_id"]))
    found["poisoned"] = {
        kind: same_on_all(poisoned_message(folder / "out", kind, world)) for kind in ("row", "gradient")
    }
    grouped = grouped_by_length(folder / "out", world)
    weights = weights_of(grouped)
    if PartialState().is_main_process:
        save_file({n: w.contiguous() for n, w in weights.items()}, folder / "grouped.safetensors")
    found["grouped"] = gather_object([grouped.seen])
    found["sharded"] = gather_object([sharded_is_like_whole()])
    if PartialState().is_main_process:
        (folder / "found.json").write_text(json.dumps(found))
    PartialState().wait_for_everyone()
    if PartialState().process_index == 1:
        raise PessError("the second process: expected a file, found none.")
    PartialState().wait_for_everyone()  # the second process never comes


if __name__ == "__main__":
    run_recipe(main)
