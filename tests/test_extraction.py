"""Batch extraction: order, batches, duplicates, modes, generation settings."""

import pytest
import torch
from tiny_extractor import tiny_bart, tiny_encoder_decoder, tiny_t5
from tiny_tokenizers import byte_level_tokenizer, unigram_tokenizer
from transformers import GenerationConfig

from pess_hf import PessError
from pess_hf.text import unique_sentences

DIALOGUES = [
    ["I sing.", "My dogs bark all day, you know."],
    ["Snow!"],
    ["I work as a nurse.", "I like the sea.", "Chess on Sundays is what I live for.", "Hello."],
    ["My name is Ann."],
    ["Do you have a garden?", "I drive an old car to work."],
]
KINDS = {
    "bart": (tiny_bart, byte_level_tokenizer),
    "t5": (tiny_t5, unigram_tokenizer),
    "encoder-decoder": (tiny_encoder_decoder, byte_level_tokenizer),
}


def lively(kind, seed=1):
    """A tiny model whose text depends on its source."""
    model = KINDS[kind][0](seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.7)
    return model


def extract(model, kind="bart", dialogues=DIALOGUES, **settings):
    settings = {"max_new_tokens": 12, "disable_tqdm": True} | settings
    return model.extract(dialogues, KINDS[kind][1](), **settings)


def scripted(model, text):
    """Make `generate` write `text` for every dialogue."""
    tokenizer = byte_level_tokenizer()
    ids = torch.tensor(tokenizer(text)["input_ids"])
    model.generate = lambda input_ids, **_: ids.expand(len(input_ids), -1)
    return model


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_order_and_texts_are_those_of_one_by_one(kind):
    model = lively(kind)
    alone = [extract(model, kind, [dialogue])[0] for dialogue in DIALOGUES]
    assert len({tuple(persona) for persona in alone}) >= 3
    for batch_size in (1, 2, 3, 16):
        assert extract(model, kind, batch_size=batch_size) == alone
    assert extract(model, kind, DIALOGUES[::-1], batch_size=2) == alone[::-1]


def test_batches_are_sorted_by_length():
    model, widths = lively("bart"), []
    generate = model.generate
    model.generate = lambda input_ids, **kwargs: (widths.append(input_ids.shape), generate(input_ids, **kwargs))[1]
    extract(model, batch_size=2)
    assert [rows for rows, _ in widths] == [2, 2, 1]
    assert [width for _, width in widths] == sorted((width for _, width in widths), reverse=True)
    assert len({width for _, width in widths}) == 3


def test_duplicates_are_folded_and_empty_pieces_dropped():
    model = scripted(tiny_bart(), "I sing. | i  SING. | | I ski. |")
    assert extract(model, dialogues=[["Hello."]]) == [["I sing.", "I ski."]]
    assert unique_sentences(["b", "a", "B "]) == ["b", "a"]


def test_the_models_own_separator_splits():
    model = scripted(tiny_bart(), "I sing; I ski | fast").set_separators(persona="; ")
    assert extract(model, dialogues=[["Hello."]]) == [["I sing", "I ski | fast"]]


def test_the_models_own_separator_joins_utterances():
    seen, tokenizer = [], byte_level_tokenizer()
    model = scripted(tiny_bart(), "I sing.").set_separators(utterance=" ; ")
    generate = model.generate
    model.generate = lambda input_ids, **_: (seen.append(input_ids[0]), generate(input_ids))[1]
    extract(model, dialogues=[["Hello.", "I ski."]])
    assert tokenizer.decode(seen[0], skip_special_tokens=True) == "Hello. ; I ski."


def test_no_dialogue_gives_no_persona():
    assert extract(tiny_bart(), dialogues=[]) == []


@pytest.mark.parametrize("empty", [[], [" "], ["", "\n"]])
def test_a_dialogue_without_text_is_refused_in_one_line(empty):
    with pytest.raises(PessError, match=r"^dialogue 1: expected at least one utterance with text") as caught:
        extract(tiny_bart(), dialogues=[["Hello."], empty])
    assert "\n" not in str(caught.value)


def test_a_text_in_place_of_utterances_is_refused_in_one_line():
    with pytest.raises(PessError, match=r"^dialogue 1: expected a list of utterances, found one text. Put it into a"):
        extract(lively("bart"), dialogues=[["I sing."], "I sing."])


def test_an_utterance_without_text_is_passed_over():
    model = lively("bart")
    expected = extract(model, dialogues=[["Hi.", "I sing."]], utterance_window=1)
    assert extract(model, dialogues=[["Hi.", " ", "I sing."]], utterance_window=1) == expected


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused_in_one_line(batch_size):
    with pytest.raises(PessError, match=f"^batch_size: expected 1 or more, found {batch_size}"):
        extract(tiny_bart(), batch_size=batch_size)


@pytest.mark.parametrize("max_source_length", [0, 2, -5])
def test_a_source_length_without_room_for_text_is_refused_in_one_line(max_source_length):
    with pytest.raises(PessError, match=f"^max_source_length: expected .* found {max_source_length}"):
        extract(tiny_bart(), max_source_length=max_source_length)


