"""A cross-encoder as scorer: label order, both directions, matching with it, contradictions."""

import math

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from tiny_encoder import cross_encoder, tiny_cross_encoder

from pess_hf import PersonaMatcher, PessError, similarity
from pess_hf.calibration import Calibration, write_calibration
from pess_hf.contradiction import EncoderContrast, contradicting_sentences, contradiction_scorer
from pess_hf.nli_scorer import NliScorer, label_columns
from pess_hf.similarity import load_scorer
from pess_hf.training_args import PessTrainingArguments

REFERENCE, GENERATED = [["I have two dogs.", "I sing."], []], [["I own a dog.", "I sing.", "No."], ["I ski."]]


@pytest.mark.parametrize(
    "labels", [("contradiction", "entailment", "neutral"), ("ENTAILMENT", "neutral", "Contradiction")]
)
def test_the_label_order_is_read_from_the_config(tmp_path, labels):
    model = cross_encoder(tmp_path, labels=labels)
    scorer = NliScorer(model)
    entailment = [label.lower() for label in labels].index("entailment")
    matrix, empty = scorer.similarity_matrices(REFERENCE, GENERATED)
    there = model.predict([("I have two dogs.", "I own a dog.")], apply_softmax=True)[0, entailment]
    back = model.predict([("I own a dog.", "I have two dogs.")], apply_softmax=True)[0, entailment]
    assert abs(there - back) > 1e-4, "the two directions differ, so that averaging them shows"
    assert matrix[0, 0] == pytest.approx((there + back) / 2, abs=1e-5)
    assert matrix.shape == (2, 3) and empty.shape == (0, 1)
    contradiction = scorer.contradiction_matrices(REFERENCE, GENERATED)[0]
    assert contradiction.shape == (2, 3) and not np.allclose(contradiction, matrix)
    assert (matrix + contradiction < 1).all()


@pytest.mark.parametrize("labels", [("LABEL_0", "LABEL_1", "LABEL_2"), ("entailment", "not_entailment")])
def test_unknown_labels_are_an_error(tmp_path, labels):
    with pytest.raises(PessError, match=r"expected the labels entailment, neutral, contradiction in .*id2label"):
        NliScorer(tiny_cross_encoder(tmp_path, labels=labels))
    with pytest.raises(PessError):
        label_columns({})


def test_a_model_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(PessError, match=r"NLI model .*could not be loaded.*Check the name"):
        NliScorer(str(tmp_path / "nothing"))


def test_it_matches_personas_by_folder_and_threshold(tmp_path):
    folder = tiny_cross_encoder(tmp_path)
    assert isinstance(load_scorer(folder), NliScorer)
    matcher = PersonaMatcher(folder, threshold=0.0)
    assert [match.consistent for match in matcher.match(GENERATED, REFERENCE)] == [[0, 1, 2], []]
    matcher.threshold = 1.01
    first, second = matcher.match(GENERATED, REFERENCE)
    assert (first.missing, first.inconsistent, second.inconsistent) == ([0, 1], [0, 1, 2], [0])
    assert matcher.match([[]], [[]])[0].similarity.shape == (0, 0)


def test_it_cannot_score_all_pairs_of_a_micro_batch(tmp_path):
    settings = {"similarity_model": tiny_cross_encoder(tmp_path), "similarity_threshold": 0.5, "output_dir": "x"}
    assert isinstance(PessTrainingArguments(**settings).open_matcher().encoder, NliScorer)
    assert PessTrainingArguments(in_batch_negatives=True, consistency_weight=0.0, **settings).open_matcher()
    asked = PessTrainingArguments(in_batch_negatives=True, **settings)
    for use in (asked.open_matcher, lambda: asked.check_scorer(PersonaMatcher(settings["similarity_model"], 0.5))):
        with pytest.raises(PessError, match=r"in_batch_negatives: expected a sentence encoder, found NliScorer"):
            use()


def at(angle):
    return (math.cos(math.radians(angle)), math.sin(math.radians(angle)))


SENTENCES = ("I have dogs.", "I own dogs.", "I have no dogs.", "I ski.")
BEFORE = FakeEncoder(dict(zip(SENTENCES, map(at, (0, 10, 20, 90)), strict=True)))
TUNED = FakeEncoder(dict(zip(SENTENCES, map(at, (0, 10, 90, 90)), strict=True)))


def test_two_encoders_tell_contradictions_from_other_differences():
    contrast = EncoderContrast(BEFORE, TUNED)
    found = contradicting_sentences(contrast, [list(SENTENCES[1:]), []], [[SENTENCES[0]], ["I ski."]])
    assert found == [[1], []]
    [matrix] = contrast.contradiction_matrices([["I have dogs."]], [list(SENTENCES[1:])])
    assert matrix.tolist() == [[0, 1, 0]]
    # Each encoder has a threshold of its own: cos 20 degrees is 0.94, cos 90 degrees is 0.
    for thresholds, expected in (((0.95, 0.6), []), ((0.93, 0.6), [0]), ((0.93, -0.01), [])):
        contrast = EncoderContrast(BEFORE, TUNED, *thresholds)
        assert contradicting_sentences(contrast, [["I have no dogs."]], [["I have dogs."]]) == [expected]


def test_what_the_tuned_encoder_finds_elsewhere_in_the_reference_contradicts_nothing():
    reference = [["I have dogs.", "I have no dogs."]]
    assert contradicting_sentences(EncoderContrast(BEFORE, TUNED), [["I own dogs.", "I ski."]], reference) == [[]]
    assert contradicting_sentences(EncoderContrast(BEFORE, TUNED), [["I own dogs."]], [reference[0][1:]]) == [[0]]


def test_the_kind_of_scorer_decides_the_rule(tmp_path, monkeypatch):
    matcher = PersonaMatcher(BEFORE, 0.93)
    nli = tiny_cross_encoder(tmp_path / "nli")
    scorer, threshold = contradiction_scorer(nli, None, matcher)
    assert isinstance(scorer, NliScorer) and threshold == 0.5
    assert contradiction_scorer(nli, 0.9, matcher)[1] == 0.9
    with pytest.raises(PessError, match=r"scorer_threshold: expected a probability in \[0, 1\] for .*nli, found -0.5"):
        contradiction_scorer(nli, -0.5, matcher)

    monkeypatch.setattr(similarity, "load_scorer", lambda name: TUNED)
    write_calibration(tmp_path, Calibration(-0.01, 0.9, 0.8, 100, "highest F1"))
    said = [["I have no dogs."]], [["I have dogs."]]
    for given, expected in ((None, [[]]), (0.6, [[0]])):  # by its calibration nothing is below the threshold
        scorer, threshold = contradiction_scorer(str(tmp_path), given, matcher)
        assert contradicting_sentences(scorer, *said, threshold) == expected
    with pytest.raises(PessError, match=r"expected a cosine in \[-1, 1\]"):
        contradiction_scorer(str(tmp_path), 2, matcher)
