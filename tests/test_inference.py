"""Personas turn by turn: PAL's rules, one call for everything, the cache on the disk."""

import pytest
import torch
from datasets import Dataset
from tiny_support import CountingExtractor, byte_tokenizer

from pess_hf.data import load_support_dataset
from pess_hf.errors import PessError
from pess_hf.inference import PersonaFilter, PersonaTracker, infer_personas


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def dialogue(*turns, persona=None):
    """Turns such as "seeker: hi"."""
    pairs = [turn.split(": ") for turn in turns]
    row = {"turns": [{"speaker": speaker, "text": text, "strategy": None} for speaker, text in pairs]}
    return {"dialogue_id": "d", **row, "persona": persona or [[] for _ in turns]}


FOUR = ("seeker: a", "supporter: x", "seeker: b", "seeker: c", "supporter: y", "seeker: d", "supporter: z")


def infer(rows, tokenizer, tmp_path, extractor=None, **settings):
    extractor = extractor or CountingExtractor()
    return infer_personas(Dataset.from_list(rows), extractor, tokenizer, cache_dir=tmp_path, **settings)["persona"]


def test_personas_start_after_the_third_seeker_turn(tokenizer, tmp_path):
    (personas,) = infer([dialogue(*FOUR)], tokenizer, tmp_path)
    assert personas == [[], [], [], [], ["said: c"], ["said: c"], ["said: d"]]


def test_the_reader_of_pesconv_agrees_on_when(tokenizer, tmp_path):
    """What `persona_list` gives and what is inferred stand at the same turns."""
    from pess_hf.data.esconv import parse_esconv
    from pess_hf.data.options import Options
    from pess_hf.data.where import Where

    dialog = [{"speaker": turn.split(": ")[0], "content": turn.split(": ")[1]} for turn in FOUR]
    record = {"dialog": dialog, "persona_list": [["said: c"], ["said: d"]]}
    (row,) = parse_esconv([(Where("f", "line", 1), record)], "f", Options())
    (personas,) = infer([dialogue(*FOUR)], tokenizer, tmp_path)
    assert personas == row["persona"]


def test_all_prefixes_in_one_call_each_distinct_one_once(tokenizer, tmp_path):
    extractor = CountingExtractor()
    infer([dialogue(*FOUR), dialogue(*FOUR), dialogue(*FOUR[:5])], tokenizer, tmp_path, extractor)
    assert extractor.asked == [[("a", "b", "c"), ("a", "b", "c", "d")]]


def test_own_personas_stay_unless_replaced(tokenizer, tmp_path):
    own = [[] for _ in FOUR[:-1]] + [["i bake ."]]
    rows = [dialogue(*FOUR, persona=own), dialogue(*FOUR)]
    extractor = CountingExtractor()
    assert infer(rows, tokenizer, tmp_path, extractor)[0] == own
    assert infer(rows, tokenizer, tmp_path, extractor, replace=True)[0][-1] == ["said: d"]


def test_nothing_to_infer_asks_nobody(tokenizer, tmp_path):
    extractor = CountingExtractor()
    assert infer([dialogue("supporter: hi", "seeker: a")], tokenizer, tmp_path, extractor) == [[[], []]]
    assert extractor.asked == []


def test_a_second_run_reads_the_cache(tokenizer, tmp_path):
    extractor = CountingExtractor()
    rows = Dataset.from_list([dialogue(*FOUR)])
    first = infer_personas(rows, extractor, tokenizer, cache_dir=tmp_path)
    again = infer_personas(Dataset.from_list([dialogue(*FOUR)]), extractor, tokenizer, cache_dir=tmp_path)
    assert len(extractor.asked) == 1
    assert first.to_list() == again.to_list() and first._fingerprint == again._fingerprint
    changes = [
        (rows, extractor, {"num_beams": 2}),
        (rows, extractor, {"rules": PersonaFilter(max_words=9)}),
        (rows.select([0, 0]), extractor, {}),
    ]
    for dataset, asked, settings in changes:
        infer_personas(dataset, asked, tokenizer, cache_dir=tmp_path, **settings)
    assert len(extractor.asked) == 1 + len(changes)
    other = CountingExtractor()
    other.state_dict = lambda: {"weight": torch.ones(2)}
    infer_personas(rows, other, tokenizer, cache_dir=tmp_path)
    assert len(other.asked) == 1


def test_filter():
    assert PersonaFilter()(["one", "two words", "w " * 25, "w " * 26, "My  favorite band is x"]) == [
        "two words",
        "w " * 25,
    ]
    assert PersonaFilter(min_words=0, max_words=1, stock_phrases=())(["one", "two words"]) == ["one"]
    for settings in ({"first_inferred": 0}, {"min_words": 3, "max_words": 2}):
        with pytest.raises(PessError, match="expected"):
            PersonaFilter(**settings)


def test_tracker_forgets_the_oldest(tokenizer):
    extractor = CountingExtractor()
    tracker = PersonaTracker(extractor, tokenizer, PersonaFilter(first_inferred=1), cache_size=2)
    tracker.personas([["a"], ["b"], ["c"]])
    assert tracker.personas([["b"], ["c"], ["c"]]) == [["said: b"], ["said: c"], ["said: c"]]
    assert len(extractor.asked) == 1
    tracker.personas([["a"]])
    assert len(extractor.asked) == 2


def test_other_rows_are_refused(tokenizer):
    with pytest.raises(PessError, match=r"'turns' and 'persona', found text"):
        infer_personas(Dataset.from_dict({"text": ["a"]}), CountingExtractor(), tokenizer)


def test_the_sample_brings_its_reference_only_when_asked():
    assert not any(map(any, load_support_dataset("sample", "test")["persona"]))
    assert any(map(any, load_support_dataset("sample", "test", sample_reference=True)["persona"]))
