"""Tiny models of every kind that is published."""

import torch
from tiny_tokenizers import byte_level_tokenizer, unigram_tokenizer
from transformers import BartConfig, BertConfig, EncoderDecoderConfig, T5Config

from pess_hf.modeling_extractor import PessEncoderDecoderExtractor, PessExtractor, PessT5Extractor

BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 64,
}
BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 64,
}


def bart_tokenizer():
    return byte_level_tokenizer()


def ids_of(tokenizer):
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def tiny_extractor(seed=0):
    torch.manual_seed(seed)
    tokenizer = bart_tokenizer()
    config = BartConfig(**BART, **ids_of(tokenizer), decoder_start_token_id=tokenizer.eos_token_id)
    return _short(PessExtractor(config))


def tiny_t5_extractor(seed=0):
    torch.manual_seed(seed)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    ids = ids_of(unigram_tokenizer())
    return _short(PessT5Extractor(T5Config(**sizes, **ids, decoder_start_token_id=ids["pad_token_id"])))


def tiny_encoder_decoder_extractor(seed=0):
    torch.manual_seed(seed)
    ids = ids_of(bart_tokenizer())
    decoder = BertConfig(**BERT, **ids, is_decoder=True, add_cross_attention=True)
    config = EncoderDecoderConfig(encoder=BertConfig(**BERT, **ids).to_dict(), decoder=decoder.to_dict())
    config.decoder_start_token_id, config.pad_token_id = ids["bos_token_id"], ids["pad_token_id"]
    config.eos_token_id, config.vocab_size = ids["eos_token_id"], ids["vocab_size"]
    return _short(PessEncoderDecoderExtractor(config))


def _short(model):
    model.generation_config.max_new_tokens = 8
    return model.eval()


def same_weights(one, other):
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
