"""Consensus: what is kept of several answers, their probabilities, extraction with it, refusals."""

import json

import numpy as np
import pytest
import torch
from fake_encoder import FakeEncoder
from recipe_runs import flags, recipe, save_model, write_rows
from test_extraction import DIALOGUES, KINDS, extract, lively
from transformers import GenerationConfig

from pess_hf import Consensus, PersonaMatcher, PessError
from pess_hf.consensus import agreed_sentences, answer_shares
from pess_hf.extraction import TorchEngine
from pess_hf.fast_engine import CTranslate2Engine
from pess_hf.run_predictions import find_runs, read_predictions
from pess_hf.text import split_pieces

# Two wordings of one thing (cosine 0.96), one sentence near the second wording only (0.8), and one apart.
VECTORS = {"I have dogs.": [1, 0], "I own dogs.": [0.96, 0.28], "I own a dog.": [0.6, 0.8], "I sing.": [-1, 0]}


def agree(*answers, **settings):
    consensus = Consensus(PersonaMatcher(FakeEncoder(VECTORS)), **settings)
    return consensus.agree([[(sentences, float(np.log(share))) for sentences, share in answers]])[0]


def test_wordings_that_say_the_same_add_up_against_silence():
    answers = [([], 0.5), (["I have dogs."], 0.2), (["I own dogs."], 0.25), (["I sing."], 0.05)]
    assert agree(*answers, share=0.4, similarity=0.9) == ["I own dogs."]
    assert agree(*answers, share=0.4, similarity=0.99) == []
    assert agree(*answers, share=0.04, similarity=0.9) == ["I own dogs.", "I sing."]


def test_an_answer_that_says_a_thing_twice_counts_once():
    assert agree((["I have dogs.", "I own dogs."], 0.3), (["I sing."], 0.7), share=0.4, similarity=0.9) == ["I sing."]


def test_what_is_near_a_kept_sentence_supports_no_other():
    near = [(["I own dogs."], 0.6), (["I own a dog."], 0.2), (["I sing."], 0.2)]
    assert agree(*near, share=0.1, similarity=0.7) == ["I own dogs.", "I sing."]
    assert agree(*near, share=0.3, similarity=0.9) == ["I own dogs."]


def test_of_two_wordings_with_the_same_support_the_likelier_is_kept():
    for first, second in (("I have dogs.", "I own dogs."), ("I own dogs.", "I have dogs.")):
        assert agree(([first], 0.4), ([second], 0.6), similarity=0.9) == [second]


def test_case_and_white_space_make_no_new_sentence():
    assert agree((["I sing."], 0.3), (["i  sing."], 0.3), ([], 0.4), share=0.5) == ["I sing."]


def test_silence_and_no_reading_give_nothing():
    consensus = Consensus(PersonaMatcher(FakeEncoder()))
    assert consensus.agree([]) == []
    assert consensus.agree([[([], -1.0), ([], -2.0)]]) == [[]]
    assert agreed_sentences([[]], np.ones(1), [], np.zeros((0, 0), dtype=bool), 0.5) == []


def test_nothing_is_embedded_where_silence_outweighs_all_sentences():
    encoder = FakeEncoder(VECTORS)
    consensus = Consensus(PersonaMatcher(encoder), share=0.2)
    readings = [[([], np.log(0.9)), (["I sing."], np.log(0.1))], [(["I have dogs."], 0.0)]]
    assert consensus.agree(readings) == [[], ["I have dogs."]]
    assert encoder.calls == [["I have dogs."]]


def test_what_every_answer_says_has_all_of_the_share():
    # The probabilities of these two add up to a little less than 1.
    log_probs = (-1.2 / 3, -2.3 / 7, -0.1, -0.7, -1.9, -2.2, -0.3)
    for number in range(2, len(log_probs) + 1):
        consensus = Consensus(PersonaMatcher(FakeEncoder()), num_answers=number, share=1.0)
        assert consensus.agree([[(["I sing."], one) for one in log_probs[:number]]]) == [["I sing."]]


@pytest.mark.parametrize("log_probs", [[], [float("nan"), -1.0], [-1.0, float("nan")], [-float("inf")] * 2])
def test_answers_without_a_probability_are_an_error(log_probs):
    with pytest.raises(PessError, match="consensus: expected log-probabilities of answers, found"):
        answer_shares(log_probs)


