"""The decoder rows of one micro-batch: which there are, what they teach, and the pairs of the consistency term."""

import numpy as np
import pytest
import torch
from fake_encoder import FakeEncoder
from tiny_tokenizers import byte_level_tokenizer

from pess_hf.data.collator import PersonaCollator
from pess_hf.decoder_batch import Rollout, build_decoder_batch
from pess_hf.similarity import PersonaMatch, PersonaMatcher

TOKENIZER = byte_level_tokenizer()
encode = PersonaCollator(TOKENIZER).encode_personas
THRESHOLD = 0.5
DOG, CHOIR, NURSE = "I have two dogs.", "I sing in a choir.", "I work as a nurse."
PUPPY, CAR = "I have two small dogs.", "I drive an old car."
# Cosines chosen freely: PUPPY means DOG, CHOIR and NURSE mean themselves, CAR nothing.
VECTORS = {
    DOG: (1, 0, 0, 0),
    PUPPY: (0.8, 0, 0, 0.6),
    CHOIR: (0, 1, 0, 0),
    NURSE: (0, 0, 1, 0),
    CAR: (0, 0, 0, 1),
}

# The new targets of the first and the last dialogue differ from their references, the last one only in order; those
# between have the reference as their new target, so that they need no row of their own.
REFERENCES = [[DOG, CHOIR], [NURSE], [DOG], [], [CHOIR, NURSE]]
GENERATED = [[CAR, PUPPY], [NURSE], [], [CAR], [NURSE]]
NEW_TARGETS = {0: [PUPPY, CHOIR], 4: [NURSE, CHOIR]}


def rollouts(generated=GENERATED, references=REFERENCES):
    matches = PersonaMatcher(FakeEncoder(VECTORS), THRESHOLD).match(generated, references)
    return [Rollout(g, m, torch.tensor([0])) for g, m in zip(generated, matches, strict=True)]


def texts(ids):
    return [TOKENIZER.decode(row[row.ne(-100)], skip_special_tokens=True) for row in ids]


def joined(personas):
    return [" | ".join(persona) for persona in personas]


def test_one_to_one_pairs_are_the_positives():
    generated, reference = [PUPPY, NURSE], [DOG, PUPPY]
    matcher = PersonaMatcher(FakeEncoder(VECTORS), THRESHOLD, one_to_one=True)
    [match] = matcher.match([generated], [reference])
    assert (match.consistent, match.inconsistent, match.missing) == ([0], [1], [0])
    [pair] = build_decoder_batch([reference], [Rollout(generated, match, torch.tensor([0]))], encode, THRESHOLD).pairs
    assert pair.positives.tolist() == [[False, False], [True, False]], "a missing sentence has no positive"


def test_no_row_where_no_dialogue_can_lend_a_negative():
    for references, generated in (([[NURSE]], [[NURSE]]), ([[NURSE], [DOG]], [[CAR], [CHOIR]])):
        sentences = [[one for persona in personas for one in persona] for personas in (generated, references)]
        [similarity] = PersonaMatcher(FakeEncoder(VECTORS)).similarities(*([one] for one in sentences))
        written = rollouts(generated, references)
        batch = build_decoder_batch(references, written, encode, THRESHOLD, similarity=similarity)
        assert batch.pairs == [] and len(batch.target_ids) == len(references)


def test_rows_are_references_then_new_targets_then_generated():
    batch = build_decoder_batch(REFERENCES, rollouts(), encode, THRESHOLD)
    # Only the first dialogue has positives and negatives.
    assert texts(batch.target_ids) == joined(REFERENCES) + joined(NEW_TARGETS.values()) + joined(GENERATED[:1])
    assert batch.encoder_rows.tolist() == [0, 1, 2, 3, 4, 0, 4, 0]
    assert batch.target_dialogues == [0, 4]
    assert [(pair.reference_row, pair.generated_row) for pair in batch.pairs] == [(0, 7)]


def test_generated_rows_have_no_labels_and_the_others_all():
    batch = build_decoder_batch(REFERENCES, rollouts(), encode, THRESHOLD)
    assert batch.labels.shape == batch.target_ids.shape
    assert len(batch.labels) == 8
    assert batch.labels[7].eq(-100).all()
    assert torch.equal(batch.labels[:7], batch.target_ids[:7])
    assert batch.target_ids[7].ne(-100).any()


