"""Text to token ids: what truncation drops, and that spans cover their sentences, with three kinds of tokenizer."""

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_level_tokenizer, unigram_tokenizer
from transformers import AutoTokenizer

from pess_hf.encoding import encode_sources, encode_targets, warn_of_truncation
from pess_hf.errors import PessError
from pess_hf.similarity import DEFAULT_ENCODER, resolve_encoder
from pess_hf.text import clean, fold, join_pieces, split_pieces

TOKENIZERS = {
    "wordpiece": AutoTokenizer.from_pretrained(resolve_encoder(DEFAULT_ENCODER)),
    "byte-level": byte_level_tokenizer(),
    "unigram": unigram_tokenizer(),
}
PERSONA = ["I have two dogs.", "My sister lives in a small town!", "I work as a nurse, and I like my job."]
UTTERANCES = ["What do you do for a living?", "I work as a nurse.", "My name is Ann.", "I play chess."]

every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


def read(tokenizer, ids):
    """The text of token ids, case and white space aside, which not every tokenizer keeps."""
    return "".join(tokenizer.decode(ids, skip_special_tokens=True).casefold().split())


def squeeze(text):
    return "".join(text.casefold().split())


def encode_source(tokenizer, utterances, **kwargs):
    [source] = encode_sources(tokenizer, [utterances], **kwargs)
    return source


def encode_target(tokenizer, persona, **kwargs):
    [target] = encode_targets(tokenizer, [persona], **kwargs)
    return target


def has_special_ends(tokenizer, ids):
    """Whether the ids are framed as the tokenizer frames any text."""
    empty = tokenizer("")["input_ids"]
    closing = 1
    opening = len(empty) - closing
    return ids[:opening] == empty[:opening] and ids[-closing:] == empty[-closing:]


# -- sources ------------------------------------------------------------------------------------------------------


@every_tokenizer
def test_a_source_that_fits_is_what_the_tokenizer_makes_of_the_joined_text(tokenizer):
    source = encode_source(tokenizer, UTTERANCES)
    assert source.input_ids == tokenizer(" | ".join(UTTERANCES))["input_ids"]
    assert source.num_dropped == 0


@every_tokenizer
@pytest.mark.parametrize("kept", [1, 2, 3])
def test_truncation_drops_whole_oldest_utterances(tokenizer, kept):
    """At the exact limit of the newest `kept` utterances, and with every limit up to the next whole one."""
    wanted = tokenizer(" | ".join(UTTERANCES[-kept:]))["input_ids"]
    one_more = tokenizer(" | ".join(UTTERANCES[-kept - 1 :]))["input_ids"]
    for max_length in range(len(wanted), len(one_more)):
        source = encode_source(tokenizer, UTTERANCES, max_length=max_length)
        assert source.input_ids == wanted
        assert source.num_dropped == len(UTTERANCES) - kept


@every_tokenizer
def test_one_utterance_that_is_too_long_keeps_its_end(tokenizer):
    text = " ".join(f"I like the {word}." for word in ["sea", "town", "dark", "car", "snow", "garden"])
    source = encode_source(tokenizer, [text], max_length=12)
    assert len(source.input_ids) <= 12
    assert len(source.input_ids) >= 10, "room is not wasted"
    assert has_special_ends(tokenizer, source.input_ids)
    assert squeeze(text).endswith(read(tokenizer, source.input_ids))
    assert read(tokenizer, source.input_ids).endswith("garden.")
    assert source.num_dropped == 1


@every_tokenizer
def test_a_newest_utterance_that_is_too_long_counts_with_the_older_ones(tokenizer):
    source = encode_source(tokenizer, ["My name is Ann.", "I play chess. " * 20], max_length=10)
    assert len(source.input_ids) <= 10
    assert source.num_dropped == 2
    assert "ann" not in read(tokenizer, source.input_ids)


@pytest.mark.parametrize("max_length", range(6, 40))
def test_the_newest_token_is_never_cut_off(max_length):
    """A cut inside a word or a character gives more tokens than the whole word had; the oldest ones have to go."""
    tokenizer = TOKENIZERS["byte-level"]
    for utterances in (["zażółć gęślą jaźń " * 4 + "END"], ["ŻÓŁW.", "犬が好き", "have have", "sing END"]):
        source = encode_source(tokenizer, utterances, max_length=max_length)
        assert len(source.input_ids) <= max_length
        assert read(tokenizer, source.input_ids).endswith("end")


