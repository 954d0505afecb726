"""Paraphrases by a sequence-to-sequence model, where rules are not enough."""

from __future__ import annotations

from collections.abc import Sequence

from pess_hf.text import fold


def write_paraphrases(
    sentences: Sequence[str], model: str, batch_size: int = 32, prefix: str = "paraphrase: "
) -> list[str | None]:
    """Paraphrase sentences greedily with a model from the Hub or a folder.

    Args:
        sentences: The sentences.
        model: Id or folder of a sequence-to-sequence model that paraphrases, such as a T5.
        batch_size: Sentences at a time.
        prefix: Put before each sentence.

    Returns:
        One sentence per sentence, None where the model wrote nothing or the same, case and white space folded.

    Raises:
        PessError: If the model's tokenizer cannot be loaded.

    Example:
        >>> write_paraphrases(["I own a dog."], "humarin/chatgpt_paraphraser_on_T5_base")  # doctest: +SKIP
        ['There is a dog that I own.']
    """
    import torch
    from transformers import AutoModelForSeq2SeqLM

    from pess_hf.checkpoint import open_tokenizer

    tokenizer, network = open_tokenizer(model), AutoModelForSeq2SeqLM.from_pretrained(model).eval()
    written: list[str] = []
    for start in range(0, len(sentences), batch_size):
        texts = [prefix + sentence for sentence in sentences[start : start + batch_size]]
        batch = tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
        with torch.no_grad():
            ids = network.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=64,
                do_sample=False,
            )  # (B, T)
        written += tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [
        new.strip() if new.strip() and fold(new) != fold(old) else None
        for old, new in zip(sentences, written, strict=True)
    ]
