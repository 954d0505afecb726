"""The result of a grid: one table as Markdown and JSON, one plot with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pess_hf.cli import atomic_write, write_json
from pess_hf.experiment import Run, Variant, seconds_of
from pess_hf.plots import Bar, plot_intervals
from pess_hf.run_predictions import Predictions, check_same_rows, read_predictions
from pess_hf.similarity import PersonaMatch, PersonaMatcher, match_sentences
from pess_hf.statistics import DialogueScores, paired_comparison, score_intervals, seed_interval
from pess_hf.text_metrics import bleu, distinct, rouge


@dataclass(frozen=True)
class Measured:
    """The runs of one setting under several seeds.

    Args:
        name: The setting's name.
        predictions: What each seed's run wrote.
    """

    name: str
    predictions: list[Predictions]

    def matches(self, matcher: PersonaMatcher) -> list[list[PersonaMatch]]:
        """Matches of each seed's run."""
        return [matcher.match(run.generated, run.reference) for run in self.predictions]


def read_variants(runs: Sequence[Run]) -> list[Measured]:
    """What the runs of a grid wrote, by variant, all on the same rows."""
    names = list(dict.fromkeys(run.variant.name for run in runs))
    measured = [
        Measured(name, [read_predictions(run.folder) for run in runs if run.variant.name == name]) for name in names
    ]
    check_same_rows([run for variant in measured for run in variant.predictions])
    return measured


def score_settings(
    settings: Sequence[Measured], encoder: str, thresholds: Sequence[float], resamples: int, one_to_one: bool = False
) -> list[dict[str, Any]]:
    """Measure some settings, the first of which the others are compared with.

    Args:
        settings: What was measured.
        encoder: The sentence encoder that matches: id or folder.
        thresholds: The matching thresholds.
        resamples: Of each bootstrap and permutation test.
        one_to_one: Whether a sentence meets one other at most.

    Returns:
        One entry a threshold: `encoder`, `threshold`, `one_to_one` and `settings`, a list with the scores of each.
    """
    matcher = PersonaMatcher(encoder)
    matches = [setting.matches(matcher) for setting in settings]
    reports = []
    for threshold in thresholds:
        scores = [
            DialogueScores.of(
                [_match_again(run, written, threshold, one_to_one) for run, written in zip(by_seed, of, strict=True)]
            )
            for by_seed, of in zip(matches, [setting.predictions for setting in settings], strict=True)
        ]
        entries = [
            _entry(setting.name, of_setting, scores[0] if number else None, resamples)
            for number, (setting, of_setting) in enumerate(zip(settings, scores, strict=True))
        ]
        reports.append({"encoder": encoder, "threshold": threshold, "one_to_one": one_to_one, "settings": entries})
    return reports


def _match_again(
    matches: list[PersonaMatch], run: Predictions, threshold: float, one_to_one: bool
) -> list[PersonaMatch]:
    pairs = zip(matches, run.generated, strict=True)
    return [match_sentences(match.similarity, generated, threshold, one_to_one) for match, generated in pairs]


def _entry(name: str, scores: DialogueScores, first: DialogueScores | None, resamples: int) -> dict[str, Any]:
    by_seed = scores.by_seed()
    entry: dict[str, Any] = {
        "name": name,
        "dialogues": scores.precision.shape[1],
        "seeds": scores.precision.shape[0],
        **scores.means(),
        "intervals": score_intervals(scores, resamples),
        "by_seed": by_seed,
        "f1_seed_interval": seed_interval(by_seed["f1"]),
    }
    if first is not None:
        entry["against_first"] = paired_comparison(first, scores, resamples)
        before = first.by_seed()["f1"]
        if len(before) == len(by_seed["f1"]):
            differences = [after - then for then, after in zip(before, by_seed["f1"], strict=True)]
            entry["f1_difference_by_seed"] = differences
            entry["f1_difference_seed_interval"] = seed_interval(differences)
    return entry


def text_scores(setting: Measured) -> dict[str, float]:
    """Overlap, variety and length of what a setting wrote, averaged over seeds; lengths in sentences a dialogue."""
    by_seed = [
        rouge(run.generated, run.reference)
        | bleu(run.generated, run.reference)
        | distinct(run.generated)
        | {"sentences": float(np.mean([len(persona) for persona in run.generated]))}
        for run in setting.predictions
    ]
    return {name: float(np.mean([scores[name] for scores in by_seed])) for name in by_seed[0]}


