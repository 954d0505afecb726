"""The supporter pipeline: messages in, reply out; odd messages; the safety check; nothing said is logged."""

import json
import logging

import pytest
from tiny_extractor import tiny_bart
from tiny_support import CountingExtractor, byte_tokenizer, tiny_support_model
from transformers import AutoModelForSeq2SeqLM

from pess_hf.chat_messages import check_messages
from pess_hf.errors import PessError
from pess_hf.inference import PersonaFilter
from pess_hf.pipeline import SupportPipeline
from pess_hf.safety import NOTICE, POINTER_TO_HELP, default_safety_check, no_safety_check
from pess_hf.strategies import add_strategy_tokens

KEYS = ["persona", "reply", "safety", "strategy"]


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


THREE = [user("hi"), assistant("hello", strategy="Questions"), user("I lost my job"), user("I baked bread")]


@pytest.fixture(scope="module")
def parts():
    return tiny_support_model()


@pytest.fixture
def extractor():
    return CountingExtractor()


@pytest.fixture
def chat(parts, extractor):
    model, tokenizer = parts
    return SupportPipeline(model=model, tokenizer=tokenizer, extractor=extractor, extractor_tokenizer=tokenizer)


def test_reply_strategy_and_persona(chat):
    answer = chat(THREE, strategy="providing suggestions", max_new_tokens=8)
    assert sorted(answer) == KEYS
    assert (answer["strategy"], answer["persona"], answer["safety"]) == (
        "Providing Suggestions",
        ["said: I baked bread"],
        None,
    )
    assert "[" not in answer["reply"]
    json.dumps(answer)


def test_the_persona_reaches_the_model(chat):
    given = chat(THREE, persona=["I have two dogs."])
    assert given["persona"] == ["I have two dogs."]
    assert chat(THREE, persona=[])["persona"] == []
    replies = {chat(THREE, persona=[text], strategy="Question")["reply"] for text in ("a", "I have two dogs.", "qqqq")}
    assert len(replies) > 1


def test_nothing_is_inferred_twice(chat, extractor):
    chat(THREE[:3])
    assert extractor.asked == []
    first = chat(THREE)
    assert chat(THREE) == first
    assert len(extractor.asked) == 1
    longer = [*THREE, assistant("oh"), user("and I sang")]
    assert chat(longer)["persona"] == ["said: and I sang"]
    assert chat(THREE)["persona"] == first["persona"]
    assert [len(prefixes) for prefixes in extractor.asked] == [1, 1]
    assert extractor.asked[1] == [("hi", "I lost my job", "I baked bread", "and I sang")]


def test_several_conversations(chat):
    answers = chat([THREE, [user("hi")]], max_new_tokens=5)
    assert [answer["persona"] for answer in answers] == [["said: I baked bread"], []]


def test_without_an_extractor_there_is_no_persona(parts):
    model, tokenizer = parts
    assert SupportPipeline(model=model, tokenizer=tokenizer)(THREE, max_new_tokens=4)["persona"] == []


def test_rules(parts, extractor):
    model, tokenizer = parts
    rules = PersonaFilter(first_inferred=1)
    chat = SupportPipeline(
        model=model, tokenizer=tokenizer, extractor=extractor, extractor_tokenizer=tokenizer, rules=rules
    )
    assert chat([user("I sing")], max_new_tokens=4)["persona"] == ["said: I sing"]


def test_registered_under_its_own_name(parts, tmp_path):
    from transformers import pipeline

    model, tokenizer = parts
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    chat = pipeline("emotional-support", model=str(tmp_path))
    assert type(chat) is SupportPipeline
    assert sorted(chat(THREE, max_new_tokens=4)) == KEYS


@pytest.mark.parametrize("first", ["import pess_hf\nfrom transformers import", "from transformers import"])
def test_auto_classes_know_the_generator(parts, tmp_path, fresh_process, first):
    model, tokenizer = parts
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    code = f"""
{first} AutoConfig, AutoModelForSeq2SeqLM, pipeline
import pess_hf
assert type(AutoConfig.from_pretrained("model")).__name__ == "PessGeneratorConfig"
assert type(AutoModelForSeq2SeqLM.from_pretrained("model")).__name__ == "PessGenerator"
pipeline("emotional-support", model="model")
pess_hf.register()
"""
    done = fresh_process(code)
    assert done.returncode == 0, done.stderr