def test_padding_is_on_the_right():
    batch = build_decoder_batch(REFERENCES, rollouts(), encode, THRESHOLD)
    for row, persona in zip(batch.target_ids.tolist(), REFERENCES, strict=False):
        ids = TOKENIZER(" | ".join(persona))["input_ids"]
        assert row == ids + [-100] * (len(row) - len(ids))


def test_without_rollouts_only_the_references_are_there():
    batch = build_decoder_batch(REFERENCES, None, encode, THRESHOLD)
    assert texts(batch.target_ids) == joined(REFERENCES)
    assert batch.encoder_rows.tolist() == [0, 1, 2, 3, 4]
    assert (batch.target_dialogues, batch.pairs) == (None, [])


@pytest.mark.parametrize("use_completeness", [False, True])
@pytest.mark.parametrize("use_consistency", [False, True])
def test_a_term_that_is_off_costs_no_row(use_completeness, use_consistency):
    batch = build_decoder_batch(REFERENCES, rollouts(), encode, THRESHOLD, use_completeness, use_consistency)
    expected = joined(REFERENCES)
    expected += joined(NEW_TARGETS.values()) if use_completeness else []
    expected += joined(GENERATED[:1]) if use_consistency else []
    assert texts(batch.target_ids) == expected
    assert batch.target_dialogues == (list(NEW_TARGETS) if use_completeness else None)
    assert [pair.generated_row for pair in batch.pairs] == ([len(expected) - 1] if use_consistency else [])


@pytest.mark.parametrize(
    ("generated", "reference", "new_target", "has_pairs"),
    [
        ([PUPPY, CAR], [DOG], [PUPPY], True),
        ([DOG, CAR], [DOG], [DOG], True),  # the new target is the reference, and yet there are pairs
        ([PUPPY], [DOG], [PUPPY], False),  # nothing inconsistent
        ([CHOIR, DOG], [DOG, CHOIR], [CHOIR, DOG], False),  # another order is another target
        ([CAR], [DOG], [DOG], False),  # nothing consistent
        ([], [DOG], [DOG], False),
        ([CAR], [], [], False),
        ([], [], [], False),
    ],
)
def test_a_dialogue_gets_a_new_target_row_and_a_generated_row_only_where_needed(
    generated, reference, new_target, has_pairs
):
    batch = build_decoder_batch([reference], rollouts([generated], [reference]), encode, THRESHOLD)
    differs = new_target != reference
    rows = [reference] + [new_target] * differs + [generated] * has_pairs
    assert texts(batch.target_ids) == joined(rows)
    assert batch.target_dialogues == [0] * differs
    assert [(pair.reference_row, pair.generated_row) for pair in batch.pairs] == [(0, 1 + differs)] * has_pairs


def test_a_reference_given_as_a_tuple_is_compared_by_its_sentences():
    batch = build_decoder_batch([(NURSE,)], rollouts([[NURSE]], [[NURSE]]), encode, THRESHOLD)
    assert texts(batch.target_ids) == [NURSE]
    assert batch.target_dialogues == []


@pytest.mark.parametrize("written", [None, rollouts()], ids=["without rollouts", "with rollouts"])
def test_all_rows_are_encoded_in_one_call(written):
    calls = []

    def encode_and_count(personas):
        calls.append(len(personas))
        return encode(personas)

    batch = build_decoder_batch(REFERENCES, written, encode_and_count, THRESHOLD)
    assert calls == [len(batch.target_ids)]


def test_to_moves_the_tensors_and_keeps_the_rest():
    batch = build_decoder_batch(REFERENCES, rollouts(), encode, THRESHOLD)
    moved = batch.to(torch.device("meta"))
    for name in ("target_ids", "labels", "encoder_rows"):
        assert getattr(moved, name).device.type == "meta"
        assert getattr(moved, name).shape == getattr(batch, name).shape
        assert getattr(batch, name).device.type == "cpu"
    assert (moved.target_dialogues, moved.pairs) == (batch.target_dialogues, batch.pairs)
    same = batch.to(torch.device("cpu"))
    assert all(torch.equal(getattr(same, name), getattr(batch, name)) for name in ("target_ids", "labels"))


