"""Measure a generator: perplexity, strategy accuracy, BLEU, ROUGE-L, Distinct and likeness to the persona."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pess_hf.arguments import parse_recipe_args
from pess_hf.cli import prepare_output_file, run_recipe, write_json, write_jsonl
from pess_hf.errors import PessError
from pess_hf.generator_args import PersonaSourceArguments, load_examples, make_collator
from pess_hf.similarity import DEFAULT_ENCODER, load_encoder


@dataclass
class EvaluationArguments:
    """What to measure, on which conversations, and where the figures go."""

    model: str = field(metadata={"help": "Generator: Hub id or folder."})
    data: list[str] = field(metadata={"help": "Support sources: 'sample', files, folders or Hub ids."})
    output: str = field(metadata={"help": "JSON file for the figures."})
    predictions: str | None = field(
        default=None, metadata={"help": "JSONL file for the replies, one a line, as human_eval.py make reads them."}
    )
    split: str | None = field(default=None, metadata={"help": "Split of the sources that have splits."})
    max_dialogues: int | None = field(default=None, metadata={"help": "Use only so many conversations."})
    max_replies: int | None = field(
        default=None, metadata={"help": "Write only so many replies; likelihood is measured on all conversations."}
    )
    batch_size: int = field(default=16, metadata={"help": "Examples at a time."})
    num_beams: int = field(default=1, metadata={"help": "Beams; 1 is greedy."})
    max_new_tokens: int = field(default=50, metadata={"help": "Tokens of a reply at most, its strategy included."})
    max_context_length: int = field(default=512, metadata={"help": "Context tokens; the oldest go first."})
    max_persona_length: int = field(default=256, metadata={"help": "Persona tokens; the last sentences go first."})
    similarity_model: str = field(default=DEFAULT_ENCODER, metadata={"help": "Compares replies with personas."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("batch_size", "num_beams", "max_new_tokens", "max_dialogues", "max_replies"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PessError(f"{name}: expected 1 or more, found {value}.")


def main(args: list[str] | None = None) -> None:
    """Read, infer, measure, write."""
    parsed, persona_args = parse_recipe_args([EvaluationArguments, PersonaSourceArguments], args, __doc__)
    for path in filter(None, (parsed.output, parsed.predictions)):
        prepare_output_file(path)
    examples = load_examples(parsed.data, parsed.split, parsed.max_dialogues, persona_args)
    model, tokenizer = open_generator(parsed.model)

    from pess_hf.generator_evaluation import measure_generator, reply_rows

    lengths = {name: getattr(parsed, name) for name in ("max_context_length", "max_persona_length")}
    scores, replies = measure_generator(
        model,
        make_collator(model, tokenizer, persona_args, lengths),
        examples,
        load_encoder(parsed.similarity_model) if any(examples["persona"]) else None,
        batch_size=parsed.batch_size,
        max_replies=parsed.max_replies,
        num_beams=parsed.num_beams,
        max_new_tokens=parsed.max_new_tokens,
    )
    figures = {"examples": len(examples), "replies": len(replies), **scores}
    write_json(parsed.output, figures)
    if parsed.predictions is not None:
        write_jsonl(parsed.predictions, reply_rows(examples, replies))
    for name, value in figures.items():
        print(f"{name:<20} {value:.4f}" if isinstance(value, float) else f"{name:<20} {value}")


def open_generator(name: str) -> tuple[Any, Any]:
    """Model and tokenizer; a model of another kind is the user's to mend."""
    from transformers import AutoTokenizer

    from pess_hf.open_generator import open_generator as open_model

    return open_model(name), AutoTokenizer.from_pretrained(name)


if __name__ == "__main__":
    run_recipe(main)
