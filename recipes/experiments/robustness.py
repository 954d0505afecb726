"""How far matching and extraction move when sentences are paraphrased, negated, swapped or drift: table and plot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pess_hf.arguments import parse_recipe_args
from pess_hf.calibration import resolve_threshold
from pess_hf.cli import check_counts, prepare_output_dir, run_recipe, write_json
from pess_hf.data import load_persona_dataset
from pess_hf.data.subset import first_rows
from pess_hf.errors import PessError
from pess_hf.experiment_report import markdown_table
from pess_hf.floor import first_person_sentences
from pess_hf.paraphraser import write_paraphrases
from pess_hf.perturbation import RULES, drift, perturb
from pess_hf.plots import check_picture_path
from pess_hf.score_plots import plot_lines
from pess_hf.similarity import DEFAULT_ENCODER, PersonaMatcher, persona_scores

Extract = Callable[[list[list[str]]], list[list[str]]]
_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass
class RobustnessArguments:
    """Which rows, which matcher, which extractor."""

    data: list[str] = field(metadata={"help": "Persona sources: 'sample', files, folders or Hub ids."})
    output_dir: str = field(metadata={"help": "Folder for robustness.json, table.md and drift.png."})
    split: str | None = field(default=None, metadata={"help": "Split of the sources that have splits."})
    model: str = field(
        default="first-person", metadata={"help": "Extractor: Hub id or folder; 'first-person' for the floor."}
    )
    similarity_model: str = field(default=DEFAULT_ENCODER, metadata={"help": "Encoder or NLI model that matches."})
    similarity_threshold: float = field(
        default=None,  # type: ignore[assignment]  # a number once `__post_init__` has run
        metadata={"help": "Matching similarity in [-1, 1]; by default what the encoder was calibrated for."},
    )
    paraphraser: str | None = field(
        default=None, metadata={"help": "Sequence-to-sequence model that paraphrases as well: Hub id or folder."}
    )
    max_rows: int | None = field(default=None, metadata={"help": "Use only so many rows."})
    batch_size: int = field(
        default=32, metadata={"help": "Dialogues extracted from, or sentences paraphrased, at once."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of the rules."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        self.similarity_threshold = resolve_threshold(self.similarity_model, self.similarity_threshold)
        check_counts(self, "max_rows", "batch_size")
        if not -1 <= self.similarity_threshold <= 1:
            raise PessError(f"similarity_threshold: expected a number in [-1, 1], found {self.similarity_threshold}.")


def main(args: list[str] | None = None) -> None:
    """Read, perturb, match, extract, write."""
    (parsed,) = parse_recipe_args(RobustnessArguments, args, __doc__)
    folder = prepare_output_dir(parsed.output_dir)
    check_picture_path(folder / "drift.png")
    rows = first_rows(load_persona_dataset(parsed.data, parsed.split), parsed.max_rows)
    personas, dialogues = list(rows["persona"]), list(rows["utterances"])
    matcher = PersonaMatcher(parsed.similarity_model, parsed.similarity_threshold)
    rules: dict[str, Any] = {kind: partial(perturb, kind=kind, seed=parsed.seed) for kind in RULES}
    if parsed.paraphraser is not None:
        rules["paraphraser"] = partial(write_paraphrases, model=parsed.paraphraser, batch_size=parsed.batch_size)
    extract = make_extract(parsed)
    before = extract(dialogues)

    results: dict[str, Any] = {"rows": len(rows), "matching": {}, "extraction": {}, "drift": {}}
    for kind, rule in rules.items():
        results["matching"][kind] = sentence_shift(matcher, personas, rule)
        changed = [_applied(rule, dialogue) for dialogue in dialogues]
        results["extraction"][kind] = extraction_shift(matcher, before, extract(changed), personas)
        print(f"{kind}: {results['matching'][kind]} {results['extraction'][kind]}")
    for level in _LEVELS:
        results["drift"][f"{level:g}"] = drift_shift(matcher, personas, dialogues, before, extract, level, parsed.seed)
    write_json(folder / "robustness.json", results)
    (folder / "table.md").write_text(table(results), encoding="utf-8")
    draw(folder / "drift.png", results["drift"])


def make_extract(args: RobustnessArguments) -> Extract:
    """What writes a persona for each dialogue."""
    if args.model == "first-person":
        return lambda dialogues: [first_person_sentences(dialogue) for dialogue in dialogues]
    from pess_hf.checkpoint import open_tokenizer
    from pess_hf.modeling_extractor import AutoPessExtractor

    model, tokenizer = AutoPessExtractor.from_pretrained(args.model), open_tokenizer(args.model)
    return lambda dialogues: model.extract(dialogues, tokenizer, batch_size=args.batch_size)


def _applied(rule: Any, sentences: list[str]) -> list[str]:
    return [new or old for old, new in zip(sentences, rule(sentences), strict=True)]


def sentence_shift(matcher: PersonaMatcher, personas: list[list[str]], rule: Any) -> dict[str, float | None]:
    """Persona sentences against their changed selves, those that the rule changed alone.

    Returns:
        `sentences`, the share `changed`, and of those the mean `similarity` and the share still `matched`.
    """
    sentences = list(dict.fromkeys(sentence for persona in personas for sentence in persona))
    pairs = [(old, new) for old, new in zip(sentences, rule(sentences), strict=True) if new is not None]
    matches = matcher.match([[new] for _, new in pairs], [[old] for old, _ in pairs])
    values = np.array([match.similarity[0, 0] for match in matches])
    share = len(pairs) / len(sentences) if sentences else 0.0
    shift = {
        "similarity": float(values.mean()) if pairs else None,
        "matched": float((values >= matcher.threshold).mean()) if pairs else None,
    }
    return {"sentences": len(sentences), "changed": share, **shift}


def extraction_shift(
    matcher: PersonaMatcher, before: list[list[str]], after: list[list[str]], reference: list[list[str]]
) -> dict[str, float]:
    """F1 of the personas extracted before and after against each other, and of each against the reference."""
    pairs = {"before_after": (after, before), "before": (before, reference), "after": (after, reference)}
    return {f"f1_{name}": persona_scores(matcher.match(*pair))["f1"] for name, pair in pairs.items()}


def drift_shift(
    matcher: PersonaMatcher,
    personas: list[list[str]],
    dialogues: list[list[str]],
    before: list[list[str]],
    extract: Extract,
    level: float,
    seed: int,
) -> dict[str, float]:
    """Drifted personas against the personas, and extraction from drifted dialogues, at one level."""
    drifted = [drift(persona, level, seed) for persona in personas]
    after = extract([drift(dialogue, level, seed) for dialogue in dialogues])
    matched = persona_scores(matcher.match(drifted, personas))["f1"]
    return {"f1_persona": matched, **extraction_shift(matcher, before, after, personas)}


def table(results: dict[str, Any]) -> str:
    """Both halves as Markdown."""
    f1 = ["F1 before/after", "F1 before", "F1 after"]
    kinds = []
    for kind, row in results["matching"].items():
        values = [row["changed"], row["similarity"], row["matched"], *results["extraction"][kind].values()]
        kinds.append([kind, *("" if value is None else f"{value:.3f}" for value in values)])
    levels = [[level, *(f"{value:.3f}" for value in row.values())] for level, row in results["drift"].items()]
    changed = markdown_table(["kind", "changed", "similarity", "matched", *f1], kinds)
    return f"{changed}\n{markdown_table(['drift', 'F1 persona', *f1], levels)}"


def draw(path: Path, drifts: dict[str, dict[str, float]]) -> None:
    """F1 against the level of drift."""
    labels = {
        "f1_persona": "drifted persona and persona",
        "f1_before_after": "extracted after and before",
        "f1_after": "extracted after and reference",
    }
    levels = [float(level) for level in drifts]
    lines = {label: (levels, [row[name] for row in drifts.values()]) for name, label in labels.items()}
    plot_lines(path, lines, "share of sentences that drifted", "F1")


if __name__ == "__main__":
    run_recipe(main)
