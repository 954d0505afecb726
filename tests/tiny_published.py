"""Tiny models of every kind that is published, and run folders as a recipe leaves them."""

import json

import torch
from tiny_tokenizers import byte_level_tokenizer, unigram_tokenizer
from transformers import BartConfig, BertConfig, EncoderDecoderConfig, T5Config

from pess_hf.modeling_extractor import PessEncoderDecoderExtractor, PessExtractor, PessT5Extractor

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"
ARGUMENTS = {
    "completeness_weight": 1.0,
    "consistency_weight": 0.1,
    "consistency_temperature": 0.1,
    "similarity_model": "sentence-transformers/all-MiniLM-L6-v2",
    "similarity_threshold": 0.6,
    "learning_rate": 5e-05,
    "max_steps": 1,
    "seed": 42,
    "model_name_or_path": "facebook/bart-base",
    "train_data": ["sample"],
}
RUN = {
    "recipe": "train_extractor.py",
    "command": f"accelerate launch recipes/train_extractor.py --hub_token {TOKEN}",
    "arguments": ARGUMENTS,
    "versions": {"pess_hf": "0.1.0"},
    "train_rows": 4,
    "seconds": 1.0,
}
METRICS = {"test_persona_precision": 0.25, "test_persona_recall": 0.5, "test_persona_f1": 0.3333, "test_loss": 2.0}
DIALOGUE_TEXT = "My aunt Philomena keeps eleven geese."

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


def make_run(folder, model=None, tokenizer=None, **files):
    """A folder as train_extractor.py leaves it, with what must never be published."""
    folder.mkdir(parents=True, exist_ok=True)
    if model is not False:
        (model or tiny_extractor()).save_pretrained(folder)
    (tokenizer or bart_tokenizer()).save_pretrained(folder)
    for name, value in ({"metrics": METRICS, "run": RUN, "trainer_state": {"global_step": 1}} | files).items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    row = {"dialogue_id": "1", "reference": [DIALOGUE_TEXT], "generated": [DIALOGUE_TEXT]}
    (folder / "predictions.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / "checkpoint-1").mkdir(exist_ok=True)
    (folder / "checkpoint-1" / "optimizer.pt").write_bytes(b"pickle")
    (folder / "checkpoint-1" / "rollouts_0.safetensors").write_bytes(b"ids")
    return folder
