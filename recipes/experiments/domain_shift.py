"""Train in one domain, measure in others: scores where people wrote personas, grounding and stability everywhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pess_hf.arguments import Kind, given_settings
from pess_hf.cli import atomic_write, check_counts, prepare_output_dir, run_recipe, write_json, write_jsonl
from pess_hf.domains import Domain, extract_domain, measure_domain, persona_domain, support_domain
from pess_hf.errors import PessError
from pess_hf.experiment import Variant, launcher, plan_runs, run_grid
from pess_hf.experiment_args import Experiment, ExperimentArguments, read_experiment
from pess_hf.experiment_report import markdown_table, shown_interval
from pess_hf.extractor_args import ExtractorArguments, PersonaDataArguments
from pess_hf.plots import Bar, plot_intervals
from pess_hf.run_predictions import split_names
from pess_hf.similarity import PersonaMatcher
from pess_hf.training_fields import PESS_TRAINING

TRAINING = Path(__file__).parents[1] / "train_extractor.py"


@dataclass
class DomainShiftArguments(ExperimentArguments):
    """What to train on and measure on; every other setting is one of train_extractor.py and passed on to it."""

    train: list[str] | None = field(
        default=None, metadata={"help": "Training domains, NAME=SOURCE[,SOURCE...]; one model a domain and seed."}
    )
    models: list[str] | None = field(
        default=None, metadata={"help": "Extractors trained already, NAME=DIR[,DIR...]; a folder for each seed."}
    )
    measure: list[str] | None = field(
        default=None, metadata={"help": "Persona domains to measure on, NAME=SOURCE[,SOURCE...]."}
    )
    measure_split: str | None = field(default=None, metadata={"help": "Split of the measured sources with splits."})
    measure_fraction: float = field(
        default=1.0, metadata={"help": "Share of each persona domain that is measured; training never sees it."}
    )
    support: list[str] | None = field(
        default=None, metadata={"help": "Support domains, NAME=SOURCE[,SOURCE...]; only the seekers' turns are read."}
    )
    max_measured: int | None = field(default=None, metadata={"help": "Dialogues measured in each domain at most."})
    extraction_batch_size: int = field(default=32, metadata={"help": "Dialogues the models read at once."})

    def __post_init__(self) -> None:
        """Check what does not fit together."""
        super().__post_init__()
        check_counts(self, "max_measured", "extraction_batch_size")
        if not self.train and not self.models:
            raise PessError("train: expected it or models, found neither. Name a domain to train on, or a model.")
        if not self.measure and not self.support:
            raise PessError("measure: expected it or support, found neither. Name a domain to measure on.")
        if not 0 < self.measure_fraction <= 1:
            raise PessError(f"measure_fraction: expected a number in (0, 1], found {self.measure_fraction}.")
        shared = set(split_names(self.measure or [], "measure")) & set(split_names(self.support or [], "support"))
        shared |= set(split_names(self.train or [], "train")) & set(split_names(self.models or [], "models"))
        if shared:
            raise PessError(f"domains and models: expected each name once, found {min(shared)!r} twice.")


def main(args: list[str] | None = None) -> None:
    """Set the measured dialogues aside, train what is to be trained, measure every model on every domain."""
    words = with_stand_ins(sys.argv[1:] if args is None else args)
    experiment = read_experiment(DomainShiftArguments, words, __doc__, needs_test_rows=False)
    domains = read_domains(experiment.own)
    models = {**train_domains(experiment, domains), **split_names(experiment.own.models or [], "models")}
    write_report(experiment, models, measure_all(experiment, domains, models))


def with_stand_ins(words: Sequence[str]) -> list[str]:
    """The command line with what the training recipe asks for and this one has otherwise, or does not need."""
    types: list[Kind] = [DomainShiftArguments, ExtractorArguments, PersonaDataArguments, PESS_TRAINING]
    given = given_settings(types, words, __doc__)
    words = [*words]
    if "train_data" not in given:  # each domain brings its own
        words += ["--train_data", "none"]
    if "model_name_or_path" not in given and not given.get("train"):
        words += ["--model_name_or_path", "none"]
    return words


def measure_all(
    experiment: Experiment, domains: Sequence[Domain], models: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """One entry a model and domain."""
    own = experiment.own
    settings = {"batch_size": own.extraction_batch_size}
    if "max_source_length" in experiment.settings:
        settings["max_source_length"] = experiment.settings["max_source_length"]
    matcher = PersonaMatcher(own.report_encoders[0], own.report_thresholds[0])
    entries = []
    for name, dirs in models.items():
        folder = prepare_output_dir(experiment.folder / "personas" / name)
        for domain in domains:
            print(f"measuring {name} on {domain.name}, {len(domain.ids)} dialogues", flush=True)
            written = [
                extract_domain(one, domain, folder / f"{domain.name}-{number}.jsonl", **settings)
                for number, one in enumerate(dirs)
            ]
            figures = measure_domain(domain, written, matcher, own.resamples)
            entries.append({"model": name, "domain": domain.name, **figures})
    return entries


def read_domains(own: DomainShiftArguments) -> list[Domain]:
    """The dialogues that are measured."""
    seed = own.seeds[0]
    return [
        persona_domain(name, sources, own.measure_split, own.measure_fraction, seed, own.max_measured)
        for name, sources in split_names(own.measure or [], "measure").items()
    ] + [
        support_domain(name, sources, own.measure_split, own.max_measured)
        for name, sources in split_names(own.support or [], "support").items()
    ]


def train_domains(experiment: Experiment, domains: Sequence[Domain]) -> dict[str, list[str]]:
    """Train one model a domain and seed, without the rows that are measured; the folders by name."""
    named = split_names(experiment.own.train or [], "train")
    if not named:
        return {}
    settings = {name: value for name, value in experiment.settings.items() if name != "train_data"}
    files = write_measured(experiment.folder, domains)
    if files:
        settings["exclude_data"] = [*(settings.get("exclude_data") or []), *files]
    variants = [Variant(name, {"train_data": sources}) for name, sources in named.items()]
    runs = plan_runs(variants, experiment.own.seeds, settings, experiment.folder)
    run_grid(runs, launcher(TRAINING, experiment.own.jobs), experiment.own.jobs)
    return {name: [str(run.folder) for run in runs if run.variant.name == name] for name in named}


def write_measured(folder: Path, domains: Sequence[Domain]) -> list[str]:
    """The measured persona rows as files that training excludes."""
    files = []
    for domain in domains:
        if domain.reference is not None:
            file = prepare_output_dir(folder / "measured") / f"{domain.name}.jsonl"
            rows = zip(domain.ids, domain.utterances, domain.reference, strict=True)
            keys = ("dialogue_id", "utterances", "persona")
            write_jsonl(file, (dict(zip(keys, row, strict=True)) for row in rows))
            files.append(str(file))
    return files


def write_report(experiment: Experiment, models: dict[str, list[str]], entries: list[dict[str, Any]]) -> None:
    """Write table, figures and plot."""
    folder, own = experiment.folder, experiment.own
    about = {"encoder": own.report_encoders[0], "threshold": own.report_thresholds[0], "models": models}
    write_json(folder / "domain_shift.json", {**about, "results": entries})
    text = as_markdown(entries)
    with atomic_write(folder / "domain_shift.md") as file:
        file.write(text)
    scored = [entry for entry in entries if "f1" in entry]
    bars = [
        Bar(f"{entry['model']} on {entry['domain']}", entry["f1"], entry["intervals"]["f1"], None, entry["f1_by_seed"])
        for entry in scored
    ]
    if bars:
        plot_intervals(folder / "domain_shift.png", bars, "persona F1 (95 % over dialogues, a dot for each seed)")
    print(text)


def as_markdown(entries: Sequence[dict[str, Any]]) -> str:
    """One row a model and domain."""
    scores = ("precision", "recall", "f1")
    others = ("grounded", "grounding", "grounding_by_chance", "stable", "sentences")
    rows = [
        [
            *(entry["model"], entry["domain"], f"{entry['dialogues']} x {entry['seeds']}"),
            *(_shown(entry.get(name)) for name in scores),
            shown_interval(entry["intervals"].get("f1")),
            *(_shown(entry[name]) for name in others),
        ]
        for entry in entries
    ]
    columns = [
        "model",
        "domain",
        "dialogues x seeds",
        *scores,
        "F1, 95 %",
        *(name.replace("_", " ") for name in others),
    ]
    return markdown_table(columns, rows)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    run_recipe(main)