def test_importing_the_library_loads_no_torch(fresh_process):
    code = "import pess_hf.cli, pess_hf.safety, sys; assert not {'torch', 'transformers'} & set(sys.modules)"
    done = fresh_process(code)
    assert done.returncode == 0, done.stderr
    # modules that import parts of transformers while these are half imported
    for first in ("configuration_generator", "pipeline", "modeling_generator"):
        done = fresh_process(f"import pess_hf.{first}; from transformers import AutoConfig, GenerationMixin, pipeline")
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("roles", ["u", "a", "ua", "au", "uu", "aa", "uaa", "auu"])
def test_either_role_may_begin_end_and_repeat(chat, roles):
    messages = [user("hm") if role == "u" else assistant("hm") for role in roles]
    assert sorted(chat(messages, max_new_tokens=4)) == KEYS


def test_two_hundred_turns_and_a_long_message(chat):
    messages = [user(f"message {n}") if n % 2 else assistant(f"reply {n}") for n in range(199)]
    assert chat([*messages, user("word " * 4000)], max_new_tokens=4)["persona"] == []
    assert chat([*messages, user("the end")], max_new_tokens=4)["persona"] == ["said: the end"]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message"),
        ("hi", "a list of chat messages, found str"),
        (user("hi"), "a list of chat messages, found dict"),
        ([user("hi"), "hi"], r"messages\[1\]: expected an object"),
        ([{"role": "system", "content": "Be kind."}], r"messages\[0\]: expected no system message"),
        ([{"role": "tool", "content": "x"}], "'user' or 'assistant', found 'tool'"),
        ([{"role": ["user"], "content": "x"}], r"'user' or 'assistant', found \['user'\]"),
        ([user("half \ud800")], "half of a surrogate pair"),
        ([{"content": "x"}], "'user' or 'assistant', found None"),
        ([user("hi"), user("  \n")], r"messages\[1\]: .*an empty message"),
        ([user(None)], "content of text, found NoneType"),
        ([user([{"type": "text", "text": "x"}])], "content of text, found list"),
        ([assistant("x", strategy="Joke")], r"messages\[0\]: unknown strategy 'Joke'.*Question, Rest"),
    ],
)
def test_bad_messages(chat, messages, message):
    with pytest.raises(PessError, match=message) as caught:
        chat(messages)
    assert "\n" not in str(caught.value)


def test_unknown_strategy(chat):
    with pytest.raises(PessError, match="unknown strategy 'Joke'"):
        chat(THREE, strategy="Joke")
    assert chat(THREE, strategy="Other", max_new_tokens=4)["strategy"] == "Others"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"persona": "I sing."}, "persona: expected a list of sentences, found str"),
        ({"persona": 3}, "persona: expected a list of sentences, found int"),
        ({"persona": ["I sing.", 3]}, r"persona\[1\]: expected a text"),
        ({"persona": [" "]}, r"persona\[0\]: expected a sentence"),
        ({"num_beams": 2, "num_return_sequences": 2}, "num_return_sequences: expected 1"),
        ({"return_dict_in_generate": True}, "return_dict_in_generate: expected False"),
        ({"max_new_tokens": 129}, "max_new_tokens: expected 1 to 128, the model's positions, found 129"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected 1 to 128"),
    ],
)
def test_bad_settings_of_a_call(chat, settings, message):
    with pytest.raises(PessError, match=message):
        chat(THREE, **settings)


def test_models_and_tokenizers_that_do_not_belong(parts):
    model, tokenizer = parts
    other = byte_tokenizer()
    other.add_tokens(["ids", "shift"])
    add_strategy_tokens(other)
    with pytest.raises(PessError, match="expected the generator's own"):
        SupportPipeline(model=model, tokenizer=other)
    with pytest.raises(PessError, match="expected the generator's tokenizer, found none"):
        SupportPipeline(model=model)
    with pytest.raises(PessError, match="expected a PESS generator, found a model of type 'bart'"):
        SupportPipeline(model=tiny_bart(), tokenizer=tokenizer)
    with pytest.raises(PessError, match="expected a persona extractor, found PessGenerator"):
        SupportPipeline(model=model, tokenizer=tokenizer, extractor=model, extractor_tokenizer=tokenizer)


