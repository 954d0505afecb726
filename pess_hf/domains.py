"""Measuring one extractor on the dialogues of several domains, with a reference persona and without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pess_hf.cli import write_jsonl
from pess_hf.data import load_persona_dataset, load_support_dataset
from pess_hf.data.fields import take_texts
from pess_hf.data.files import read_json_lines
from pess_hf.data.subset import first_rows
from pess_hf.errors import PessError
from pess_hf.evidence import evidence_similarity
from pess_hf.extractor_args import split_by_group
from pess_hf.similarity import PersonaMatcher
from pess_hf.statistics import DialogueScores, Shares, score_intervals


@dataclass(frozen=True)
class Domain:
    """Dialogues that models are measured on.

    Args:
        name: Its name in tables and files.
        ids: N ids.
        utterances: N lists of one speaker's turns.
        reference: N personas, or None where nobody wrote any.
    """

    name: str
    ids: list[str]
    utterances: list[list[str]]
    reference: list[list[str]] | None

    def first_halves(self) -> list[list[str]]:
        """The first half of every speaker's turns, the middle one included."""
        return [turns[: (len(turns) + 1) // 2] for turns in self.utterances]


def persona_domain(
    name: str, sources: Sequence[str], split: str | None, fraction: float, seed: int, max_rows: int | None
) -> Domain:
    """A domain with reference personas; only a share of its groups is taken, so that the rest can be trained on.

    Args:
        name: Its name.
        sources: Persona sources.
        split: Split of the sources that have splits.
        fraction: Share of the groups, in (0, 1]; 1 takes all.
        seed: Decides which groups.
        max_rows: Rows at most; the first of them.

    Example:
        >>> len(persona_domain("sample", ["sample"], "test", 0.5, 0, 20).ids)
        20
    """
    rows = load_persona_dataset(list(sources), split)
    if fraction < 1:
        _, rows = split_by_group(rows, fraction, seed)
    rows = first_rows(rows, max_rows)
    return Domain(name, list(rows["dialogue_id"]), list(rows["utterances"]), list(rows["persona"]))


def support_domain(name: str, sources: Sequence[str], split: str | None, max_rows: int | None) -> Domain:
    """The seekers of support dialogues, of whom there is no persona; those who say nothing are left out.

    Example:
        >>> support_domain("sample", ["sample"], "test", 5).reference is None
        True
    """
    rows = load_support_dataset(list(sources), split)
    said = [[turn["text"] for turn in turns if turn["speaker"] == "seeker"] for turns in rows["turns"]]
    kept = [row for row, turns in enumerate(said) if turns][:max_rows]
    if not kept:
        raise PessError(f"{name}: expected dialogues in which a seeker speaks, found none. Name other sources.")
    ids = rows["dialogue_id"]
    return Domain(name, [ids[row] for row in kept], [said[row] for row in kept], None)


@dataclass(frozen=True)
class Extraction:
    """What a model wrote for a domain.

    Args:
        whole: N personas from all of a speaker's turns.
        half: N personas from the first half of them.
    """

    whole: list[list[str]]
    half: list[list[str]]


def extract_domain(model_dir: str, domain: Domain, file: Path, **generation: Any) -> Extraction:
    """Extract personas from whole dialogues and from their first halves; read again where a file has them.

    Args:
        model_dir: The extractor: Hub id or folder.
        domain: The dialogues.
        file: JSONL, one row a dialogue; written when done.
        generation: Passed to `extract`.

    Raises:
        PessError: The file is of other dialogues or another model.

    Example:
        >>> extract_domain("runs/demo", domain, Path("demo.jsonl"))  # doctest: +SKIP
    """
    if not file.is_file():
        write_jsonl(file, _extracted_rows(model_dir, domain, generation))
    rows = list(read_json_lines(file))
    if [row.get("dialogue_id") for _, row in rows] != domain.ids:
        raise PessError(f"{file}: expected personas of the dialogues of {domain.name}, found others. Remove the file.")
    if any(row.get("model") != model_dir for _, row in rows):
        raise PessError(f"{file}: expected personas by {model_dir}, found another model's. Remove the file.")
    whole, half = ([take_texts(row, key, where, None) for where, row in rows] for key in ("whole", "half"))
    return Extraction(whole, half)


def _extracted_rows(model_dir: str, domain: Domain, generation: dict[str, Any]) -> list[dict[str, Any]]:
    from accelerate import PartialState

    from pess_hf.checkpoint import open_tokenizer
    from pess_hf.modeling_extractor import AutoPessExtractor

    model = AutoPessExtractor.from_pretrained(model_dir).to(PartialState().device)
    personas = model.extract(
        [*domain.utterances, *domain.first_halves()], open_tokenizer(model_dir), **generation
    )  # 2 N
    number = len(domain.ids)
    return [
        {"dialogue_id": name, "model": model_dir, "whole": personas[row], "half": personas[number + row]}
        for row, name in enumerate(domain.ids)
    ]


def measure_domain(
    domain: Domain, by_seed: Sequence[Extraction], matcher: PersonaMatcher, resamples: int
) -> dict[str, Any]:
    """Scores of one setting, under several seeds, on one domain.

    - `grounded`: share of the generated sentences that reach the threshold with a sentence that the speaker said;
      `grounding` is the mean of the highest cosines, `grounding_by_chance` the same against the next dialogue.
    - `stable`: share of the sentences extracted from the first half that the whole dialogue's persona still says.
    - precision, recall and F1 where there is a reference.

    Args:
        domain: The dialogues.
        by_seed: What each seed's model wrote.
        matcher: Encoder and threshold.
        resamples: Of each bootstrap.

    Returns:
        Flat figures, and `intervals` of some (95 %, over dialogues).
    """
    whole = [one.whole for one in by_seed]
    figures: dict[str, Any] = {
        "dialogues": len(domain.ids),
        "seeds": len(by_seed),
        "sentences": float(np.mean([len(persona) for personas in whole for persona in personas])),
    }
    grounded, cosines = _grounded(whole, domain.utterances, matcher)
    others = domain.utterances[1:] + domain.utterances[:1]
    _, by_chance = _grounded(whole, others, matcher)
    stable = _stable(by_seed, matcher)
    figures |= {"grounded": grounded.share, "stable": stable.share}
    figures |= {"grounding": _mean(cosines), "grounding_by_chance": _mean(by_chance)}
    figures["intervals"] = {"grounded": grounded.interval(resamples), "stable": stable.interval(resamples)}
    if domain.reference is not None:
        reference = domain.reference
        scores = DialogueScores.of([matcher.match(personas, reference) for personas in whole])
        figures |= scores.means()
        figures["intervals"] |= score_intervals(scores, resamples)
        figures["f1_by_seed"] = scores.by_seed()["f1"]
    return figures


def _grounded(
    by_seed: Sequence[Sequence[Sequence[str]]], utterances: Sequence[Sequence[str]], matcher: PersonaMatcher
) -> tuple[Shares, np.ndarray]:
    found = [evidence_similarity(personas, utterances, matcher) for personas in by_seed]
    hits = np.sum([[(one >= matcher.threshold).sum() for one in of_seed] for of_seed in found], axis=0)  # (N,)
    counts = np.sum([[len(one) for one in of_seed] for of_seed in found], axis=0)  # (N,)
    return Shares(hits, counts), np.concatenate([one for of_seed in found for one in of_seed])


def _stable(by_seed: Sequence[Extraction], matcher: PersonaMatcher) -> Shares:
    matches = [matcher.match(one.half, one.whole) for one in by_seed]
    hits = np.sum([[len(match.consistent) for match in of_seed] for of_seed in matches], axis=0)
    lengths = [[len(match.consistent) + len(match.inconsistent) for match in of_seed] for of_seed in matches]
    return Shares(hits, np.sum(lengths, axis=0))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
