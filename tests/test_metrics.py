"""Persona precision, recall and F1 as an `evaluate` metric, the overlap metrics, and the extractive floor."""

import math
from pathlib import Path

import evaluate
import pytest
from fake_encoder import FakeEncoder

import pess_hf.metrics.persona_match
from pess_hf.errors import PessError
from pess_hf.floor import first_person_sentences
from pess_hf.metrics import PersonaMatchMetric
from pess_hf.similarity import DEFAULT_ENCODER, load_encoder, resolve_encoder
from pess_hf.text_metrics import bert_score, bleu, distinct, require_extra, rouge

VECTORS = {"dog": (1, 0, 0), "puppy": (0.8, 0.6, 0), "cat": (0, 1, 0), "rock": (0, 0, 1)}
PREDICTIONS = [["puppy", "rock"], []]
REFERENCES = [["dog"], ["dog", "cat"]]


def score(metric=None, predictions=PREDICTIONS, references=REFERENCES, **kwargs):
    metric = PersonaMatchMetric() if metric is None else metric
    kwargs.setdefault("encoder", FakeEncoder(VECTORS))
    return metric.compute(predictions=predictions, references=references, **kwargs)


# -- the evaluate metric ------------------------------------------------------------------------------------------


def test_the_metric_averages_dialogues():
    # Precisions 1/2 and 0, recalls 1 and 0.
    assert score() == pytest.approx({"precision": 0.25, "recall": 0.5, "f1": 2 * 0.25 * 0.5 / 0.75})


def test_the_threshold_decides():
    assert score(threshold=0.79)["recall"] == 0.5
    assert score(threshold=0.81) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_one_metric_takes_another_threshold_without_embedding_references_anew():
    metric, encoder = PersonaMatchMetric(), FakeEncoder(VECTORS)
    high = score(metric, threshold=0.81, encoder=encoder)
    low = score(metric, threshold=0.6, encoder=encoder)
    assert (high["recall"], low["recall"]) == (0.0, 0.5)
    assert encoder.calls == [["dog", "cat", "puppy", "rock"], ["puppy", "rock"]]


@pytest.mark.parametrize("used_before", [False, True])
def test_a_threshold_that_is_no_number_is_refused(used_before):
    metric, encoder = PersonaMatchMetric(), FakeEncoder(VECTORS)
    if used_before:
        score(metric, encoder=encoder)
    with pytest.raises(ValueError, match=r"threshold.*nan"):
        score(metric, encoder=encoder, threshold=float("nan"))


def test_another_encoder_is_used_from_then_on():
    metric = PersonaMatchMetric()
    assert score(metric)["recall"] == 0.5
    opposite = FakeEncoder({name: (1, 0, 0) if name == "dog" else (-1, 0, 0) for name in VECTORS})
    assert score(metric, encoder=opposite)["recall"] == 0.0


@pytest.mark.parametrize(
    ("prediction", "reference", "precision", "recall"),
    [([], ["dog"], 0, 0), (["dog"], [], 0, 1), ([], [], 1, 1)],
)
def test_empty_lists_follow_the_conventions(prediction, reference, precision, recall):
    scores = score(predictions=[prediction], references=[reference])
    assert (scores["precision"], scores["recall"]) == (precision, recall)


def test_batches_can_be_added_one_by_one():
    metric = PersonaMatchMetric()
    for prediction, reference in zip(PREDICTIONS, REFERENCES, strict=True):
        metric.add(predictions=prediction, references=reference)
    assert metric.compute(encoder=FakeEncoder(VECTORS)) == score()


def test_the_metric_loads_from_its_folder_without_a_network():
    folder = Path(pess_hf.metrics.persona_match.__file__).parent
    metric = evaluate.load(str(folder))
    assert score(metric) == score()
    assert "cosine" in metric.description


def test_the_metric_with_the_real_encoder():
    scores = PersonaMatchMetric().compute(
        predictions=[["I own two dogs.", "I am a nurse."]],
        references=[["I have two dogs."]],
        encoder=load_encoder(device="cpu"),
    )
    assert scores == pytest.approx({"precision": 0.5, "recall": 1.0, "f1": 2 / 3})