def test_positives_reach_the_threshold_and_negatives_are_the_inconsistent():
    [pair] = build_decoder_batch(
        [[DOG, CHOIR, NURSE]], rollouts([[CAR, PUPPY, NURSE]], [[DOG, CHOIR, NURSE]]), encode, THRESHOLD
    ).pairs
    assert pair.positives.tolist() == [[False, True, False], [False, False, False], [False, False, True]]
    assert pair.negatives.tolist() == [[True, False, False]] * 3


def test_a_similarity_equal_to_the_threshold_is_a_positive():
    match = PersonaMatch(np.array([[0.5, 0.49]], dtype=np.float32), consistent=[0], inconsistent=[1], missing=[])
    [pair] = build_decoder_batch([[DOG]], [Rollout([PUPPY, CAR], match, torch.tensor([0]))], encode, 0.5).pairs
    assert pair.positives.tolist() == [[True, False]]
    assert pair.negatives.tolist() == [[False, True]]


def test_a_repeated_sentence_is_neither_positive_nor_negative():
    generated = [PUPPY, CAR, PUPPY, CAR]
    [pair] = build_decoder_batch([[DOG]], rollouts([generated], [[DOG]]), encode, THRESHOLD).pairs
    assert pair.positives.tolist() == [[True, False, False, False]]
    assert pair.negatives.tolist() == [[False, True, False, False]]


def test_spans_belong_to_the_sentences_of_their_rows():
    batch = build_decoder_batch(REFERENCES, rollouts(), encode, THRESHOLD)
    [pair] = batch.pairs
    for row, spans, sentences in [
        (pair.reference_row, pair.anchors, REFERENCES[0]),
        (pair.generated_row, pair.candidates, GENERATED[0]),
    ]:
        ids = batch.target_ids[row]
        assert [TOKENIZER.decode(ids[start:end]).strip() for start, end in spans] == sentences


@pytest.mark.parametrize(("max_length", "num_anchors", "num_candidates"), [(100, 2, 3), (22, 2, 2), (10, 1, 1)])
def test_sentences_without_tokens_leave_the_pairs(max_length, num_anchors, num_candidates):
    generated, reference = [CAR, PUPPY, CHOIR], [DOG, CHOIR]
    short = PersonaCollator(TOKENIZER, max_target_length=max_length).encode_personas
    [pair] = build_decoder_batch([reference], rollouts([generated], [reference]), short, THRESHOLD).pairs
    whole = torch.tensor([[False, True, False], [False, False, True]])
    assert pair.positives.tolist() == whole[:num_anchors, :num_candidates].tolist()
    assert pair.negatives.tolist() == [[True, False, False][:num_candidates]] * num_anchors
    assert (len(pair.anchors), len(pair.candidates)) == (num_anchors, num_candidates)


def test_a_blank_sentence_in_the_middle_keeps_the_others_aligned():
    similarity = np.array([[0.0, 0.0, 0.9], [0.0, 0.0, 0.9]], dtype=np.float32)
    match = PersonaMatch(similarity, consistent=[2], inconsistent=[0, 1], missing=[])
    rollout = Rollout([CAR, "\u200b ", PUPPY], match, torch.tensor([0]))

    def encode_without_zero_width(personas):
        return encode([[sentence.replace("\u200b", "") for sentence in persona] for persona in personas])

    [pair] = build_decoder_batch([[" ", DOG]], [rollout], encode_without_zero_width, THRESHOLD).pairs
    assert pair.positives.tolist() == [[False, True]]
    assert pair.negatives.tolist() == [[True, False]]


def test_no_anchor_with_tokens_gives_empty_masks():
    match = PersonaMatch(np.array([[0.9, 0.0]], dtype=np.float32), consistent=[0], inconsistent=[1], missing=[])
    [pair] = build_decoder_batch([[" "]], [Rollout([PUPPY, CAR], match, torch.tensor([0]))], encode, THRESHOLD).pairs
    assert pair.anchors == []
    assert pair.positives.shape == pair.negatives.shape == (0, 2)


def test_as_many_rollouts_as_dialogues_are_asked_for():
    with pytest.raises(ValueError):
        build_decoder_batch([[DOG], [DOG]], rollouts([[DOG]], [[DOG]]), encode, THRESHOLD)
