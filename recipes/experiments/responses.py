"""Do personas help the replies? No persona against the personas of several extractors, overall and by problem type."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pess_hf.arguments import Kind, given_settings
from pess_hf.cli import atomic_write, check_counts, prepare_output_dir, run_recipe, write_json
from pess_hf.data.support_examples import build_support_examples
from pess_hf.errors import PessError
from pess_hf.experiment import Variant, launcher, plan_runs, run_grid
from pess_hf.experiment_args import Experiment, GridArguments, read_experiment_of
from pess_hf.experiment_report import markdown_table, shown_interval
from pess_hf.generator_args import (
    GeneratorArguments,
    PersonaSourceArguments,
    SupportDataArguments,
    load_support_rows,
)
from pess_hf.late_arguments import LateArguments
from pess_hf.lora_args import LoraArguments
from pess_hf.plots import Bar, check_picture_path, plot_intervals
from pess_hf.run_predictions import find_runs, split_names
from pess_hf.similarity import PersonaMatcher, load_encoder

if TYPE_CHECKING:
    import datasets

    from pess_hf.reply_runs import ReplyRun
    from pess_hf.reply_scores import MeasuredRun

TRAINING = Path(__file__).parents[1] / "train_generator.py"
TRAINING_TYPES: tuple[Kind, ...] = (
    GeneratorArguments,
    PersonaSourceArguments,
    SupportDataArguments,
    LoraArguments,
    LateArguments("transformers:Seq2SeqTrainingArguments", "transformers' Seq2SeqTrainingArguments"),
)
#: The setting without personas.
NONE = "none"
_ALL = "all"
_NO_TYPE = "not given"


@dataclass
class ResponsesArguments(GridArguments):
    """What to train or measure; every other setting is one of train_generator.py and passed on to it."""

    extractors: list[str] | None = field(
        default=None,
        metadata={"help": "NAME=DIR: trains generators on this extractor's personas, and, as `none`, without any."},
    )
    runs: list[str] | None = field(
        default=None, metadata={"help": "Generators trained already, NAME=RUN[,RUN...]; a run folder for each seed."}
    )
    min_dialogues: int = field(
        default=10, metadata={"help": "Problem types with fewer conversations are counted, and not scored."}
    )

    def __post_init__(self) -> None:
        """Check what does not fit together."""
        super().__post_init__()
        check_counts(self, "min_dialogues")
        trained = split_names(self.extractors or [], "extractors")
        if not trained and not self.runs:
            raise PessError("extractors: expected it or runs, found neither. Name an extractor, or a finished run.")
        several = [name for name, dirs in trained.items() if len(dirs) > 1]
        if several:
            raise PessError(f"extractors: expected one folder for {several[0]!r}, found several. Name each one apart.")
        names = [*([NONE] if trained else []), *trained, *split_names(self.runs or [], "runs")]
        twice = [name for name, number in Counter(names).items() if number > 1]
        if twice:
            raise PessError(f"extractors and runs: expected each name once, found {twice[0]!r} twice.")


def main(args: list[str] | None = None) -> None:
    """Train what is to be trained, then measure every run on the turns that all of them answered."""
    words = with_stand_ins(sys.argv[1:] if args is None else args)
    experiment = read_experiment_of(TRAINING_TYPES, ResponsesArguments, words, __doc__)
    _, _, data_args, _, training_args = experiment.training
    if not data_args.test_data:
        raise PessError("test_data: expected the conversations to measure on, found none. Name it.")
    check_picture_path(experiment.folder / "responses.png")
    folders = {**train_all(experiment), **split_names(experiment.own.runs or [], "runs")}
    rows = load_support_rows(data_args.test_data, data_args.test_split)
    runs = read_runs(folders)
    matcher = PersonaMatcher(load_encoder(data_args.similarity_model))
    batch_size = training_args.per_device_eval_batch_size
    measured, is_same = measure_all(experiment.folder, runs, rows, matcher, batch_size)
    write_report(experiment, runs, is_same, score_types(experiment.own, runs, measured, rows))


def with_stand_ins(words: Sequence[str]) -> list[str]:
    """The command line with what the training recipe asks for and this one decides itself, or does not need."""
    given = given_settings([ResponsesArguments, *TRAINING_TYPES], words, __doc__)
    if given.get("extractor") is not None:
        raise PessError("extractor: expected no such setting here, found one. Name it among the extractors: NAME=DIR.")
    if "persona_source" in given and given.get("extractors"):
        print("persona_source is replaced by each of the settings")
    words = [*words, "--persona_source", NONE]
    if not given.get("extractors"):
        words += [] if "train_data" in given else ["--train_data", "none"]
        begins = {"model_name_or_path", "backbone_config"} & set(given)
        words += [] if begins else ["--model_name_or_path", "none"]
    return words


def train_all(experiment: Experiment) -> dict[str, list[str]]:
    """Train a generator for each extractor and one without, under every seed; the folders by name."""
    named = split_names(experiment.own.extractors or [], "extractors")
    if not named:
        return {}
    variants = [Variant(NONE, {"persona_source": NONE})]
    variants += [Variant(name, {"persona_source": "inferred", "extractor": dirs[0]}) for name, dirs in named.items()]
    own = experiment.own
    runs = plan_runs(variants, own.seeds, experiment.settings, experiment.folder, has_first_phase=False)
    run_grid(runs, launcher(TRAINING, own.jobs), own.jobs)
    return {one.name: [str(run.folder) for run in runs if run.variant is one] for one in variants}


def read_runs(folders: dict[str, list[str]]) -> dict[str, list[ReplyRun]]:
    """The runs by name, all on the same turns."""
    from pess_hf.reply_runs import check_same_turns, read_reply_run

    runs = {name: [read_reply_run(run) for run in find_runs(given)] for name, given in folders.items()}
    check_same_turns([run for of_name in runs.values() for run in of_name])
    return runs


def measure_all(
    folder: Path,
    runs: dict[str, list[ReplyRun]],
    rows: datasets.Dataset,
    matcher: PersonaMatcher,
    batch_size: int,
) -> tuple[dict[str, list[MeasuredRun]], bool]:
    """Every run, reply by reply, and whether all have the same target tokens.

    Where tokenizers differ, so do the numbers of tokens, and perplexities would not compare: then the first run's
    stand under every likelihood.
    """
    from pess_hf.reply_runs import answered_examples, reply_likelihood
    from pess_hf.reply_scores import measure_run, persona_sources

    every = build_support_examples(rows)
    examples = {name: [answered_examples(run, every) for run in of_name] for name, of_name in runs.items()}
    file = prepare_output_dir(folder / "likelihood")
    likelihoods = {}
    for name, of_name in runs.items():
        for number, run in enumerate(of_name):
            print(f"measuring {name}, {run.path}, {len(run.places)} replies", flush=True)
            of_run = examples[name][number]
            likelihoods[run.path] = reply_likelihood(run, of_run, file / f"{name}-{number}.json", batch_size)
    tokens = next(iter(likelihoods.values()))[1]
    is_same = all((counts == tokens).all() for _, counts in likelihoods.values())
    if not is_same:
        print("the runs' tokenizers differ: perplexity is taken per token of the first run")
    personas = persona_sources(runs)
    measured = {
        name: [measure_run(run, (likelihoods[run.path][0], tokens), personas, matcher) for run in of_name]
        for name, of_name in runs.items()
    }
    return measured, is_same


def score_types(
    own: ResponsesArguments,
    runs: dict[str, list[ReplyRun]],
    measured: dict[str, list[MeasuredRun]],
    rows: datasets.Dataset,
) -> list[dict[str, Any]]:
    """One entry for all conversations and one a problem type, the most frequent first; rare ones without scores."""
    from pess_hf.reply_scores import score_group

    first = next(iter(runs.values()))[0]
    by_dialogue: dict[str, list[int]] = {}
    for row, (dialogue_id, _) in enumerate(first.places):
        by_dialogue.setdefault(dialogue_id, []).append(row)
    types = dict(zip(rows["dialogue_id"], rows["problem_type"], strict=True))
    groups: dict[str, list[list[int]]] = {}
    for dialogue_id, of_dialogue in by_dialogue.items():
        groups.setdefault(types[dialogue_id] or _NO_TYPE, []).append(of_dialogue)
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    entries = []
    for name, conversations in [(_ALL, list(by_dialogue.values())), *ordered]:
        counts = {"conversations": len(conversations), "replies": sum(map(len, conversations))}
        is_scored = name == _ALL or len(conversations) >= own.min_dialogues
        print(f"scoring {name}, {len(conversations)} conversations", flush=True)
        settings = score_group(measured, conversations, own.resamples) if is_scored else None
        entries.append({"problem_type": name, **counts, "settings": settings})
    return entries


def write_report(
    experiment: Experiment, runs: dict[str, list[ReplyRun]], is_same: bool, entries: list[dict[str, Any]]
) -> None:
    """Write tables, figures and plot."""
    folder, own = experiment.folder, experiment.own
    about = {
        "runs": {name: [str(run.path) for run in of_name] for name, of_name in runs.items()},
        "min_dialogues": own.min_dialogues,
        "similarity_model": experiment.training[2].similarity_model,
        "same_tokens": is_same,
    }
    write_json(folder / "responses.json", {**about, "results": entries})
    text = as_markdown(entries, own.min_dialogues, is_same)
    with atomic_write(folder / "responses.md") as file:
        file.write(text)
    bars = [
        Bar(f"{entry['problem_type']}: {one['name']}", found["value"], found["interval"], None, found["by_seed"])
        for entry in entries
        for one in entry["settings"] or []
        for found in [one["scores"]["perplexity"]]
    ]
    plot_intervals(folder / "responses.png", bars, "perplexity (95 % over conversations, a dot for each seed)")
    print(f"\n{text}\n{folder / 'responses.md'}, responses.json, responses.png")


def as_markdown(entries: Sequence[dict[str, Any]], min_dialogues: int, is_same: bool) -> str:
    """The scores, then each one with its interval and its difference from the first setting."""
    names = list(entries[0]["settings"][0]["scores"])
    first = entries[0]["settings"][0]["name"]
    head = (
        f"# Replies by problem type\n\n{entries[0]['conversations']} conversations, {entries[0]['replies']} replies. "
        f"Types with fewer than {min_dialogues} conversations are counted, and not scored."
        f"{'' if is_same else f' Tokenizers differ: perplexity is per token of `{first}`.'}\n\n"
    )
    columns = ["problem type", "conversations", "replies", "setting", "seeds", *(_shown(name) for name in names)]
    middle = (
        f"\nIntervals are 95 %; differences and p values are against `{first}`, paired by conversation. The lower the "
        "perplexity the better; of all others more is better.\n\n"
    )
    rows = [row for entry in entries for row in _score_rows(entry, names, min_dialogues)]
    return head + markdown_table(columns, rows) + middle + _interval_table(entries)


def _score_rows(entry: dict[str, Any], names: Sequence[str], min_dialogues: int) -> list[list[str]]:
    start = [entry["problem_type"], str(entry["conversations"]), str(entry["replies"])]
    if entry["settings"] is None:
        return [[*start, f"fewer than {min_dialogues}", "", *("" for _ in names)]]
    return [
        [*start, one["name"], str(one["seeds"]), *(_number(name, one["scores"].get(name)) for name in names)]
        for one in entry["settings"]
    ]


def _number(name: str, found: dict[str, Any] | None) -> str:
    return "" if found is None else f"{found['value']:{'.2f' if name == 'perplexity' else '.3f'}}"


def _shown(name: str) -> str:
    return name.replace("bleu_", "BLEU-").replace("rouge_l", "ROUGE-L").replace("_", " ")


def _interval_table(entries: Sequence[dict[str, Any]]) -> str:
    rows = []
    for entry in entries:
        settings = entry["settings"] or []
        for name in settings[0]["scores"] if settings else ():
            found = [(one["name"], one["scores"][name]) for one in settings]
            start = [entry["problem_type"], _shown(name)]
            # Distinct has no interval.
            rows += [[*start, setting, *_interval_cells(name, of)] for setting, of in found if "interval" in of]
    columns = ["problem type", "score", "setting", "value", "over conversations", "over seeds"]
    return markdown_table([*columns, "difference", "over conversations", "p"], rows)


def _interval_cells(name: str, found: dict[str, Any]) -> list[str]:
    cells = [_number(name, found), shown_interval(found["interval"]), shown_interval(found["seed_interval"])]
    against = found.get("against_first")
    if against is None:
        return [*cells, "", "", ""]
    difference = f"{against['difference']:+.3f}"
    return [*cells, difference, shown_interval(against["interval"], "+"), f"{against['p_value']:.4f}"]


if __name__ == "__main__":
    run_recipe(main)