def write_report(
    folder: Path, title: str, runs: Sequence[Run], encoders: Sequence[str], thresholds: Sequence[float], resamples: int
) -> dict[str, Any]:
    """Measure a finished grid and write `results.json`, `results.md` and `f1.png` into its folder.

    Args:
        folder: The experiment's folder.
        title: Stands above table and plot.
        runs: All runs, finished.
        encoders: Sentence encoders that measure.
        thresholds: Thresholds that measure.
        resamples: Of each bootstrap and permutation test.

    Returns:
        What `results.json` holds.
    """
    settings = read_variants(runs)
    print(f"measuring {len(runs)} runs", flush=True)
    reports = [report for encoder in encoders for report in score_settings(settings, encoder, thresholds, resamples)]
    results: dict[str, Any] = {
        "title": title,
        "reports": reports,
        "text": {setting.name: text_scores(setting) for setting in settings},
        "seconds": {f"{run.variant.name}/seed-{run.seed}": seconds_of(run) for run in runs},
        "differs_in": {variant.name: variant.settings for variant in _variants(runs)},
        "common": runs[0].settings,
    }
    write_json(folder / "results.json", results)
    text = as_markdown(title, reports, results["text"])
    with atomic_write(folder / "results.md") as file:
        file.write(text)
    draw_f1(folder / "f1.png", reports[0], title)
    print(f"\n{text}\n{folder / 'results.md'}, results.json, f1.png")
    return results


def _variants(runs: Sequence[Run]) -> list[Variant]:
    return list({run.variant.name: run.variant for run in runs}.values())


def draw_f1(path: Path, report: dict[str, Any], title: str) -> None:
    """Draw F1 of each setting: thick over dialogues, thin over seeds, a dot for each seed."""
    bars = [
        Bar(entry["name"], entry["f1"], entry["intervals"]["f1"], entry["f1_seed_interval"], entry["by_seed"]["f1"])
        for entry in report["settings"]
    ]
    label = f"persona F1 at threshold {report['threshold']:g} (95 %: thick over dialogues, thin over seeds)"
    plot_intervals(path, bars, label, title)


def as_markdown(title: str, reports: Sequence[dict[str, Any]], text: dict[str, dict[str, float]]) -> str:
    """The tables of a report."""
    parts = [f"# {title}\n"]
    for report in reports:
        parts.append(_score_table(report))
    if text:
        names = list(next(iter(text.values())))
        rows = [[name, *(f"{scores[one]:.3f}" for one in names)] for name, scores in text.items()]
        parts.append("Overlap with the reference, variety, and sentences per dialogue, averaged over seeds:\n")
        parts.append(markdown_table(["setting", *names], rows))
    return "\n".join(parts)


def _score_table(report: dict[str, Any]) -> str:
    entries = report["settings"]
    dialogues, seeds = entries[0]["dialogues"], max(entry["seeds"] for entry in entries)
    matching = f"threshold {report['threshold']:g}{', one to one' if report['one_to_one'] else ''}"
    head = (
        f"{dialogues} dialogues, {seeds} seed{'s' * (seeds > 1)}, encoder `{report['encoder']}`, {matching}. "
        f"Intervals are 95 %; differences and p values are against `{entries[0]['name']}`, paired by dialogue.\n"
    )
    columns = ["setting", "precision", "recall", "F1", "F1, over dialogues", "F1, over seeds", "difference"]
    columns += ["over dialogues", "over seeds", "p"]
    return f"{head}\n{markdown_table(columns, [_score_row(entry) for entry in entries])}"


def _score_row(entry: dict[str, Any]) -> list[str]:
    row = [entry["name"], *(f"{entry[name]:.3f}" for name in ("precision", "recall", "f1"))]
    row += [shown_interval(entry["intervals"]["f1"]), shown_interval(entry["f1_seed_interval"])]
    if "against_first" not in entry:
        return [*row, "", "", "", ""]
    found = entry["against_first"]["f1"]
    over_seeds = shown_interval(entry.get("f1_difference_seed_interval"), sign="+")
    p_value = f"{found['p_value']:.4f}"
    return [*row, f"{found['difference']:+.3f}", shown_interval(found["interval"], sign="+"), over_seeds, p_value]


def shown_interval(interval: Sequence[float] | None, sign: str = "") -> str:
    """An interval in three decimals; nothing for None.

    Example:
        >>> shown_interval([0.1, 0.25])
        '0.100 to 0.250'
    """
    return "" if interval is None else f"{interval[0]:{sign}.3f} to {interval[1]:{sign}.3f}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, the first column left, the others right.

    Example:
        >>> print(markdown_table(["a", "b"], [["x", "1"]]), end="")
        | a | b |
        | --- | ---: |
        | x | 1 |
    """
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
