"""The public files themselves, where at hand: `PESS_DATA`, by default `../shared/data` from the repository."""

import os
from collections import Counter
from pathlib import Path

import pytest

from pess_hf.data import STRATEGIES, group_of, load_persona_dataset, load_support_dataset
from pess_hf.data.groups import same_turns
from pess_hf.data.overlap import find_overlap

ROOT = Path(__file__).parent.parent
DATA = ROOT / os.environ.get("PESS_DATA", "../shared/data")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the public data sets are not at {DATA}; set PESS_DATA")


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("personachat/valid_both_original_no_cands.txt", 2000),
        ("personachat/train_sample.jsonl", 1356),
        ("spc/Synthetic-Persona-Chat_valid.csv", 2000),
        *[(f"msc/session_{session}_valid.jsonl", 1000) for session in (1, 2, 3, 4)],
    ],
)
def test_persona_files(name, rows):
    dataset = load_persona_dataset(DATA / name)
    assert len(dataset) == rows
    assert len(set(dataset["dialogue_id"])) == rows
    assert all(dataset["utterances"])
    personas = sum(map(bool, dataset["persona"]))
    assert personas == rows if "msc" not in name else personas > 0.97 * rows


@pytest.mark.parametrize(("name", "rows"), [("train", 910), ("valid", 195)])
def test_support_files(name, rows):
    dataset = load_support_dataset(DATA / f"esconv/{name}.jsonl")
    assert len(dataset) == rows
    for row in dataset:
        assert len(row["persona"]) == len(row["turns"])
    spoken = Counter(
        turn["strategy"] for turns in dataset["turns"] for turn in turns if turn["speaker"] == "supporter"
    )
    assert set(spoken) == set(STRATEGIES)


def test_the_same_person_is_recognised_across_sessions():
    dataset = load_persona_dataset([DATA / f"msc/session_{session}_valid.jsonl" for session in (1, 2, 3, 4)])
    assert set(Counter(map(group_of, dataset["dialogue_id"])).values()) == {8}


def test_session_1_and_persona_chat_hold_the_same_dialogues():
    chats = load_persona_dataset(DATA / "personachat/valid_both_original_no_cands.txt")
    session = load_persona_dataset(DATA / "msc/session_1_valid.jsonl")
    assert set(map(group_of, session["dialogue_id"])) <= set(map(group_of, chats["dialogue_id"]))
    # The numbers say the same as the words do.
    both = [*chats["utterances"], *session["utterances"]]
    ids = [*chats["dialogue_id"], *session["dialogue_id"]]
    across = [(one, other) for one, other in same_turns(both) if one < len(chats) <= other]
    by_words = {ids[other] for one, other in across if group_of(ids[one]) == group_of(ids[other])}
    assert len(by_words) > 0.95 * len(session)
    assert find_overlap(session, chats).groups == list(range(len(session)))
