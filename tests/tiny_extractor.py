"""Tiny extractors, rows and a trainer whose rollouts are written down, for tests that run in milliseconds."""

import datasets
import numpy as np
import torch
from tiny_tokenizers import byte_level_tokenizer, unigram_tokenizer
from transformers import BartConfig, BertConfig, BertLMHeadModel, BertModel, T5Config

from pess_hf import PersonaMatcher, PessEncoderDecoderExtractor, PessExtractor, PessT5Extractor
from pess_hf.data.collator import PersonaCollator
from pess_hf.decoder_batch import Rollout
from pess_hf.trainer import PessTrainer
from pess_hf.training_args import PessTrainingArguments

FACTS = [
    "I have two dogs.",
    "I sing in a choir.",
    "I play chess.",
    "I drive an old car.",
    "I live in a small town.",
    "I am afraid of snow.",
    "I work as a nurse.",
    "I like the sea.",
]


def rows(number=8):
    """Rows whose personas differ in length."""
    return datasets.Dataset.from_list(
        [
            {
                "dialogue_id": f"row-{n}",
                "utterances": [f"Hello {n}.", *(f"You know, {fact.lower()}" for fact in _facts(n))],
                "persona": _facts(n),
            }
            for n in range(number)
        ]
    )


def _facts(n):
    return [FACTS[(n + k) % len(FACTS)] for k in range(2 + n % 3)]


def tiny_bart(seed=0, tokenizer=None, **changes):
    tokenizer = tokenizer or byte_level_tokenizer()
    torch.manual_seed(seed)
    size = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    width = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 256}
    config = BartConfig(vocab_size=len(tokenizer), **({"dropout": 0.0, "init_std": 0.5} | size | width | changes))
    return PessExtractor(config)


def tiny_t5(seed=0):
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(unigram_tokenizer()),
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return PessT5Extractor(config)


def tiny_encoder_decoder(seed=0):
    torch.manual_seed(seed)
    tokens = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    drop = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    common = {"vocab_size": len(byte_level_tokenizer()), **tokens, **size, **drop}
    encoder = BertModel(BertConfig(**common))
    decoder = BertLMHeadModel(BertConfig(**common, is_decoder=True, add_cross_attention=True))
    model = PessEncoderDecoderExtractor(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id, model.config.pad_token_id, model.config.eos_token_id = 0, 1, 2
    return model


class LetterEncoder:
    """Embeds a sentence as its letter counts: cheap, deterministic, and alike for alike sentences."""

    def __init__(self):
        self.calls = 0

    def encode(self, sentences, **_):
        self.calls += 1
        vectors = np.array([[sentence.lower().count(chr(97 + k)) + 0.01 for k in range(26)] for sentence in sentences])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def matcher(threshold=0.9):
    return PersonaMatcher(LetterEncoder(), threshold)


class ScriptedTrainer(PessTrainer):
    """Rollouts by rule: the first reference sentence in other words, and one that is wrong."""

    def _roll_out(self, batches, token_ids=None):
        references = [persona for batch in batches for persona in batch["persona"]]
        generated = [[persona[0] + "!", "Quantum jazz baffles wizards."] for persona in references]
        matches = self.matcher.match(generated, references)
        rollouts = [Rollout(g, m, torch.tensor([2])) for g, m in zip(generated, matches, strict=True)]
        return [[rollouts.pop(0) for _ in batch["persona"]] for batch in batches]


def make_trainer(folder, model=None, tokenizer=None, kind=ScriptedTrainer, number=8, train_rows=None, **changes):
    """A trainer over the tiny rows: one step with learning rate 0 unless told otherwise."""
    tokenizer = tokenizer or byte_level_tokenizer()
    model = model or tiny_bart(tokenizer=tokenizer)
    settings = {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "learning_rate": 0.0,
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "pess_start": 0.0,
        "rollout_max_new_tokens": 12,
        "completeness_weight": 0.7,
        "consistency_weight": 0.3,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": False,
    }
    args = PessTrainingArguments(**(settings | changes))
    collator = PersonaCollator(tokenizer, max_source_length=96, max_target_length=64)
    data = train_rows if train_rows is not None else rows(number)
    return kind(
        model,
        args,
        matcher=matcher(),
        data_collator=collator,
        train_dataset=data,
        eval_dataset=data,
        processing_class=tokenizer,
    )