def test_shares_are_probabilities_also_where_they_are_tiny():
    assert answer_shares([-1000.0, -1000.0 + np.log(3)]) == pytest.approx([0.25, 0.75])


SEARCHES = {
    "free": {"forced_eos_token_id": None},
    "forced end": {"max_new_tokens": 6},
    "forced end after the config's length": {"max_new_tokens": None, "max_length": 7},
    "not too short": {"min_new_tokens": 5, "max_new_tokens": 8},
    "other ends": {"eos_token_id": [2, 28]},
    "config": {"max_new_tokens": None, "generation_config": GenerationConfig(max_new_tokens=7, eos_token_id=[2, 28])},
}


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
def test_log_probabilities_are_those_of_the_search(kind, search):
    model, tokenizer = lively(kind).eval(), KINDS[kind][1]()
    own = {name: search[name] for name in ("forced_eos_token_id", "max_length") if name in search}
    model.generation_config.update(**own)
    settings = {"max_new_tokens": 12} | {name: value for name, value in search.items() if name not in own}
    sources = [tokenizer(text)["input_ids"] for text in ("My dogs bark all day, you know.", "I sing.")]
    answers = TorchEngine(model, tokenizer).write_likeliest(sources, 4, settings)
    for source, several in zip(sources, answers, strict=True):
        beams = {"num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.0}
        asked = {"output_scores": True, "return_dict_in_generate": True}
        expected = model.generate(input_ids=torch.tensor([source]), **settings, **beams, **asked)
        texts = tokenizer.batch_decode(expected.sequences, skip_special_tokens=True)
        assert [text for text, _ in several] == texts and len(set(texts)) > 1
        assert [log for _, log in several] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-4)


@pytest.mark.parametrize("kind", ["bart", "t5"])
@pytest.mark.parametrize("forced", [False, True])
def test_ctranslate2_finds_the_same_answers(kind, forced, tmp_path):
    model, tokenizer = lively(kind).eval(), KINDS[kind][1]()
    model.generation_config.forced_eos_token_id = model.generation_config.eos_token_id if forced else None
    engines = TorchEngine(model, tokenizer), CTranslate2Engine(model, tokenizer, "float32", tmp_path)
    sources = [tokenizer(" | ".join(utterances))["input_ids"] for utterances in DIALOGUES]
    ours, theirs = (engine.write_likeliest(sources, 3, {"max_new_tokens": 12}) for engine in engines)
    for several, others in zip(ours, theirs, strict=True):
        assert [text for text, _ in others] == [text for text, _ in several]
        assert [log for _, log in others] == pytest.approx([log for _, log in several], abs=1e-3)


def test_an_end_that_the_converted_model_does_not_know_is_refused(tmp_path):
    model, tokenizer = lively("bart"), KINDS["bart"][1]()
    engine = CTranslate2Engine(model, tokenizer, "float32", tmp_path)
    with pytest.raises(PessError, match="eos_token_id=28: expected the model's own, 2"):
        engine.write([[0, 5, 2]], {"eos_token_id": 28, "max_new_tokens": 4})
    assert engine.write([[0, 5, 2]], {"eos_token_id": 2, "max_new_tokens": 4})


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_extraction_is_that_of_one_by_one(kind):
    model, consensus = lively(kind), Consensus(PersonaMatcher(FakeEncoder()), num_answers=4, share=0.2)
    alone = [extract(model, kind, [dialogue], consensus=consensus)[0] for dialogue in DIALOGUES]
    assert any(alone) and alone != extract(model, kind)
    for batch_size in (1, 3, 16):
        assert extract(model, kind, batch_size=batch_size, consensus=consensus) == alone


def test_it_keeps_what_its_engine_found():
    model, tokenizer = lively("bart"), KINDS["bart"][1]()
    consensus = Consensus(PersonaMatcher(FakeEncoder()), num_answers=4, share=1e-9, similarity=1.0)
    [several] = TorchEngine(model, tokenizer).write_likeliest(
        [tokenizer("I sing.")["input_ids"]], 4, {"max_new_tokens": 12}
    )
    wanted = {sentence for text, _ in several for sentence in split_pieces(text, " | ")}
    assert set(extract(model, dialogues=[["I sing."]], consensus=consensus)[0]) == wanted