@every_tokenizer
def test_a_separator_inside_an_utterance_does_not_split_it(tokenizer):
    source = encode_source(tokenizer, ["tea | coffee", "I  play\nchess."])
    assert source.input_ids == tokenizer("tea , coffee | I play chess.")["input_ids"]


@every_tokenizer
def test_blank_utterances_are_left_out(tokenizer):
    assert encode_source(tokenizer, ["", "I play chess.", " \n"]).input_ids == tokenizer("I play chess.")["input_ids"]
    source = encode_source(tokenizer, ["I sing.", "", "I play chess."], max_length=9)
    assert read(tokenizer, source.input_ids) in {"iplaychess.", "ising.|iplaychess."}


@pytest.mark.parametrize("utterances", [[], [""], [" ", "\n\t"]])
def test_a_dialogue_without_text_is_refused(utterances):
    with pytest.raises(PessError, match=r"dialogue 1: expected at least one utterance with text") as caught:
        encode_sources(TOKENIZERS["byte-level"], [["I sing."], utterances])
    assert "\n" not in str(caught.value)


def test_no_dialogue_gives_no_source():
    assert encode_sources(TOKENIZERS["byte-level"], []) == []


# -- targets ------------------------------------------------------------------------------------------------------


@every_tokenizer
@pytest.mark.parametrize(
    "persona",
    [
        PERSONA,
        ["I sing."],
        ["żółw is a turtle", "我喜欢狗。", "I ❤ 🐕🐕!", "naïve café"],
        ["tea | coffee", "  I\tsing \n"],
        ["| |", "I sing.", "a|b"],
        ["I sing.", "I sing.", "I sing."],
        ["word " * 40, "I have two dogs."],
    ],
    ids=["plain", "one", "non-ASCII", "separator inside", "separators only", "repeated", "long"],
)
def test_spans_cover_their_sentences(tokenizer, persona):
    target = encode_target(tokenizer, persona, max_length=300)
    assert target.input_ids == tokenizer(join_pieces(persona))["input_ids"]
    assert len(target.spans) == len(persona)
    assert target.num_dropped == 0
    for sentence, (start, end) in zip(persona, target.spans, strict=True):
        text = read(tokenizer, target.input_ids[start:end])
        # What the tokenizer makes of the sentence on its own says the same: accents and unknown characters go alike.
        assert text == read(tokenizer, tokenizer(clean(sentence))["input_ids"])
        assert "|" not in text


@every_tokenizer
def test_between_the_spans_lie_separators_and_special_tokens_alone(tokenizer):
    target = encode_target(tokenizer, PERSONA)
    covered = {token for start, end in target.spans for token in range(start, end)}
    others = [token for index, token in enumerate(target.input_ids) if index not in covered]
    assert read(tokenizer, others) == "||"


@every_tokenizer
def test_a_blank_sentence_keeps_its_place_with_an_empty_span(tokenizer):
    spans = encode_target(tokenizer, ["I sing.", " ", "I ski."]).spans
    assert [end > start for start, end in spans] == [True, False, True]


@every_tokenizer
def test_an_empty_persona_is_special_tokens_alone(tokenizer):
    target = encode_target(tokenizer, [])
    assert target.input_ids == tokenizer("")["input_ids"]
    assert (target.spans, target.num_dropped) == ([], 0)


def test_no_persona_gives_no_target():
    assert encode_targets(TOKENIZERS["byte-level"], []) == []


@every_tokenizer
@pytest.mark.parametrize("kept", [1, 2])
def test_a_target_that_does_not_fit_loses_its_last_sentences(tokenizer, kept):
    wanted = tokenizer(" | ".join(PERSONA[:kept]))["input_ids"]
    one_more = tokenizer(" | ".join(PERSONA[: kept + 1]))["input_ids"]
    for max_length in range(len(wanted), len(one_more)):
        target = encode_target(tokenizer, PERSONA, max_length=max_length)
        assert target.input_ids == wanted
        assert target.num_dropped == len(PERSONA) - kept
        assert target.spans == encode_target(tokenizer, PERSONA[:kept]).spans


