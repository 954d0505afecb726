"""What finished runs wrote for their test rows, read back for comparison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pess_hf.data.fields import take, take_label, take_texts
from pess_hf.data.files import read_json_lines
from pess_hf.errors import PessError

PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True)
class Predictions:
    """The test rows of one run.

    Args:
        path: The run's folder.
        ids: N dialogue ids.
        reference: N reference personas.
        generated: N personas as the model wrote them.
    """

    path: Path
    ids: list[str]
    reference: list[list[str]]
    generated: list[list[str]]


def prediction_rows(rows: Iterable[Mapping[str, Any]], personas: Iterable[list[str]]) -> Iterator[dict[str, Any]]:
    """What `predictions.jsonl` holds: of each row its id, the reference persona and what was written.

    Args:
        rows: Persona rows.
        personas: What was written of each.

    Example:
        >>> row = {"dialogue_id": "d", "utterances": ["I sing!"], "persona": ["I sing."]}
        >>> list(prediction_rows([row], [["I sing a lot."]]))
        [{'dialogue_id': 'd', 'reference': ['I sing.'], 'generated': ['I sing a lot.']}]
    """
    for row, generated in zip(rows, personas, strict=False):
        yield {"dialogue_id": row["dialogue_id"], "reference": row["persona"], "generated": generated}


def find_runs(names: Sequence[str]) -> list[Path]:
    """The run folders that some names stand for.

    Args:
        names: Run folders, or folders of them, such as one folder a seed; several may stand in one name, with commas.

    Returns:
        Folders that hold `predictions.jsonl`, in the order named, those of one folder by name.

    Raises:
        PessError: A name leads to no such folder, or two lead to the same one.

    Example:
        >>> for seed in (1, 2):
        ...     Path(f"runs/seed-{seed}").mkdir(parents=True)
        ...     Path(f"runs/seed-{seed}/predictions.jsonl").touch()
        >>> [run.name for run in find_runs(["runs"])]
        ['seed-1', 'seed-2']
    """
    runs: list[Path] = []
    for name in (part.strip() for text in names for part in text.split(",") if part.strip()):
        folder = Path(name)
        found = [folder] if (folder / PREDICTIONS).is_file() else _runs_below(folder)
        if not found:
            raise PessError(
                f"{folder}: expected the folder of a finished run, or of several, found no {PREDICTIONS} in it. "
                "Train with test_data or held_out_fraction, or check the path."
            )
        runs += found
    twice = [run for run in runs if runs.count(run) > 1]
    if twice:
        raise PessError(f"{twice[0]}: expected each run once, found it twice. Name it once.")
    return runs


def split_name(text: str, what: str) -> tuple[str, list[str]]:
    """Split `NAME=ONE[,ANOTHER...]`.

    Args:
        text: The text.
        what: The setting that it comes from, for the error.

    Returns:
        The name and what it names.

    Raises:
        PessError: There is no name, or nothing behind it.

    Example:
        >>> split_name("full=runs/a,runs/b", "runs")
        ('full', ['runs/a', 'runs/b'])
    """
    name, _, rest = text.partition("=")
    values = [part.strip() for part in rest.split(",") if part.strip()]
    if not name.strip() or not values:
        raise PessError(f"{what}: expected NAME=PATH or NAME=PATH,PATH, found {text!r}.")
    return name.strip(), values


def split_names(texts: Sequence[str], what: str) -> dict[str, list[str]]:
    """Split several; each name once.

    Example:
        >>> split_names(["a=x", "b=y,z"], "runs")
        {'a': ['x'], 'b': ['y', 'z']}
    """
    pairs = [split_name(text, what) for text in texts]
    named = dict(pairs)
    if len(named) < len(pairs):
        raise PessError(f"{what}: expected each name once, found {', '.join(name for name, _ in pairs)}.")
    return named


def _runs_below(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{PREDICTIONS}"))


def read_predictions(folder: str | Path) -> Predictions:
    """Read `predictions.jsonl` of a run.

    Args:
        folder: The run's folder.

    Raises:
        PessError: The file is missing, empty, or a line is not what `train_extractor.py` writes.

    Example:
        >>> _ = Path("predictions.jsonl").write_text('{"dialogue_id": "a", "reference": [], "generated": ["I sing."]}')
        >>> read_predictions(".").generated
        [['I sing.']]
    """
    rows = list(read_json_lines(Path(folder) / PREDICTIONS))
    for where, row in rows:
        take(row, "dialogue_id", where)
    return Predictions(
        path=Path(folder),
        ids=[take_label(row, "dialogue_id", where) for where, row in rows],
        reference=[take_texts(row, "reference", where, None) for where, row in rows],
        generated=[take_texts(row, "generated", where, None) for where, row in rows],
    )


def check_same_rows(runs: Sequence[Predictions]) -> None:
    """Make sure that runs were measured on the same rows in the same order.

    Raises:
        PessError: They were not; the message names the first difference.

    Example:
        >>> check_same_rows([Predictions(Path("a"), ["x"], [[]], [[]])])
    """
    for other in runs[1:]:
        first = runs[0]
        advice = "Compare runs of the same test rows (and, with held_out_fraction, of the same seed)."
        if len(first.ids) != len(other.ids):
            raise PessError(f"{first.path} and {other.path}: {len(first.ids)} and {len(other.ids)} rows. {advice}")
        for row in range(len(first.ids)):
            if first.ids[row] != other.ids[row]:
                raise PessError(
                    f"{first.path} and {other.path}, row {row}: dialogue_id {first.ids[row]!r} and "
                    f"{other.ids[row]!r}. {advice}"
                )
            if first.reference[row] != other.reference[row]:
                raise PessError(
                    f"{first.path} and {other.path}, row {row} ({first.ids[row]!r}): the references differ. {advice}"
                )
