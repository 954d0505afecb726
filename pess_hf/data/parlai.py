"""Persona-Chat as ParlAI writes it.

Each line is `<number> <content>`; the number starts again at 1 with every dialogue. The content is `your persona:
...`, `partner's persona: ...`, or a pair of turns `<partner's turn><TAB><your turn>`. Further tab columns (labels,
candidates) are no part of the dialogue and are not read. `__SILENCE__` stands for "says nothing" and is not an
utterance.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pess_hf.data.fields import check_text
from pess_hf.data.options import Options
from pess_hf.data.where import Where, describe

SILENCE = "__SILENCE__"
#: Speaker -> how that speaker's persona lines begin.
_PERSONA_MARKS = {"partner": "partner's persona:", "your": "your persona:"}
#: The speakers in the order of the tab columns: the partner speaks first.
_SPEAKERS = ("partner", "your")
_NUMBERED = re.compile(r"(\d+) (.*)", re.DOTALL)


@dataclass
class _Dialogue:
    start: Where
    personas: dict[str, list[str]] = field(default_factory=dict)
    utterances: dict[str, list[str]] = field(default_factory=lambda: {speaker: [] for speaker in _SPEAKERS})
    turns: int = 0


def parse_parlai(lines: Iterable[tuple[Where, str]], stem: str, options: Options) -> Iterator[dict[str, Any]]:
    """Read Persona-Chat dialogues in ParlAI's text form.

    Args:
        lines: The lines and their places.
        stem: The file's name without extension, part of the ids.
        options: See `Options`.

    Yields:
        One row for each persona in a dialogue, with that speaker's own turns, ids
        `personachat/<stem>/<dialogue, from 0>/partner` and `.../your`.

    Raises:
        PessError: The file is cut or edited: a number that jumps, a line without number or tab, a dialogue without
            turns.
    """
    for n, dialogue in enumerate(_dialogues(lines, options)):
        speakers = [speaker for speaker in _SPEAKERS if speaker in dialogue.personas]
        if not speakers and not options.require_persona:
            speakers = [speaker for speaker in _SPEAKERS if dialogue.utterances[speaker]]
        for speaker in speakers:
            _check_speaker(dialogue, speaker)
            yield {
                "dialogue_id": f"personachat/{stem}/{n}/{speaker}",
                "utterances": dialogue.utterances[speaker],
                "persona": dialogue.personas.get(speaker, []),
            }


def _check_speaker(dialogue: _Dialogue, speaker: str) -> None:
    if not dialogue.utterances[speaker]:
        raise dialogue.start.error(
            f"a dialogue with turns of both sides (tab column {_SPEAKERS.index(speaker)} is {speaker!r})",
            f"a {speaker!r} persona without a turn",
            "Remove the dialogue or its persona lines.",
        )


def _dialogues(lines: Iterable[tuple[Where, str]], options: Options) -> Iterator[_Dialogue]:
    dialogue: _Dialogue | None = None
    previous = 0
    for where, line in lines:
        if not line.strip():
            continue
        number, content = _split_number(line, where)
        if number == 1:
            if dialogue is not None:
                yield _finished(dialogue, options)
            dialogue = _Dialogue(where)
        elif dialogue is None or number != previous + 1:
            expected = f"the line number {previous + 1} (or 1 for a new dialogue)" if dialogue else "the line number 1"
            raise where.error(expected, str(number), "Lines are missing: fetch the file again.")
        _add(dialogue, content, where, options)
        previous = number
    if dialogue is not None:
        yield _finished(dialogue, options)


def _split_number(line: str, where: Where) -> tuple[int, str]:
    match = _NUMBERED.match(line)
    if match is None:
        raise where.error("a line number, a blank and the text", describe(line), "Give ParlAI text, whole.")
    return int(match[1]), match[2]


def _add(dialogue: _Dialogue, content: str, where: Where, options: Options) -> None:
    for speaker, mark in _PERSONA_MARKS.items():
        if content.startswith(mark):
            if dialogue.turns:
                raise where.error(
                    "a pair of turns", "a persona line after the turns", "A new dialogue starts with the number 1."
                )
            sentence = check_text(content.removeprefix(mark), where, mark.rstrip(":"), options.separator)
            dialogue.personas.setdefault(speaker, []).append(sentence)
            return
    _add_turns(dialogue, content.split("\t"), where, options)


def _add_turns(dialogue: _Dialogue, cells: list[str], where: Where, options: Options) -> None:
    if len(cells) < len(_SPEAKERS):
        raise where.error(
            "two turns with a tab between", "no tab", "The line is cut or its tab became blanks: fetch the file again."
        )
    for column, (speaker, cell) in enumerate(zip(_SPEAKERS, cells, strict=False)):
        if cell.strip() != SILENCE:
            dialogue.utterances[speaker].append(check_text(cell, where, f"tab column {column}", options.separator))
    dialogue.turns += 1


def _finished(dialogue: _Dialogue, options: Options) -> _Dialogue:
    if not dialogue.turns:
        raise dialogue.start.error(
            "a dialogue with turns",
            "persona lines only",
            "The file is cut here: fetch it again or remove the dialogue.",
        )
    if options.require_persona and not dialogue.personas:
        raise dialogue.start.error(
            "'your persona:' or \"partner's persona:\" lines",
            "none in this dialogue",
            "Take a file of the 'self' or 'both' kind.",
        )
    return dialogue
