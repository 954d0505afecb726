"""Stated or only implied: recall of human-written sentences by how far they stand in the dialogue; and contradictions.

For runs that are trained already, such as those with and without the completeness or the consistency term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from pess_hf.arguments import parse_recipe_args
from pess_hf.cli import atomic_write, check_counts, prepare_output_dir, run_recipe, write_json
from pess_hf.contradiction import contradicting_sentences, contradiction_scorer
from pess_hf.data import load_persona_dataset
from pess_hf.errors import PessError
from pess_hf.evidence import evidence_overlap, evidence_similarity
from pess_hf.experiment_report import Measured, markdown_table, shown_interval
from pess_hf.plots import Bar, plot_intervals
from pess_hf.run_predictions import Predictions, check_same_rows, find_runs, read_predictions, split_names
from pess_hf.similarity import DEFAULT_ENCODER, DEFAULT_THRESHOLD, PersonaMatch, PersonaMatcher
from pess_hf.statistics import Shares, compare_shares

#: Bounds of the similarity between a human-written sentence and what was said, lowest first.
BINS = (-1.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.01)


@dataclass
class ImplicitArguments:
    """Which runs, the dialogues they were measured on, and where the lines are drawn."""

    runs: list[str] = field(
        metadata={"help": "NAME=RUN[,RUN...], a run folder for each seed; the others compare with the first."}
    )
    data: list[str] = field(metadata={"help": "Persona sources that hold the runs' test rows."})
    output_dir: str = field(metadata={"help": "Folder for table, figures and plot."})
    split: str | None = field(default=None, metadata={"help": "Split of the sources that have splits."})
    encoder: str = field(default=DEFAULT_ENCODER, metadata={"help": "Sentence encoder that matches."})
    threshold: float = field(default=DEFAULT_THRESHOLD, metadata={"help": "Matching cosine."})
    stated_similarity: float = field(
        default=0.6, metadata={"help": "A sentence is stated if the cosine with one that was said reaches this,"}
    )
    stated_overlap: float = field(
        default=0.6, metadata={"help": "or the share of its content words in one that was said reaches this."}
    )
    scorer: str | None = field(
        default=None,
        metadata={"help": "What finds contradictions: an encoder of train_similarity.py or an NLI cross-encoder."},
    )
    scorer_threshold: float | None = field(
        default=None,
        metadata={
            "help": "Encoder: below this cosine a like sentence contradicts, by default what it was calibrated for; "
            "cross-encoder: from this probability of contradiction on, by default 0.5."
        },
    )
    resamples: int = field(default=2000, metadata={"help": "Of each bootstrap and permutation test."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_counts(self, "resamples")
        for name in ("threshold", "stated_similarity"):
            if not -1 <= getattr(self, name) <= 1:
                raise PessError(f"{name}: expected a number in [-1, 1], found {getattr(self, name)}.")
        if not 0 <= self.stated_overlap <= 1:
            raise PessError(f"stated_overlap: expected a number in [0, 1], found {self.stated_overlap}.")


def main(args: list[str] | None = None) -> None:
    """Find what is stated, then count what each run recalls of it and what it contradicts."""
    (parsed,) = parse_recipe_args(ImplicitArguments, args, __doc__)
    folder = prepare_output_dir(parsed.output_dir)
    settings = read_settings(parsed)
    first = settings[0].predictions[0]
    utterances = find_utterances(parsed, first)
    matcher = PersonaMatcher(parsed.encoder, parsed.threshold)
    scorer = None if parsed.scorer is None else contradiction_scorer(parsed.scorer, parsed.scorer_threshold, matcher)
    print(f"looking for {sum(map(len, first.reference))} sentences in {len(first.ids)} dialogues", flush=True)
    similarity = evidence_similarity(first.reference, utterances, matcher)
    kinds = sentence_kinds(parsed, similarity, evidence_overlap(first.reference, utterances))
    matches = {setting.name: setting.matches(matcher) for setting in settings}
    tables = [recall_table(parsed, name, kind, matches) for name, kind in kinds.items()]
    if scorer is not None:
        tables.append(contradiction_table(parsed, settings, matches, *scorer))
    write_json(folder / "implicit.json", {"settings": vars(parsed), "tables": tables})
    text = as_markdown(tables)
    with atomic_write(folder / "implicit.md") as file:
        file.write(text)
    draw(folder / "implicit.png", tables[:2])
    print(text)


def read_settings(args: ImplicitArguments) -> list[Measured]:
    """The runs by name, all on the same rows."""
    settings = [
        Measured(name, [read_predictions(run) for run in find_runs(given)])
        for name, given in split_names(args.runs, "runs").items()
    ]
    check_same_rows([run for setting in settings for run in setting.predictions])
    return settings


def find_utterances(args: ImplicitArguments, run: Predictions) -> list[list[str]]:
    """What was said in each test row of a run."""
    rows = load_persona_dataset(args.data, args.split)
    by_id = {row["dialogue_id"]: row for row in rows}
    for name, reference in zip(run.ids, run.reference, strict=True):
        if name not in by_id:
            raise PessError(f"data: expected the test rows of {run.path}, found no dialogue_id {name!r}. Name more.")
        if by_id[name]["persona"] != reference:
            raise PessError(f"data: dialogue_id {name!r} has another persona than in {run.path}. Name the same files.")
    return [by_id[name]["utterances"] for name in run.ids]


def sentence_kinds(
    args: ImplicitArguments, similarity: list[np.ndarray], overlap: list[np.ndarray]
) -> dict[str, list[np.ndarray]]:
    """Kinds of human-written sentences, each with a mask for every dialogue."""
    stated = [
        (cosines >= args.stated_similarity) | (shares >= args.stated_overlap)
        for cosines, shares in zip(similarity, overlap, strict=True)
    ]
    kinds = {"stated": stated, "implied": [~mask for mask in stated]}
    for low, high in pairwise(BINS):
        kinds[f"cosine {low:.1f} to {min(high, 1):.1f}"] = [(low <= one) & (one < high) for one in similarity]
    return kinds


def recall_table(
    args: ImplicitArguments, name: str, kind: list[np.ndarray], matches: dict[str, list[list[PersonaMatch]]]
) -> dict[str, Any]:
    """Recall of the sentences of one kind under each setting, over all seeds."""
    shares = {}
    for setting, by_seed in matches.items():
        hits, counts = np.zeros(len(kind)), np.zeros(len(kind))
        for of_seed in by_seed:
            for row, (mask, match) in enumerate(zip(kind, of_seed, strict=True)):
                hits[row] += mask.sum() - mask[match.missing].sum()
                counts[row] += mask.sum()
        shares[setting] = Shares(hits, counts)
    sentences = int(sum(mask.sum() for mask in kind))
    return {"table": f"recall, {name}", "sentences": sentences, "settings": _shares(args, shares)}


def contradiction_table(
    args: ImplicitArguments,
    settings: Sequence[Measured],
    matches: dict[str, list[list[PersonaMatch]]],
    scorer: Any,
    threshold: float,
) -> dict[str, Any]:
    """Share of the generated sentences, repeated ones once, that contradict the reference by the scorer."""
    shares = {}
    sentences = 0
    for setting in settings:
        hits, counts = np.zeros(len(setting.predictions[0].ids)), np.zeros(len(setting.predictions[0].ids))
        for of_seed, run in zip(matches[setting.name], setting.predictions, strict=True):
            found = contradicting_sentences(scorer, run.generated, run.reference, threshold)
            for row, (match, contradicting) in enumerate(zip(of_seed, found, strict=True)):
                distinct = {*match.consistent, *match.inconsistent}
                counts[row] += len(distinct)
                hits[row] += len(distinct & {*contradicting})
        shares[setting.name] = Shares(hits, counts)
        sentences += int(counts.sum())
    return {"table": "generated that contradict", "sentences": sentences, "settings": _shares(args, shares)}


def _shares(args: ImplicitArguments, shares: dict[str, Shares]) -> list[dict[str, Any]]:
    first, *_ = shares.values()
    entries = []
    for name, share in shares.items():
        entry: dict[str, Any] = {"name": name, "share": share.share, "interval": share.interval(args.resamples)}
        if share is not first:
            entry["against_first"] = compare_shares(first, share, args.resamples)
        entries.append(entry)
    return entries


def as_markdown(tables: Sequence[dict[str, Any]]) -> str:
    """All tables as one."""
    rows = []
    for table in tables:
        for entry in table["settings"]:
            found = entry.get("against_first") or {}
            shown = "" if entry["share"] is None else f"{entry['share']:.3f}"
            row = [table["table"], str(table["sentences"]), entry["name"], shown, shown_interval(entry["interval"])]
            difference = [f"{found['difference']:+.3f}", shown_interval(found["interval"], "+")] if found else ["", ""]
            rows.append([*row, *difference, f"{found['p_value']:.4f}" if found else ""])
    columns = ["what", "sentences", "setting", "share", "95 % over dialogues", "difference", "95 %", "p"]
    return markdown_table(columns, rows)


def draw(path: Any, tables: Sequence[dict[str, Any]]) -> None:
    """Draw recall of stated and of implied sentences."""
    bars = [
        Bar(f"{table['table'].removeprefix('recall, ')}: {entry['name']}", entry["share"], entry["interval"])
        for table in tables
        for entry in table["settings"]
        if entry["share"] is not None
    ]
    plot_intervals(path, bars, "recall of human-written sentences (95 % over dialogues)")


if __name__ == "__main__":
    run_recipe(main)
