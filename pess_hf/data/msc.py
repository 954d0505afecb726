"""Multi-Session Chat persona summaries: per turn the persona known so far; the last one of a speaker is taken.

Ids are `msc/<session file>/<convai2_id>/<speaker>`. `convai2_id` and speaker name the person across the session files,
so a split by person goes by `pess_hf.data.group_of`. Session 1 is a Persona-Chat dialogue: `valid_7` there is dialogue
7 of Persona-Chat's validation file, and of the same group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pess_hf.data.fields import Record, check_text, take, take_label, take_list, take_texts
from pess_hf.data.files import Placed
from pess_hf.data.options import Options
from pess_hf.data.where import Where, describe
from pess_hf.data.windows import TURNS_COLUMN

SPEAKERS = ("bot_0", "bot_1")


def parse_msc(records: Iterable[Placed], stem: str, options: Options) -> Iterator[dict[str, Any]]:
    """Read MSC persona-summary episodes.

    Args:
        records: The episodes and their places.
        stem: Names the session file, part of the ids.
        options: See `Options`.

    Yields:
        Two rows an episode, one for each speaker; with `options.persona_turns` also which of the speaker's turns told
        each sentence.

    Raises:
        PessError: A key is missing, a speaker is unknown, or a speaker has no turn.
    """
    for where, record in records:
        utterances: dict[str, list[str]] = {speaker: [] for speaker in SPEAKERS}
        personas: dict[str, list[str]] = {speaker: [] for speaker in SPEAKERS}
        told: dict[str, dict[str, int]] = {speaker: {} for speaker in SPEAKERS}
        for t, turn in enumerate(take_list(record, "dialog", where)):
            speaker = _speaker(turn, t, where)
            text = check_text(take(turn, "text", where), where, f"dialog[{t}].text", options.separator)
            utterances[speaker].append(text)
            if options.require_persona or "agg_persona_list" in turn:
                personas[speaker] = take_texts(turn, "agg_persona_list", where, options.separator)
                for sentence in personas[speaker]:
                    told[speaker].setdefault(sentence, len(utterances[speaker]) - 1)
        for speaker in SPEAKERS:
            if not utterances[speaker]:
                raise where.error(
                    f"turns of {speaker!r}", "none", "Remove the episode, or fetch the file again.", "dialog"
                )
        episode = _episode_id(record, where)
        for speaker in SPEAKERS:
            row = {
                "dialogue_id": f"msc/{stem}/{episode}/{speaker}",
                "utterances": utterances[speaker],
                "persona": personas[speaker],
            }
            yield row | _turns(personas[speaker], told[speaker], options)


def _turns(persona: list[str], told: dict[str, int], options: Options) -> dict[str, list[int]]:
    """The turn at which each sentence first stood in the list, where it is asked for."""
    return {TURNS_COLUMN: [told[sentence] for sentence in persona]} if options.persona_turns else {}


def _speaker(turn: Any, t: int, where: Where) -> str:
    if not isinstance(turn, dict):
        raise where.error("an object for each turn", describe(turn), "Fetch the file again.", f"dialog[{t}]")
    speaker = take(turn, "id", where)
    if speaker not in SPEAKERS:
        raise where.error("the speaker 'bot_0' or 'bot_1'", describe(speaker), "Mend the turn.", f"dialog[{t}].id")
    return str(speaker)


def _episode_id(record: Record, where: Where) -> str:
    """`initial_data_id` of the episode, or the `convai2_id` that its turns carry."""
    own = take_label(record, "initial_data_id", where) or take_label(record["dialog"][0], "convai2_id", where)
    if not own:
        raise where.error(
            "the key 'initial_data_id', or 'convai2_id' in the turns",
            "neither",
            "Fetch the file again: without it the same person is not recognised across sessions.",
        )
    return own.replace("/", "_")
