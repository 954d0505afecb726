"""Rows of one dialogue or one speaker are recognised across files, and kept out of training where told."""

import json
import logging

import pytest

from pess_hf import PessError
from pess_hf.data import group_of, load_persona_dataset, row_groups
from pess_hf.data.groups import same_turns
from pess_hf.data.overlap import find_overlap, without_overlap
from pess_hf.extractor_args import PersonaDataArguments, load_splits, split_by_group

SAID = [
    ["My two dogs sleep all day long.", "We moved to the sea in May.", "Nobody here plays the old organ."],
    ["The bakery opens at four each day.", "I broke my arm as a child.", "Her garden is full of red tulips."],
    ["Trains are what I paint on Sundays.", "My sister flies small planes for fun.", "I cook for ten most evenings."],
]
PERSONAS = [["I have two dogs.", "I live by the sea."], ["I bake.", "I broke my arm."], ["I paint.", "I cook."]]


def parlai(path, dialogues=SAID):
    """Dialogues in ParlAI's form; the partner says SAID[n] in lower case and with blanks before the full stops."""
    lines = []
    for n, turns in enumerate(dialogues):
        block = ["your persona: i nod .", *(f"partner's persona: {sentence.lower()}" for sentence in PERSONAS[n])]
        block += [
            f"{turn.lower().replace('.', ' .')}\tso you say that , number {n} {t}" for t, turn in enumerate(turns)
        ]
        lines += [f"{number} {text}" for number, text in enumerate(block, start=1)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def msc(path, episodes, said=SAID):
    """MSC episodes by number: bot_0 says SAID[n] as written."""
    with path.open("w") as file:
        for n in episodes:
            turns = [{"id": "bot_0", "text": turn, "agg_persona_list": ["I am somebody."]} for turn in said[n]]
            turns.append({"id": "bot_1", "text": "Is that so?", "agg_persona_list": []})
            file.write(json.dumps({"initial_data_id": f"valid_{n}", "dialog": turns}) + "\n")
    return str(path)


def rows(path, ids, said, personas=None):
    with path.open("w") as file:
        for n, (name, turns) in enumerate(zip(ids, said, strict=True)):
            persona = personas[n] if personas else [f"I am {name}."]
            file.write(json.dumps({"dialogue_id": name, "utterances": turns, "persona": persona}) + "\n")
    return str(path)


class TestGroups:
    def test_session_1_is_the_persona_chat_dialogue_of_its_number(self, tmp_path):
        chats = load_persona_dataset(parlai(tmp_path / "valid_both_original_no_cands.txt"))
        first = load_persona_dataset(msc(tmp_path / "session_1_valid.jsonl", [0, 2]))
        later = load_persona_dataset(msc(tmp_path / "session_4_valid.jsonl", [2], said=[[], [], ["Good day."]]))
        groups = {
            name: set(map(group_of, part["dialogue_id"]))
            for name, part in {"chats": chats, "first": first, "later": later}.items()
        }
        assert groups["chats"] == {"convai2/valid_0", "convai2/valid_1", "convai2/valid_2"}
        assert groups["first"] == {"convai2/valid_0", "convai2/valid_2"}
        assert groups["later"] == {"convai2/valid_2"}

    @pytest.mark.parametrize(
        "one",
        ["personachat/train_both_original/7/your", "personachat/chats/7/your", "spc/valid_both_original/7/user_1"],
    )
    def test_other_files_and_splits_are_other_dialogues(self, one):
        assert group_of(one) != group_of("msc/session_1_valid/valid_7/bot_0")

    def test_the_same_turns_under_other_ids_are_one_group(self, tmp_path):
        chats = load_persona_dataset(parlai(tmp_path / "chats.txt"))  # a name that says no split
        first = load_persona_dataset(msc(tmp_path / "session_1_valid.jsonl", [1]))
        ids = [*chats["dialogue_id"], *first["dialogue_id"]]
        groups = dict(zip(ids, row_groups(ids, [*chats["utterances"], *first["utterances"]]), strict=True))
        assert groups["msc/session_1_valid/valid_1/bot_0"] == groups["personachat/chats/1/partner"]
        # The partner's row goes along, though its own words differ.
        assert groups["personachat/chats/1/your"] == groups["msc/session_1_valid/valid_1/bot_1"]
        assert len(set(groups.values())) == 3

    def test_short_stock_and_few_utterances_join_nothing(self):
        greeting = ["Hi, how are you?"] * 3
        assert same_turns([greeting, greeting]) == []
        assert same_turns([SAID[0][:2], SAID[0][:2]]) == []
        half = [*SAID[0], *SAID[1]]
        assert same_turns([half, [*SAID[0], *SAID[2]]]) == []
        assert same_turns([half, [*SAID[0], SAID[2][0]]]) == [(0, 1)]
        assert same_turns([SAID[0]] * 20) != [] and same_turns([SAID[0]] * 21) == []

    def test_a_split_keeps_both_copies_on_one_side(self, tmp_path):
        names = [f"row-{n}" for n in range(12)]
        said = [[f"{turn[:-1]} in year {n}." for turn in SAID[n % 3]] for n in range(12)]
        first = rows(tmp_path / "a.jsonl", names, said)
        copies = rows(tmp_path / "b.jsonl", [f"copy-{n}" for n in range(12)], said)
        both = load_persona_dataset([first, copies])
        for seed in range(5):
            kept, aside = split_by_group(both, 0.25, seed)
            assert len(aside) == 6
            assert not {tuple(u) for u in kept["utterances"]} & {tuple(u) for u in aside["utterances"]}


class TestOverlap:
    @pytest.fixture
    def files(self, tmp_path):
        train = rows(
            tmp_path / "train.jsonl",
            ["msc/session_2_valid/valid_7/bot_0", "b", "c", "d"],
            [["Good morning."], SAID[1], ["I do not know."], ["Nothing in common."]],
            [["I am a."], ["I am b."], ["I PAINT.", "I  cook."], ["I bake."]],
        )
        test = rows(
            tmp_path / "test.jsonl",
            ["personachat/valid_self_original/7/your", "x", "y", "z"],
            [["Hello."], SAID[1], ["What?"], ["Who?"]],
            [["I am w."], ["I am x."], ["I cook.", "I paint."], ["I bake."]],
        )
        return train, test

    def test_it_is_found_by_id_by_words_and_by_persona(self, files):
        train, test = map(load_persona_dataset, files)
        found = find_overlap(test, train)
        assert found.groups == [0, 1]
        assert found.personas == [2]  # one shared sentence alone is chance
        assert list(without_overlap(train, test)["dialogue_id"]) == ["d"]

    def test_training_says_so_once_and_exclude_data_mends_it(self, files, caplog):
        train, test = files
        with caplog.at_level(logging.WARNING):
            load_splits(PersonaDataArguments(train_data=[train], test_data=[test]))
        [message] = [record.getMessage() for record in caplog.records]
        assert "test rows: of 4, 2 share a dialogue or a speaker" in message and "1 a whole persona" in message
        assert "Good" not in message and "cook" not in message
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            splits = load_splits(PersonaDataArguments(train_data=[train], test_data=[test], exclude_data=[test]))
        assert [record.getMessage() for record in caplog.records] == [
            "exclude_data: 3 of 4 training rows are left out."
        ]
        assert list(splits.train["dialogue_id"]) == ["d"] and len(splits.test) == 4

    def test_nothing_left_to_train_on_is_an_error(self, files):
        with pytest.raises(PessError, match="exclude_data: expected to keep training rows, found all 4"):
            load_splits(PersonaDataArguments(train_data=[files[0]], exclude_data=[files[0]]))

    def test_the_embedded_corpus_has_none(self, caplog):
        sample = {"train_data": ["sample"], "test_data": ["sample"], "test_split": "test"}
        with caplog.at_level(logging.WARNING):
            load_splits(PersonaDataArguments(validation_data=["sample"], validation_split="validation", **sample))
        assert caplog.records == []