# -- overlap ------------------------------------------------------------------------------------------------------


def test_rouge_by_hand():
    scores = rouge([["a b c"]], [["a b d e"]])
    # One-grams: 2 of 3 and 2 of 4; two-grams: 1 of 2 and 1 of 3; longest common subsequence: a b.
    assert scores == pytest.approx({"rouge_1": 4 / 7, "rouge_2": 2 / 5, "rouge_l": 4 / 7})


def test_rouge_averages_dialogues_and_reads_sentences_line_by_line():
    assert rouge([["a b"], ["c d"]], [["a b"], ["e f"]])["rouge_1"] == 0.5
    # The union over sentences: the order of the sentences does not matter to ROUGE-L.
    assert rouge([["c d", "a b"]], [["a b", "c d"]])["rouge_l"] == 1.0


def test_bleu_by_hand():
    # Matches: 4 of 5 one-grams, 3 of 4, 2 of 3, 1 of 2; as long as the reference.
    assert bleu([["a b c", "d x"]], [["A b c d", "e"]])["bleu"] == pytest.approx(
        (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    )
    # Every 4 words that were written are right, but 8 were wanted: brevity penalty exp(1 - 8 / 4).
    assert bleu([["a b c d"]], [["a b c d e f g h"]])["bleu"] == pytest.approx(math.exp(-1))


def test_distinct_by_hand():
    # 6 words of 4 kinds; 4 pairs within sentences, 3 kinds; none across sentences or dialogues.
    assert distinct([["I sing", "i sing"], ["dogs bark"]]) == {"distinct_1": 4 / 6, "distinct_2": 2 / 3}
    assert distinct([["żółw je", "żółw je!"]]) == {"distinct_1": 0.5, "distinct_2": 0.5}
    assert distinct([[], []]) == {"distinct_1": 0.0, "distinct_2": 0.0}


@pytest.mark.parametrize("metric", [rouge, bleu])
@pytest.mark.parametrize("personas", [([], []), ([[]], [["i sing"]]), ([["i sing"]], [[]]), ([[]], [[]])])
def test_nothing_scores_zero(metric, personas):
    assert set(metric(*personas).values()) == {0.0}


@pytest.mark.parametrize("metric", [rouge, bleu])
def test_lists_of_different_length_are_refused(metric):
    with pytest.raises(ValueError):
        metric([["a"], ["b"]], [["a"]])


def test_bert_score_takes_empty_personas():
    model = resolve_encoder(DEFAULT_ENCODER)
    same = bert_score([["I sing."]], [["I sing."]], model, num_layers=2)["bert_score_f1"]
    assert same == pytest.approx(1, abs=1e-5)
    half = bert_score([["I sing."], []], [["I sing."], ["I ski."]], model, num_layers=2)["bert_score_f1"]
    assert half == pytest.approx(0.5, abs=1e-5)
    assert bert_score([[]], [["I ski."]], model, num_layers=2) == {"bert_score_f1": 0.0}


def test_a_package_that_is_not_installed_is_one_line():
    with pytest.raises(PessError, match=r"no_such_package.*pip install 'pess_hf\[metrics\]'") as caught:
        require_extra("no_such_package")
    assert "\n" not in str(caught.value)


# -- the floor ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("utterances", "expected"),
    [
        (["Nice! I have two dogs.", "Do you?"], ["I have two dogs."]),
        (["I'm Ann. My dog barks! Is it MINE?"], ["I'm Ann.", "My dog barks!", "Is it MINE?"]),
        (["Mice and wine. Iris mends her meadow."], []),  # first-person words inside other words
        (["we sing", "They sing."], ["we sing"]),
        (["  I  sing. "], ["I  sing."]),
        (["I sing.I ski."], ["I sing.I ski."]),  # no blank, no boundary
        (["żółw i ja"], ["żółw i ja"]),
        ([""], []),
        ([], []),
    ],
)
def test_the_floor_copies_first_person_sentences_in_order(utterances, expected):
    assert first_person_sentences(utterances) == expected