@pytest.mark.parametrize(
    "name, value",
    [("num_beams", 4), ("do_sample", True), ("length_penalty", 2.0), ("return_dict_in_generate", True)],
)
@pytest.mark.parametrize("passed", [False, True])
def test_another_search_is_refused(name, value, passed):
    settings = {"generation_config": GenerationConfig(**{name: value})} if passed else {name: value}
    with pytest.raises(PessError, match=f"^{name}: expected none with a consensus, .* found {value}. Leave it out.$"):
        extract(lively("bart"), consensus=Consensus(PersonaMatcher(FakeEncoder())), **settings)


@pytest.mark.parametrize("engine", ["torch", "ctranslate2"])
def test_a_model_that_samples_of_itself_does_not_here(engine):
    consensus = Consensus(PersonaMatcher(FakeEncoder()), num_answers=4, share=0.2)
    expected = extract(lively("bart"), consensus=consensus)
    model = lively("bart")
    model.generation_config.do_sample = True
    assert extract(model, consensus=consensus, engine=engine) == expected


@pytest.mark.parametrize(
    "name, value", [("num_answers", 1), ("share", 0.0), ("share", 1.5), ("share", float("nan")), ("similarity", 2.0)]
)
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(PessError, match=f"^{name.removeprefix('num_')}: expected .* found {value}"):
        Consensus(PersonaMatcher(FakeEncoder()), **{name: value})


def test_the_recipes_extract_and_measure_with_it(tmp_path):
    model, rows = save_model(tmp_path / "model"), write_rows(tmp_path / "rows.jsonl")
    files = [tmp_path / "best.jsonl", tmp_path / "agreed.jsonl"]
    for file, more in zip(files, ({}, {"consensus_answers": 4, "consensus_share": 0.05}), strict=True):
        recipe("extract").main(flags(model=model, input=rows, output=file, disable_tqdm=True, **more))
    best, agreed = ([json.loads(line)["persona"] for line in file.read_text().splitlines()] for file in files)
    assert len(agreed) == len(best) == 8 and agreed != best
    scores = tmp_path / "scores.json"
    more = {"consensus_answers": 4, "consensus_share": 0.05, "predictions": tmp_path / "predictions.jsonl"}
    recipe("evaluate_extractor").main(flags(model=model, data=rows, output=scores, **more))
    assert json.loads(scores.read_text())["rows"] == 8
    [run] = find_runs([str(tmp_path)])
    assert read_predictions(run).generated == agreed


def test_wordings_of_one_thing_count_once_where_it_is_asked_for(tmp_path):
    rows, found = tmp_path / "rows.jsonl", []
    said = {"dialogue_id": "d", "utterances": ["I have two dogs.", "I own two dogs."], "persona": ["I have two dogs."]}
    rows.write_text(json.dumps(said) + "\n")
    for strict in (False, True):
        scores = tmp_path / f"{strict}.json"
        recipe("evaluate_extractor").main(flags(model="first-person", data=rows, output=scores, one_to_one=strict))
        found.append(json.loads(scores.read_text())["persona_precision"])
    assert found == [1.0, 0.5]


@pytest.mark.parametrize(
    "more, message",
    [
        ({"consensus_answers": 1}, r"^consensus_answers: expected 2 or more, found 1\."),
        ({"consensus_answers": 4, "consensus_share": 2}, r"^consensus_share: expected .* found 2\.0"),
        ({"consensus_answers": 4, "num_beams": 2}, r"^num_beams: expected none with consensus_answers=4"),
        ({"consensus_share": 0.2}, r"^consensus_share: expected none without consensus_answers, found 0\.2\."),
        ({"consensus_model": "x"}, r"^consensus_model: expected none without consensus_answers, found x\."),
    ],
)
def test_the_recipes_refuse_what_does_not_fit(tmp_path, more, message):
    for name, source in (("extract", "input"), ("evaluate_extractor", "data")):
        with pytest.raises(PessError, match=message):
            recipe(name).main(flags(model="m", output=tmp_path / "out.jsonl", **{source: "sample"}, **more))


def test_the_floor_writes_no_answers_to_weigh(tmp_path):
    with pytest.raises(PessError, match=r"^consensus_answers: expected none with model 'first-person'"):
        settings = {"model": "first-person", "data": "sample", "output": tmp_path / "out.json"}
        recipe("evaluate_extractor").main(flags(**settings, consensus_answers=4))
