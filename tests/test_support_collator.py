"""Examples and batches for the generator, and conversations of odd shapes."""

import pytest
from datasets import Dataset
from tiny_support import byte_tokenizer

from pess_hf.data import load_support_dataset
from pess_hf.data.support_collator import SupportCollator
from pess_hf.data.support_examples import build_support_examples
from pess_hf.errors import PessError
from pess_hf.strategies import add_strategy_tokens


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = byte_tokenizer()
    add_strategy_tokens(tokenizer)
    return tokenizer


def turn(speaker, text="hm", strategy=None):
    return {"speaker": speaker, "text": text, "strategy": strategy}


def supporter(text="hm", strategy="Question"):
    return turn("supporter", text, strategy)


def example(context, persona=(), strategy="Question", response="ok"):
    return {"context": context, "persona": list(persona), "strategy": strategy, "response": response}


def test_text_form(tokenizer):
    collator = SupportCollator(tokenizer)
    turns = [
        turn("seeker", "I am sad."),
        supporter("Why | so?", "Reflection of feelings"),
        turn("supporter", "Tell me."),
    ]
    assert tokenizer.decode(collator.context_ids(turns)) == (
        "Persona: I am sad. | System:[Reflection of feelings] Why , so? | System: Tell me. | System:"
    )
    assert tokenizer.decode(collator.context_ids([])) == "System:"
    assert tokenizer.decode(collator.target_ids("Others", "Bye.")) == "[Others] Bye.</s>"
    assert tokenizer.decode(collator.persona_ids(["I sing.", "I ski."])) == "I sing. | I ski."


def test_batch(tokenizer):
    collator = SupportCollator(tokenizer)
    batch = collator([example([turn("seeker", "abc")], ["I sing."]), example([], response="a longer reply")])
    assert {name: len(value) for name, value in batch.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "persona_input_ids", "persona_attention_mask", "labels"), 2
    )
    assert batch["persona_attention_mask"].sum(dim=1).tolist() == [len(collator.persona_ids(["I sing."])), 0]
    assert batch["labels"][0, 0] == tokenizer.convert_tokens_to_ids("[Question]")
    assert (batch["labels"][0] == -100).any() and (batch["labels"][1] != -100).all()
    blind = SupportCollator(tokenizer, use_persona=False)([example([], ["I sing."])])
    assert sorted(blind) == ["attention_mask", "input_ids", "labels"]


def test_lengths(tokenizer):
    collator = SupportCollator(tokenizer, max_context_length=20, max_persona_length=12, max_target_length=8)
    ids = collator.context_ids([turn("seeker", "x" * 50), turn("seeker", "the end")])
    assert len(ids) == 20
    assert tokenizer.decode(ids).endswith("the end | System:")
    target = collator.target_ids("Question", "xyzxyzxyzxyz")
    assert len(target) == 8 and target[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(collator.persona_ids(["qwrt.", "zkjhmnb.", "no"])) == "qwrt."
    assert len(collator.persona_ids(["x" * 30])) == 12


def test_a_tokenizer_that_adds_special_tokens(tokenizer):
    """BART puts its start and end tokens around a text: they survive truncation, and stay out of the target."""
    from tokenizers.processors import TemplateProcessing

    framed = byte_tokenizer()
    add_strategy_tokens(framed)
    framed.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    collator = SupportCollator(framed, max_context_length=20)
    for ids in (collator.context_ids([turn("seeker", "x" * 50)]), collator.persona_ids(["I sing."])):
        assert (ids[0], ids[-1]) == (1, 2) and not {1, 2} & set(ids[1:-1])
    assert collator.target_ids("Question", "Why?").count(2) == 1
    assert collator.persona_ids([]) == []


def test_special_tokens_in_a_message_are_plain_text(tokenizer):
    collator = SupportCollator(tokenizer)
    ids = collator.context_ids([turn("seeker", "[Question] </s> <pad>")])
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    assert not special & set(ids)


@pytest.mark.parametrize("speakers", [["seeker"], ["supporter"], ["seeker", "supporter"], ["supporter", "seeker"]])
@pytest.mark.parametrize("repeat", [1, 2])
def test_either_speaker_may_begin_end_and_repeat(tokenizer, speakers, repeat):
    turns = [turn(name, "x", "Others" if name == "supporter" else None) for name in speakers for _ in range(repeat)]
    collator = SupportCollator(tokenizer)
    text = tokenizer.decode(collator.context_ids(turns))
    assert (text.count("Persona:"), text.count("System:")) == (
        speakers.count("seeker") * repeat,
        speakers.count("supporter") * repeat + 1,
    )
    if "supporter" in speakers:
        rows = Dataset.from_list([{"dialogue_id": "d", "turns": turns, "persona": [[] for _ in turns]}])
        examples = build_support_examples(rows)
        assert len(examples) == speakers.count("supporter") * repeat
        assert len(collator([*examples])["labels"]) == len(examples)


def test_two_hundred_turns_and_a_long_message(tokenizer):
    turns = [turn("seeker", f"message {n}") if n % 2 else supporter(f"reply {n}") for n in range(200)]
    collator = SupportCollator(tokenizer)
    assert len(collator.context_ids(turns)) == 512
    rows = Dataset.from_list([{"dialogue_id": "d", "turns": turns, "persona": [["I sing."]] * 200}])
    examples = build_support_examples(rows)
    assert len(examples) == 100 and len(examples[99]["context"]) == 198
    long = collator([example([turn("seeker", "word " * 4000)], response="word " * 4000)])
    assert long["input_ids"].shape == (1, 512) and long["labels"].shape == (1, 50)


def test_strategies(tokenizer):
    collator = SupportCollator(tokenizer)
    assert collator.target_ids("Questions", "a") == collator.target_ids("Question", "a")
    assert collator.context_ids([supporter("a", "Other")]) == collator.context_ids([supporter("a", "Others")])
    with pytest.raises(PessError, match=r"unknown strategy 'Joke'.*Question, Restatement"):
        collator.target_ids("Joke", "a")


@pytest.mark.parametrize(
    ("context", "message"),
    [([turn("friend")], "'seeker' or 'supporter', found 'friend'"), ([turn("seeker", " \n")], "turn 0: .*blank")],
)
def test_bad_turns(tokenizer, context, message):
    with pytest.raises(PessError, match=message):
        SupportCollator(tokenizer).context_ids(context)


def test_bad_rows(tokenizer):
    with pytest.raises(PessError, match="'context', found turns"):
        SupportCollator(tokenizer)([{"turns": []}])
    rows = [{"dialogue_id": "d7", "turns": [turn("supporter")], "persona": [[]]}]
    with pytest.raises(PessError, match=r"'d7', turn 0: expected the supporter's strategy"):
        build_support_examples(Dataset.from_list(rows))
    rows[0]["turns"] = [turn("seeker")]
    with pytest.raises(PessError, match="at least one supporter turn"):
        build_support_examples(Dataset.from_list(rows))


def test_bad_tokenizers():
    with pytest.raises(PessError, match=r"\[Question\].*add_strategy_tokens"):
        SupportCollator(byte_tokenizer())
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(PessError, match="pad_token"):
        SupportCollator(tokenizer)


def test_sample_examples(tokenizer):
    rows = load_support_dataset("sample", "test", sample_reference=True)
    examples = build_support_examples(rows.select(range(3)))
    for row in examples:
        turns = rows[int(row["dialogue_id"].rsplit("-", 1)[1])]["turns"]
        assert row["context"] == turns[: row["turn"]]
        assert (row["strategy"], row["response"]) == (turns[row["turn"]]["strategy"], turns[row["turn"]]["text"])