def test_the_oldest_utterances_are_left_out_first():
    seen, tokenizer = [], byte_level_tokenizer()
    model = scripted(tiny_bart(), "I sing.")
    generate = model.generate
    model.generate = lambda input_ids, **_: (seen.append(input_ids[0]), generate(input_ids))[1]
    extract(model, dialogues=[["I drive an old car to work.", "I sing."]], max_source_length=10)
    assert tokenizer.decode(seen[0], skip_special_tokens=True) == "I sing."


@pytest.mark.parametrize("training", [True, False])
def test_modes_and_gradient_checkpointing_are_restored(training):
    model = tiny_bart(dropout=0.4, init_std=0.7)
    expected = extract(model.eval())
    model.gradient_checkpointing_enable()
    model.train(training)
    model.model.encoder.eval()
    before = [module.training for module in model.modules()]
    assert extract(model) == expected  # neither dropout nor checkpointing touches what is written
    assert [module.training for module in model.modules()] == before
    assert model.is_gradient_checkpointing
    model(input_ids=torch.ones(1, 3, dtype=torch.long), decoder_input_ids=torch.ones(2, 3, dtype=torch.long))
    assert torch.is_grad_enabled()


def test_modes_are_restored_after_an_error():
    model = tiny_bart().train()
    with pytest.raises(ValueError):
        extract(model, no_such_setting=3)
    assert model.training


def test_generation_settings_are_honoured():
    model = lively("bart")
    assert extract(model, max_new_tokens=2) != extract(model, max_new_tokens=12)
    spied = []
    generate = model.generate
    model.generate = lambda **kwargs: (spied.append(kwargs), generate(**kwargs))[1]
    extract(model, num_beams=2, length_penalty=0.5)
    assert spied[0]["num_beams"] == 2 and spied[0]["length_penalty"] == 0.5


def test_two_beams_write_what_generate_writes_with_two_beams():
    differ = 0
    for seed in range(2):
        model, tokenizer = lively("bart", seed).eval(), byte_level_tokenizer()
        beams = extract(model, num_beams=2)
        for dialogue, persona in zip(DIALOGUES, beams, strict=True):
            batch = tokenizer([" | ".join(dialogue)], return_tensors="pt")
            ids = model.generate(input_ids=batch["input_ids"], num_beams=2, max_new_tokens=12)
            text = tokenizer.decode(ids[0], skip_special_tokens=True)
            assert persona == unique_sentences([" ".join(p.split()) for p in text.split("|") if p.strip()])
        differ += beams != extract(model)
    assert differ > 0  # two beams are not greedy decoding


def test_a_progress_bar_counts_dialogues(capsys):
    extract(tiny_bart(), disable_tqdm=False, max_new_tokens=1)
    assert "5/5" in capsys.readouterr().err
    extract(tiny_bart(), disable_tqdm=True, max_new_tokens=1)
    assert "5/5" not in capsys.readouterr().err


class Counting:
    """Stands in for `generate` and counts the rows that it is given."""

    def __init__(self, model):
        self.generate, self.rows = model.generate, 0

    def __call__(self, input_ids, **settings):
        self.rows += len(input_ids)
        return self.generate(input_ids=input_ids, **settings)


def test_what_reads_alike_is_read_once(capsys):
    model = lively("bart")
    alone = [extract(model, dialogues=[dialogue])[0] for dialogue in DIALOGUES]
    model.generate = Counting(model)
    assert extract(model, dialogues=DIALOGUES * 3, batch_size=2, disable_tqdm=False) == alone * 3
    assert model.generate.rows == len(DIALOGUES)
    assert "15/15" in capsys.readouterr().err


def test_prefixes_share_their_windows():
    model = lively("bart")
    turns = DIALOGUES[2]
    prefixes = [turns[:number] for number in range(1, len(turns) + 1)]
    alone = [extract(model, dialogues=[prefix], utterance_window=1)[0] for prefix in prefixes]
    model.generate = Counting(model)
    assert extract(model, dialogues=prefixes, utterance_window=1) == alone
    assert model.generate.rows == len(turns)


DRAWING = {
    "call": (None, {"do_sample": True}, 3),
    "passed config": (None, {"generation_config": GenerationConfig(do_sample=True)}, 3),
    "own config": (True, {}, 3),
    "own config, but None in the call": (True, {"do_sample": None}, 1),
    "own config, a passed one that does not say": (True, {"generation_config": GenerationConfig()}, 3),
    "own config, but not in this call": (True, {"do_sample": False}, 1),
    "nowhere": (None, {}, 1),
}


@pytest.mark.parametrize(("own", "settings", "read"), DRAWING.values(), ids=DRAWING.keys())
def test_every_drawn_answer_is_drawn_anew(own, settings, read):
    model = lively("bart")
    model.generation_config.do_sample = own
    model.generate = Counting(model)
    extract(model, dialogues=[DIALOGUES[0]] * 3, **settings)
    assert model.generate.rows == read
