"""Pages for the pairwise judgement of replies: blinded, in random order, self-contained; the key lies apart.

Aspects as in the human evaluations of PAL (arXiv 2212.09235) and PESS.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pess_hf.cli import atomic_write, prepare_output_dir, write_json
from pess_hf.data.files import read_json_lines
from pess_hf.data.where import describe
from pess_hf.errors import PessError

#: What is asked of each pair of replies.
ASPECTS = {
    "fluency": "Fluency: which reply reads more fluent and understandable?",
    "identification": "Identification: which reply explores the seeker's situation and finds the problem better?",
    "comforting": "Comforting: which reply comforts the seeker better?",
    "suggestion": "Suggestion: which reply gives the more helpful suggestions?",
    "overall": "Overall: which supporter would you rather talk to?",
}
CHOICES = {"left": "Reply 1", "right": "Reply 2", "tie": "No difference"}
KEY_FILE = "key.json"


@dataclass(frozen=True)
class ReplyPair:
    """Two systems' replies to the same turn.

    Args:
        dialogue_id: The conversation.
        turn: The turn that is answered.
        context: The turns before it, oldest first, `speaker` and `text` each.
        a: The first system's reply.
        b: The second system's reply.
    """

    dialogue_id: str
    turn: int
    context: list[dict[str, Any]]
    a: str
    b: str


def read_replies(path: str | Path) -> dict[tuple[str, int], str]:
    """Read the `predictions.jsonl` of a generator's run.

    Args:
        path: The file that train_generator.py wrote, or evaluate_generator.py --predictions.

    Returns:
        The reply for each (dialogue_id, turn), in the file's order.

    Raises:
        PessError: If the file is missing, or a line is not such a reply or repeats one.

    Example:
        >>> line = {"dialogue_id": "d/0", "turn": 3, "generated": {"strategy": None, "text": "I see."}}
        >>> _ = Path("replies.jsonl").write_text(json.dumps(line))
        >>> read_replies("replies.jsonl")
        {('d/0', 3): 'I see.'}
    """
    replies: dict[tuple[str, int], str] = {}
    for where, row in read_json_lines(Path(path)):
        generated = row.get("generated")
        text = generated.get("text") if isinstance(generated, dict) else None
        place = (row.get("dialogue_id"), row.get("turn"))
        cure = "Name the predictions.jsonl of a generator."
        if not isinstance(place[0], str) or not isinstance(place[1], int):
            raise where.error("a text 'dialogue_id' and a number 'turn'", f"{describe(list(place))}", cure)
        if not isinstance(text, str):
            raise where.error("an object with a text 'text'", describe(generated), cure, "generated")
        if place in replies:
            raise where.error("one reply a turn", f"a second one for turn {place[1]} of {place[0]}", "Keep one.")
        replies[place[0], place[1]] = text
    return replies


def pair_replies(
    a: dict[tuple[str, int], str], b: dict[tuple[str, int], str], contexts: dict[tuple[str, int], list[dict[str, Any]]]
) -> tuple[list[ReplyPair], dict[str, int]]:
    """Bring together what both systems answered.

    Args:
        a: Replies of the first system.
        b: Replies of the second system.
        contexts: The turns before each answered turn.

    Returns:
        The pairs that can be judged, in the order of `a`; and how many turns were left out: `only_a` and `only_b`
        (answered by one system), `identical` (nothing to choose).

    Raises:
        PessError: If no pair is left, or the conversation of one is not known.

    Example:
        >>> pairs, left_out = pair_replies({("d", 1): "Hm.", ("d", 3): "Oh."}, {("d", 1): "Ah."}, {("d", 1): []})
        >>> len(pairs), left_out
        (1, {'only_a': 1, 'only_b': 0, 'identical': 0})
    """
    both = [place for place in a if place in b]
    differ = [place for place in both if a[place].split() != b[place].split()]
    left_out = {"only_a": len(a) - len(both), "only_b": len(b) - len(both), "identical": len(both) - len(differ)}
    if not differ:
        raise PessError(f"replies: expected turns that both systems answer differently, found none ({left_out}).")
    for dialogue_id, turn in differ:
        if (dialogue_id, turn) not in contexts:
            raise PessError(
                f"replies: expected turn {turn} of {dialogue_id} among the conversations, found it not. "
                "Name the data and split that the replies were written for."
            )
    pairs = [ReplyPair(*place, contexts[place], a[place], b[place]) for place in differ]
    return pairs, left_out


def write_pages(
    folder: str | Path, pairs: Sequence[ReplyPair], systems: dict[str, str], raters: int, seed: int, **notes: Any
) -> list[Path]:
    """Write one page per rater, and the key in a folder of its own.

    Args:
        folder: Where the pages go; the key goes to `key/` within it. Give raters the pages only.
        pairs: What is judged. Each rater sees all of it, in an order of his own, sides chosen anew.
        systems: Names of the systems "a" and "b", for the key.
        raters: How many pages.
        seed: Decides orders and sides.
        notes: Written into the key as they are.

    Returns:
        The pages.

    Example:
        >>> pair = ReplyPair("d", 1, [{"speaker": "seeker", "text": "I lost my job."}], "Oh no.", "Hm.")
        >>> write_pages("study", [pair], {"a": "base", "b": "pess"}, raters=1, seed=0)
        [PosixPath('study/rater_1.html')]
    """
    folder = prepare_output_dir(folder)
    study = hashlib.sha256(json.dumps([seed, [vars(pair) for pair in pairs]]).encode()).hexdigest()[:12]
    names = [f"item_{number:04d}" for number in range(1, len(pairs) + 1)]
    sides: dict[str, dict[str, str]] = {}
    pages = []
    for rater in (f"rater_{number}" for number in range(1, raters + 1)):
        rng = random.Random(f"{seed} {rater}")
        sides[rater] = {name: rng.choice("ab") for name in names}
        order = rng.sample(range(len(pairs)), len(pairs))
        items = [_item(names[place], pairs[place], sides[rater][names[place]]) for place in order]
        pages.append(folder / f"{rater}.html")
        _write_page(pages[-1], study, rater, items)
    places = {name: [pair.dialogue_id, pair.turn] for name, pair in zip(names, pairs, strict=True)}
    key = {"study": study, "systems": systems, "seed": seed, "items": places, "left": sides, **notes}
    write_json(prepare_output_dir(folder / "key") / KEY_FILE, key)
    return pages


def _item(name: str, pair: ReplyPair, left: str) -> dict[str, Any]:
    replies = (pair.a, pair.b) if left == "a" else (pair.b, pair.a)
    return {"id": name, "context": pair.context, "left": replies[0], "right": replies[1]}


def _write_page(path: Path, study: str, rater: str, items: list[dict[str, Any]]) -> None:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pess_hf"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("human_eval.html.jinja")
    with atomic_write(path) as file:
        file.write(template.render(study=study, rater=rater, items=items, aspects=ASPECTS, choices=CHOICES))
