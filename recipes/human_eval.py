"""Human evaluation of two systems' replies: `make` writes pages for raters, `score` reads what they downloaded."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from typing import Any

from pess_hf.arguments import parse_recipe_args
from pess_hf.cli import check_counts, prepare_output_file, run_recipe, write_json
from pess_hf.data import load_support_dataset
from pess_hf.human_eval import pair_replies, read_replies, write_pages
from pess_hf.human_eval_scores import read_judgements, score_judgements

_USAGE = "usage: human_eval.py make|score [--config FILE.yaml] [--key value ...]"


@dataclass
class MakeArguments:
    """What is judged and by how many."""

    system_a: str = field(metadata={"help": "Replies of the one system: predictions.jsonl of its run."})
    system_b: str = field(metadata={"help": "Those of the other; evaluate_generator.py --predictions writes such."})
    data: list[str] = field(metadata={"help": "Support sources that the replies were written for."})
    output_dir: str = field(metadata={"help": "Folder for the pages; the key goes to key/ within it."})
    split: str | None = field(default=None, metadata={"help": "Split of the sources that have splits."})
    raters: int = field(default=3, metadata={"help": "Pages to write, one per rater."})
    max_items: int = field(default=50, metadata={"help": "Judge only so many turns, drawn at random."})
    seed: int = field(default=42, metadata={"help": "Decides which turns, their order and the sides."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_counts(self, "raters", "max_items")


@dataclass
class ScoreArguments:
    """What came back."""

    key: str = field(metadata={"help": "key/key.json of the study."})
    answers: list[str] = field(metadata={"help": "Downloaded answer files, one per rater."})
    output: str = field(metadata={"help": "JSON file for the figures."})


def main(args: list[str] | None = None) -> None:
    """Do what the first word says."""
    words = sys.argv[1:] if args is None else args
    commands = {"make": make, "score": score}
    if words[:1] in (["-h"], ["--help"]):
        print(f"{_USAGE}\n\n{__doc__}\n\nhuman_eval.py make --help and human_eval.py score --help say more.")
        raise SystemExit(0)
    if not words or words[0] not in commands:
        print(_USAGE, file=sys.stderr)
        raise SystemExit(2)
    commands[words[0]](words[1:])


def make(args: list[str]) -> None:
    """Pair the replies, draw, write the pages."""
    (parsed,) = parse_recipe_args(MakeArguments, args, __doc__)
    pairs, left_out = pair_replies(
        read_replies(parsed.system_a), read_replies(parsed.system_b), load_contexts(parsed.data, parsed.split)
    )
    chosen = sorted(random.Random(parsed.seed).sample(range(len(pairs)), min(parsed.max_items, len(pairs))))
    systems = {"a": parsed.system_a, "b": parsed.system_b}
    drawn = [pairs[place] for place in chosen]
    pages = write_pages(parsed.output_dir, drawn, systems, parsed.raters, parsed.seed, left_out=left_out)
    print(f"{len(drawn)} of {len(pairs)} pairs on {len(pages)} pages; left out: {left_out}")
    print(f"give raters {', '.join(page.name for page in pages)} only, and keep key/ to yourself")


def load_contexts(data: list[str], split: str | None) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """The turns before each turn of each conversation."""
    return {
        (row["dialogue_id"], turn): row["turns"][:turn]
        for row in load_support_dataset(data, split)
        for turn in range(len(row["turns"]))
    }


def score(args: list[str]) -> None:
    """Read the answers, test, write."""
    (parsed,) = parse_recipe_args(ScoreArguments, args, __doc__)
    prepare_output_file(parsed.output)
    judgements = read_judgements(parsed.key, parsed.answers)
    scores = score_judgements(judgements)
    asked = sum(len(items) for items in judgements.values()) * len(parsed.answers)
    given = sum(len(said) for items in judgements.values() for said in items.values())
    write_json(parsed.output, {"raters": len(parsed.answers), "unanswered": asked - given, "aspects": scores})
    print(f"{len(parsed.answers)} raters, {asked - given} of {asked} questions unanswered")
    print("aspect           win  tie lose   sign test p   Fleiss' kappa")
    for aspect, row in scores.items():
        p_value, kappa = (f"{row[name]:.4f}" if row[name] is not None else "-" for name in ("p_value", "fleiss_kappa"))
        print(f"{aspect:<15}{row['win']:>5}{row['tie']:>5}{row['lose']:>5}{p_value:>14}{kappa:>16}")


if __name__ == "__main__":
    run_recipe(main)
