"""A sentence encoder and a cross-encoder, random and tiny, built in the process; labelled pairs to train on."""

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tiny_tokenizers import byte_level_tokenizer
from transformers import BertConfig, BertForSequenceClassification, BertModel

WIDTH = 16


def bert_config(**more):
    return BertConfig(
        vocab_size=400, hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, pad_token_id=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **more,
    )  # fmt: skip


def tokenizer():
    made = byte_level_tokenizer()
    made.model_input_names = ["input_ids", "attention_mask"]
    made.model_max_length = 60
    return made


def tiny_encoder(folder, seed=0):
    """A `SentenceTransformer` of three layers, saved in `folder` and opened from there."""
    torch.manual_seed(seed)
    BertModel(bert_config()).save_pretrained(folder / "bert")
    tokenizer().save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    encoder = SentenceTransformer(modules=[transformer, Pooling(WIDTH)], device="cpu")
    encoder.save_pretrained(str(folder / "encoder"), create_model_card=False)
    return SentenceTransformer(str(folder / "encoder"), device="cpu").eval()


def tiny_cross_encoder(folder, labels=("contradiction", "entailment", "neutral"), seed=0):
    """Folder of a sequence classifier over pairs with these labels, in this order."""
    torch.manual_seed(seed)
    config = bert_config(num_labels=len(labels), id2label=dict(enumerate(labels)), initializer_range=0.5)
    config.label2id = {label: number for number, label in enumerate(labels)}
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def cross_encoder(folder, **more):
    return CrossEncoder(tiny_cross_encoder(folder, **more), device="cpu")


def pair_rows(number=24):
    """Pairs whose label a bag of words can tell: the same animal, another animal, another topic."""
    animals = ("dog", "cat", "owl", "cow", "pig", "hen")
    rows = []
    for n in range(number):
        one, other = animals[n % 6], animals[(n + 1) % 6]
        premise = f"I have {n} {one}s."
        hypotheses = {
            "entailment": f"My {one} is here.",
            "contradiction": f"I only have a {other}.",
            "neutral": f"We went to the sea {n % 6}.",
        }
        rows += [{"premise": premise, "hypothesis": text, "label": label} for label, text in hypotheses.items()]
    return rows
