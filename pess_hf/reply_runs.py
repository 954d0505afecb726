"""Finished runs of the generator: what they answered, to which turns of which conversations, and how likely it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pess_hf.cli import write_json
from pess_hf.configuration_generator import PessGeneratorConfig
from pess_hf.data.fields import take, take_label, take_texts
from pess_hf.data.files import read_json_lines
from pess_hf.data.where import Where, describe
from pess_hf.errors import PessError
from pess_hf.generator_evaluation import Reply, row_losses
from pess_hf.run_folder import read_object, read_run_folder
from pess_hf.run_predictions import PREDICTIONS

if TYPE_CHECKING:
    import datasets

#: The turn of a conversation that is answered: dialogue id and index.
Place = tuple[str, int]
_LENGTHS = ("max_context_length", "max_persona_length", "max_target_length")


@dataclass(frozen=True)
class ReplyRun:
    """The test turns of one run of the generator.

    Args:
        path: The run's folder.
        places: N turns.
        personas: N personas, what was known before each turn; with `persona_source` none the model did not see them.
        reference: N strategies and replies that people gave.
        generated: N strategies and replies of the model.
        arguments: The run's settings.
    """

    path: Path
    places: list[Place]
    personas: list[list[str]]
    reference: list[Reply]
    generated: list[Reply]
    arguments: dict[str, Any]

    @property
    def sees_personas(self) -> bool:
        """Whether the model was given the personas."""
        return self.arguments["persona_source"] != "none"


def read_reply_run(folder: str | Path) -> ReplyRun:
    """Read what a finished run of `train_generator.py` left.

    Args:
        folder: The run's folder.

    Raises:
        PessError: It is no finished run of a generator, or its `predictions.jsonl` is missing or malformed.

    Example:
        >>> read_reply_run("runs/generator").sees_personas  # doctest: +SKIP
        True
    """
    run = read_run_folder(folder)
    kind = run.config.get("model_type")
    if kind != PessGeneratorConfig.model_type and not run.adapter:
        raise PessError(
            f"{folder}: expected a run of train_generator.py, found a model of type {kind!r}. Check --runs."
        )
    missing = [name for name in ("persona_source", *_LENGTHS) if name not in run.arguments]
    if missing:
        raise PessError(f"{folder}: expected a run of train_generator.py, found no {missing[0]} in run.json.")
    if not (run.path / PREDICTIONS).is_file():
        raise PessError(f"{folder}: expected {PREDICTIONS} in it, found none. Train with test_data.")
    rows = list(read_json_lines(run.path / PREDICTIONS))
    places = [_place(row, where) for where, row in rows]
    seen: set[Place] = set()
    for place, (where, _) in zip(places, rows, strict=True):
        if place in seen:
            raise where.error("one reply a turn", f"a second one for {_named(place)}", "Keep one.")
        seen.add(place)
    return ReplyRun(
        path=run.path,
        places=places,
        personas=[take_texts(row, "persona", where, None) for where, row in rows],
        reference=[_reply(row, "reference", where) for where, row in rows],
        generated=[_reply(row, "generated", where) for where, row in rows],
        arguments=run.arguments,
    )


def _place(row: dict[str, Any], where: Where) -> Place:
    take(row, "dialogue_id", where)
    turn = take(row, "turn", where)
    if not isinstance(turn, int):
        raise where.error("a whole number", describe(turn), "Name the predictions of a generator.", "turn")
    return take_label(row, "dialogue_id", where), turn


def _reply(row: dict[str, Any], column: str, where: Where) -> Reply:
    value = take(row, column, where)
    text, strategy = (value.get("text"), value.get("strategy")) if isinstance(value, dict) else (None, None)
    if not isinstance(text, str) or not (strategy is None or isinstance(strategy, str)):
        cure = "Name the predictions of a generator."
        raise where.error("an object with a text 'text' and a 'strategy'", describe(value), cure, column)
    return Reply(strategy, text)


def _named(place: Place) -> str:
    return f"turn {place[1]} of {place[0]!r}"


def check_same_turns(runs: Sequence[ReplyRun]) -> None:
    """Make sure that runs answered the same turns in the same order.

    Raises:
        PessError: They did not; the message names the first difference.

    Example:
        >>> check_same_turns([ReplyRun(Path("a"), [("x", 1)], [[]], [Reply(None, "Hi.")], [Reply(None, "Ho.")], {})])
    """
    first = runs[0]
    advice = "Compare runs of the same test_data, test_split, max_test_dialogues and max_test_replies."
    for other in runs[1:]:
        both = f"{first.path} and {other.path}"
        if len(first.places) != len(other.places):
            raise PessError(f"{both}: {len(first.places)} and {len(other.places)} replies. {advice}")
        for row, (one, two) in enumerate(zip(first.places, other.places, strict=True)):
            if one != two:
                raise PessError(f"{both}, row {row}: {_named(one)} and {_named(two)}. {advice}")
            if first.reference[row] != other.reference[row]:
                raise PessError(f"{both}, row {row} ({_named(one)}): the references differ. {advice}")


def answered_examples(run: ReplyRun, examples: datasets.Dataset) -> datasets.Dataset:
    """The examples that a run answered, with the run's personas.

    Args:
        run: The run.
        examples: What `build_support_examples` makes of the run's test conversations, and others perhaps.

    Returns:
        N examples in the run's order.

    Raises:
        PessError: A turn is not among the examples, or has another reply there.

    Example:
        >>> answered_examples(run, examples).num_rows  # doctest: +SKIP
        24
    """
    from datasets import Dataset

    known = {(row["dialogue_id"], row["turn"]): row for row in examples}
    found = []
    for place, persona, reference in zip(run.places, run.personas, run.reference, strict=True):
        if place not in known:
            raise PessError(
                f"test_data: expected the test turns of {run.path}, found no {_named(place)}. Name its test_data and "
                "test_split."
            )
        row = known[place]
        if Reply(row["strategy"], row["response"]) != reference:
            raise PessError(f"test_data: {_named(place)} has another reply than in {run.path}. Name the same files.")
        found.append({**row, "persona": persona})
    return Dataset.from_list(found, features=examples.features)


def reply_likelihood(
    run: ReplyRun, examples: datasets.Dataset, file: Path, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """How likely a run's model finds the replies that people gave; read again where a file has it.

    Args:
        run: The run.
        examples: From `answered_examples`.
        file: JSON; written when done. What it says of other replies, examples or settings is measured anew.
        batch_size: Examples at a time.

    Returns:
        As `row_losses`: losses (N,) and target tokens (N,).

    Raises:
        PessError: The model cannot be opened, or the file is broken.

    Example:
        >>> losses, tokens = reply_likelihood(run, examples, Path("likelihood.json"), 16)  # doctest: +SKIP
    """
    settings = {name: run.arguments[name] for name in ("persona_source", *_LENGTHS)}
    written = [[reply.strategy, reply.text] for reply in run.generated]
    about = json.dumps([str(run.path), settings, written, list(examples)], sort_keys=True)
    digest = hashlib.sha256(about.encode()).hexdigest()
    measured = read_object(file, needed=False, cure="Remove the file.")
    if measured.get("of") != digest:
        losses, tokens = _likelihood(run, examples, batch_size)
        measured = {"of": digest, "losses": losses.tolist(), "tokens": tokens.tolist()}
        write_json(file, measured)
    return np.array(measured["losses"]), np.array(measured["tokens"])


def _likelihood(run: ReplyRun, examples: datasets.Dataset, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    from accelerate import PartialState

    from pess_hf.checkpoint import open_tokenizer
    from pess_hf.open_generator import open_generator
    from pess_hf.pipeline import collator_of

    folder = str(run.path)
    model: Any = open_generator(folder).to(PartialState().device)
    lengths = {name: run.arguments[name] for name in _LENGTHS}
    collator = collator_of(model, open_tokenizer(folder), use_persona=run.sees_personas, with_ids=True, **lengths)
    return row_losses(model, collator, examples, batch_size=batch_size)