@every_tokenizer
def test_a_first_sentence_longer_than_the_limit_is_cut(tokenizer):
    target = encode_target(tokenizer, ["I like the sea. " * 20, "I sing."], max_length=9)
    assert len(target.input_ids) == 9
    assert has_special_ends(tokenizer, target.input_ids)
    [(start, end)] = target.spans
    assert end == 8, "the closing token is not part of the sentence"
    assert squeeze("I like the sea. " * 20).startswith(read(tokenizer, target.input_ids[start:end]))
    assert target.num_dropped == 2


@every_tokenizer
@pytest.mark.parametrize("separator", [" | ", "|", " ; ", "\n", "<sep>"])
def test_spans_hold_for_other_separators(tokenizer, separator):
    target = encode_target(tokenizer, PERSONA, separator=separator)
    for sentence, (start, end) in zip(PERSONA, target.spans, strict=True):
        # Without blanks around it a separator can melt with the full stop into one token, which then is in no span.
        assert read(tokenizer, target.input_ids[start:end]) in (squeeze(sentence), squeeze(sentence)[:-1])


# -- properties ---------------------------------------------------------------------------------------------------

PIECES = st.one_of(
    st.sampled_from([*PERSONA, "|", "a | b", "żółw", "犬が好き", "🐕‍🦺", "\u200b", "ﬁ", "İ", "</s>", "e\u0301"]),
    st.text(max_size=20),
)


@every_tokenizer
@settings(max_examples=60, deadline=None)
@given(persona=st.lists(PIECES, max_size=5), max_length=st.integers(3, 40))
def test_spans_are_inside_disjoint_and_ascending(tokenizer, persona, max_length):
    target = encode_target(tokenizer, persona, max_length=max_length)
    assert len(target.input_ids) <= max_length
    position = 0
    for start, end in target.spans:
        assert position <= start <= end <= len(target.input_ids)
        assert start == end or end < len(target.input_ids), "the closing token is in no span"
        position = end
    kept = len(target.spans)
    assert len(persona) - kept <= target.num_dropped <= len(persona)
    if target.num_dropped == 0:
        assert kept == len(persona)


@every_tokenizer
@settings(max_examples=60, deadline=None)
@given(utterances=st.lists(PIECES, min_size=1, max_size=5), max_length=st.integers(6, 40))
def test_sources_are_never_too_long_and_end_where_the_dialogue_ends(tokenizer, utterances, max_length):
    assume(join_pieces(utterances))
    source = encode_source(tokenizer, utterances, max_length=max_length)
    whole = tokenizer(join_pieces(utterances))["input_ids"]
    assert len(source.input_ids) <= max_length
    assert (source.num_dropped > 0) == (len(whole) > max_length)
    assert 0 <= source.num_dropped <= len(utterances)
    assert has_special_ends(tokenizer, source.input_ids)
    if "unk" not in "".join(map(str, tokenizer.convert_ids_to_tokens(whole))):
        assert read(tokenizer, whole).endswith(read(tokenizer, source.input_ids))


@settings(max_examples=100, deadline=None)
@example(pieces=["Cook, nurse", "a", ","], separator=", ")
@example(pieces=["x a  b y", "z"], separator=" a b ")
@given(
    pieces=st.lists(PIECES, max_size=5),
    separator=st.sampled_from([" | ", "|", ", ", " <sep> ", "\n", " || ", " a b "]),
)
def test_joining_and_splitting_are_inverse(pieces, separator):
    cleaned = [clean(piece, separator) for piece in pieces]
    assert split_pieces(join_pieces(pieces, separator), separator) == [piece for piece in cleaned if piece]


@settings(max_examples=100, deadline=None)
@given(PIECES)
def test_cleaning_and_folding_twice_change_nothing_more(text):
    assert clean(clean(text)) == clean(text)
    assert fold(fold(text)) == fold(text)
    assert fold(text.upper().lower()) == fold(text.upper())


# -- the one warning ----------------------------------------------------------------------------------------------


def test_the_warning_counts_pieces_and_dialogues(caplog):
    warn_of_truncation([2, 0, 1], "oldest utterances", "max_source_length")
    [record] = caplog.records
    assert record.getMessage() == (
        "3 oldest utterances in 2 of 3 dialogues are left out or cut: they do not fit max_source_length."
    )


def test_nothing_dropped_is_not_worth_a_word(caplog):
    warn_of_truncation([0, 0], "oldest utterances", "max_source_length")
    warn_of_truncation([], "oldest utterances", "max_source_length")
    assert not caplog.records