def test_an_extractor_needs_its_tokenizer(parts, extractor):
    model, tokenizer = parts
    with pytest.raises(PessError, match="extractor_tokenizer"):
        SupportPipeline(model=model, tokenizer=tokenizer, extractor=extractor)


def test_strategies_of_messages_are_mapped():
    assert check_messages([assistant("x", strategy="Other")])[0]["strategy"] == "Others"
    assert check_messages([{**user("x"), "strategy": "Question"}])[0]["strategy"] is None


class TestSafety:
    def test_every_message_and_every_reply_is_checked(self, parts):
        model, tokenizer = parts
        seen = []
        chat = SupportPipeline(
            model=model, tokenizer=tokenizer, safety_check=lambda text, role: seen.append((role, text))
        )
        answer = chat(THREE, max_new_tokens=6)
        said = [("user", message["content"]) for message in THREE if message["role"] == "user"]
        assert seen == [*said, ("assistant", answer["reply"])]

    def test_what_the_check_returns_is_answered(self, parts):
        model, tokenizer = parts
        checks = {"user": "message", "assistant": "reply"}
        for role, kind in checks.items():
            chat = SupportPipeline(
                model=model,
                tokenizer=tokenizer,
                safety_check=lambda text, seen, role=role: "Stop." if seen == role else None,
            )
            answer = chat(THREE, max_new_tokens=6)
            assert (answer["reply"], answer["strategy"], answer["safety"]) == ("Stop.", None, kind)

    def test_explicit_wording_gets_the_pointer(self, chat):
        answer = chat([*THREE, user("I want to kill myself")])
        assert (answer["reply"], answer["safety"]) == (POINTER_TO_HELP, "message")

    def test_an_earlier_message_is_answered_once(self, chat):
        messages = [user("I want to kill myself"), assistant("I see"), user("hello?")]
        assert chat(messages)["reply"] == POINTER_TO_HELP
        messages = [user("I want to kill myself"), assistant(POINTER_TO_HELP), user("hello?")]
        assert chat(messages, max_new_tokens=4)["safety"] is None

    @pytest.mark.parametrize(
        "text",
        [
            "I want to kill myself.",
            "i  WANT\nto die",
            "I have been suicidal for weeks",
            "I don\u2019t want to live anymore",
            "I do not want to wake up",
            "thinking about ending my life",
            "I cut myself again last night",
            "Self-harm helps",
            "They are better off without me, I'd rather be dead",
            "I wish I was never born",
            "just end it all",
        ],
    )
    def test_recognised(self, text):
        assert default_safety_check(text, "user") == POINTER_TO_HELP
        assert default_safety_check(text, "assistant") == POINTER_TO_HELP

    @pytest.mark.parametrize(
        "text",
        [
            "This job is killing me.",
            "My dog died.",
            "I don't want to live in this town.",
            "I could have died laughing",
            "Do you want to diet?",
            "My life ended up well",
            "",
        ],
    )
    def test_left_alone(self, text):
        assert default_safety_check(text, "user") is None

    def test_fixed_texts(self):
        assert no_safety_check("I want to die", "user") is None
        assert "not a substitute for professional help" in NOTICE and "must not be used" in NOTICE
        for text in (NOTICE, POINTER_TO_HELP):
            assert not any(letter.isdigit() for letter in text) and "emergency services" in text


def test_nothing_said_is_logged(parts, extractor, caplog, capfd):
    model, tokenizer = parts
    secret = "zanzibar"
    with caplog.at_level(logging.INFO):
        root = logging.getLogger("transformers")
        root.propagate = True
        chat = SupportPipeline(model=model, tokenizer=tokenizer, extractor=extractor, extractor_tokenizer=tokenizer)
        messages = [user(f"{secret} {n} " + "x" * 600) for n in range(4)]
        answer = chat(messages, max_new_tokens=6)
        chat([*messages, user(f"{secret}: I want to die")])
        root.propagate = False
    assert secret in answer["persona"][0]
    printed = capfd.readouterr()
    for text in (caplog.text, printed.out, printed.err):
        assert secret not in text and POINTER_TO_HELP not in text


def test_the_model_class_is_the_registered_one(parts):
    model, _ = parts
    assert AutoModelForSeq2SeqLM._model_mapping[type(model.config)] is type(model)
