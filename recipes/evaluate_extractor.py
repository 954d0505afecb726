"""Measure an extractor: precision, recall, F1, ROUGE, BLEU, BERTScore and Distinct on persona rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pess_hf.arguments import parse_recipe_args
from pess_hf.calibration import resolve_threshold
from pess_hf.cli import check_counts, check_distinct_files, prepare_output_file, run_recipe, write_json, write_jsonl
from pess_hf.data import load_persona_dataset
from pess_hf.data.subset import first_rows
from pess_hf.errors import PessError
from pess_hf.extractor_args import split_by_group
from pess_hf.floor import first_person_sentences
from pess_hf.plots import check_picture_path, plot_similarity
from pess_hf.reading_args import ReadingArguments
from pess_hf.run_predictions import prediction_rows
from pess_hf.similarity import DEFAULT_ENCODER, PersonaMatch, PersonaMatcher, persona_scores
from pess_hf.text_metrics import bert_score, bleu, distinct, rouge

if TYPE_CHECKING:
    import datasets

#: The name under which the extractive floor is measured like a model.
FLOOR = "first-person"


@dataclass
class EvaluationArguments:
    """What to measure, on which rows, and where the figures go."""

    model: str = field(metadata={"help": f"Extractor: Hub id or folder; '{FLOOR}' for the extractive floor."})
    data: list[str] = field(metadata={"help": "Persona sources: 'sample', files, folders or Hub ids."})
    output: str = field(metadata={"help": "JSON file for the figures."})
    split: str | None = field(default=None, metadata={"help": "Split of the sources that have splits."})
    held_out_fraction: float = field(
        default=0.0, metadata={"help": "Measure only what train_extractor.py sets aside with this fraction and seed."}
    )
    seed: int = field(default=42, metadata={"help": "Seed of the held-out split."})
    max_rows: int | None = field(default=None, metadata={"help": "Use only so many rows."})
    plot: str | None = field(default=None, metadata={"help": "Picture of one dialogue's similarity matrix to write."})
    plot_row: int = field(default=0, metadata={"help": "Which row to plot, from 0."})
    predictions: str | None = field(
        default=None,
        metadata={"help": "JSON Lines file of what was written; compare.py reads it as NAME/predictions.jsonl."},
    )
    similarity_model: str = field(default=DEFAULT_ENCODER, metadata={"help": "Sentence encoder that matches."})
    similarity_threshold: float = field(
        default=None,  # type: ignore[assignment]  # a number once `__post_init__` has run
        metadata={"help": "Matching similarity in [-1, 1]; by default what the encoder was calibrated for."},
    )
    one_to_one: bool = field(
        default=False,
        metadata={"help": "Whether a sentence meets one other at most: several wordings of one thing count once."},
    )
    bert_score_model: str | None = field(
        default=None, metadata={"help": "Model folder or id; without one BERTScore is left out."}
    )
    bert_score_layers: int = field(default=9, metadata={"help": "Layer that BERTScore compares."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        self.similarity_threshold = resolve_threshold(self.similarity_model, self.similarity_threshold)
        check_counts(self, "max_rows")
        if not -1 <= self.similarity_threshold <= 1:
            raise PessError(f"similarity_threshold: expected a number in [-1, 1], found {self.similarity_threshold}.")
        if not 0 <= self.held_out_fraction < 1:
            raise PessError(f"held_out_fraction: expected a number in [0, 1), found {self.held_out_fraction}.")


def main(args: list[str] | None = None) -> None:
    """Read, extract, match, write."""
    parsed, reading = parse_recipe_args((EvaluationArguments, ReadingArguments), args, __doc__)
    if parsed.model == FLOOR and reading.consensus_answers is not None:
        raise PessError(f"consensus_answers: expected none with model {FLOOR!r}, which writes one answer. Drop it.")
    outputs = {"output": parsed.output, "predictions": parsed.predictions, "plot": parsed.plot}
    check_distinct_files(parsed.data, **outputs)
    for path in (parsed.output, parsed.predictions):
        if path is not None:
            prepare_output_file(path)
    if parsed.plot is not None:
        check_picture_path(parsed.plot)
    rows = load_rows(parsed)
    reference = [list(persona) for persona in rows["persona"]]
    if parsed.plot is not None and not 0 <= parsed.plot_row < len(rows):
        raise PessError(f"plot_row: expected a row from 0 to {len(rows) - 1}, found {parsed.plot_row}.")
    matcher = PersonaMatcher(parsed.similarity_model, parsed.similarity_threshold, one_to_one=parsed.one_to_one)
    generated = write_personas(parsed.model, reading, rows)
    matches = matcher.match(generated, reference)
    scores = all_scores(parsed, generated, reference, matches)
    write_json(parsed.output, scores)
    if parsed.predictions is not None:
        write_jsonl(parsed.predictions, prediction_rows(rows, generated))
        print(f"what was written: {parsed.predictions}")
    for name, value in scores.items():
        print(f"{name:<20} {value:.4f}" if isinstance(value, float) else f"{name:<20} {value}")
    if parsed.plot is not None:
        draw(parsed, generated, reference, matches)


def load_rows(args: EvaluationArguments) -> datasets.Dataset:
    """The rows to measure on."""
    rows = load_persona_dataset(args.data, args.split)
    if args.held_out_fraction:
        _, rows = split_by_group(rows, args.held_out_fraction, args.seed)
    return first_rows(rows, args.max_rows)


def write_personas(name: str, reading: ReadingArguments, rows: datasets.Dataset) -> list[list[str]]:
    """What the model, or the floor, makes of the rows."""
    if name == FLOOR:
        return [first_person_sentences(utterances) for utterances in rows["utterances"]]
    from accelerate import PartialState

    from pess_hf.checkpoint import open_tokenizer
    from pess_hf.modeling_extractor import AutoPessExtractor

    model = AutoPessExtractor.from_pretrained(name).to(PartialState().device)
    return model.extract(rows["utterances"], open_tokenizer(name), **reading.extraction())


def all_scores(
    args: EvaluationArguments, generated: list[list[str]], reference: list[list[str]], matches: list[PersonaMatch]
) -> dict[str, float]:
    """Every figure, flat."""
    scores: dict[str, float] = {"rows": len(reference)}
    scores.update({f"persona_{name}": value for name, value in persona_scores(matches).items()})
    scores.update(rouge(generated, reference) | bleu(generated, reference) | distinct(generated))
    if args.bert_score_model is not None:
        scores.update(bert_score(generated, reference, args.bert_score_model, args.bert_score_layers))
    return scores


def draw(
    args: EvaluationArguments, generated: list[list[str]], reference: list[list[str]], matches: list[PersonaMatch]
) -> None:
    """Write the similarity matrix of one row as a picture."""
    row = args.plot_row
    plot_similarity(str(args.plot), generated[row], reference[row], matches[row], args.similarity_threshold)
    print(f"similarity matrix of row {row}: {args.plot}")


if __name__ == "__main__":
    run_recipe(main)
