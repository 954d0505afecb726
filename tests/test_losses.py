"""The three terms against the formulas of the design, worked out in plain Python, and against finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.trainer_pt_utils import LabelSmoother

from pess_hf.losses import (
    completeness_target,
    consistency_loss,
    dialogue_mean,
    sentence_representations,
    token_nll,
)
from pess_hf.similarity import PersonaMatch

ANCHORS = [[1.0, 0.0], [0.6, 0.8], [0.0, -1.0]]
CANDIDATES = [[0.8, 0.6], [0.0, 1.0], [-1.0, 0.0], [0.6, -0.8]]
POSITIVES = [[True, False, False, False], [True, True, False, False], [False, False, False, False]]
NEGATIVES = [[False, False, True, True]] * 3


def plain_consistency(anchors, candidates, positives, negatives, temperature):
    """The formula of DESIGN section 5, term by term; 0 without positives or without negatives."""
    if not anchors or not candidates:
        return 0.0
    losses = []
    for anchor, is_positive, is_negative in zip(anchors, positives, negatives, strict=True):
        scores = [sum(a * c for a, c in zip(anchor, candidate, strict=True)) for candidate in candidates]
        weights = [math.exp(score / temperature) for score in scores]
        against = sum(weight for weight, negative in zip(weights, is_negative, strict=True) if negative)
        logs = [
            -math.log(weight / (weight + against))
            for weight, positive in zip(weights, is_positive, strict=True)
            if positive
        ]
        if logs:
            losses.append(sum(logs) / len(logs))
    return sum(losses) / len(losses) if losses else 0.0


def tensors(dtype=torch.float64, requires_grad=False):
    return (
        torch.tensor(ANCHORS, dtype=dtype, requires_grad=requires_grad),
        torch.tensor(CANDIDATES, dtype=dtype, requires_grad=requires_grad),
        torch.tensor(POSITIVES),
        torch.tensor(NEGATIVES),
    )


# -- consistency --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 7.0])
def test_consistency_equals_the_formula(temperature):
    expected = plain_consistency(ANCHORS, CANDIDATES, POSITIVES, NEGATIVES, temperature)
    assert consistency_loss(*tensors(), temperature).item() == pytest.approx(expected, rel=1e-12)


def test_consistency_of_one_pair_by_hand():
    # anchor 0: positive 0 with cosine 0.8, negatives 2 and 3 with -1 and 0.6, temperature 1/2.
    expected = math.log(1 + (math.exp(-2) + math.exp(1.2)) / math.exp(1.6))
    anchors, candidates, positives, negatives = tensors()
    loss = consistency_loss(anchors[:1], candidates, positives[:1], negatives[:1], 0.5)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_the_default_temperature_is_a_tenth():
    assert torch.equal(consistency_loss(*tensors()), consistency_loss(*tensors(), 0.1))


def test_consistency_survives_extreme_scores():
    anchors = torch.tensor([[300.0, 0.0]], requires_grad=True)
    candidates = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    loss = consistency_loss(anchors, candidates, torch.tensor([[True, False]]), torch.tensor([[False, True]]), 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(6000.0)  # exp(6000) is far beyond any float
    assert anchors.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0.1, 0.8])
def test_consistency_gradients_by_finite_differences(temperature):
    anchors, candidates, positives, negatives = tensors(requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, c: consistency_loss(a, c, positives, negatives, temperature), (anchors, candidates)
    )


def test_consistency_gradient_flows_into_both_inputs():
    anchors, candidates, positives, negatives = tensors(requires_grad=True)
    consistency_loss(anchors, candidates, positives, negatives, 0.5).backward()
    assert anchors.grad[:2].ne(0).any(dim=1).all()
    assert candidates.grad.ne(0).any(dim=1).all()
    assert anchors.grad[2].eq(0).all(), "an anchor without positives takes no part"


@pytest.mark.parametrize("absent", ["positives", "negatives", "both"])
def test_without_positives_or_negatives_loss_and_gradient_are_zero(absent):
    anchors, candidates, positives, negatives = tensors(torch.float32, requires_grad=True)
    positives = torch.zeros_like(positives) if absent in ("positives", "both") else positives
    negatives = torch.zeros_like(negatives) if absent in ("negatives", "both") else negatives
    loss = consistency_loss(anchors, candidates, positives, negatives, 0.1)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(anchors.grad, torch.zeros_like(anchors))
    assert torch.equal(candidates.grad, torch.zeros_like(candidates))


@pytest.mark.parametrize(("num_anchors", "num_candidates"), [(0, 4), (3, 0), (0, 0)])
def test_empty_lists_give_zero_and_a_zero_gradient(num_anchors, num_candidates):
    anchors = torch.ones(num_anchors, 2, requires_grad=True)
    candidates = torch.ones(num_candidates, 2, requires_grad=True)
    mask = torch.zeros(num_anchors, num_candidates, dtype=torch.bool)
    loss = consistency_loss(anchors, candidates, mask, mask, 0.1)
    loss.backward()
    assert loss.shape == ()
    assert loss.item() == 0
    assert torch.equal(anchors.grad, torch.zeros_like(anchors))
    assert torch.equal(candidates.grad, torch.zeros_like(candidates))


@pytest.mark.parametrize("temperature", [0, -0.1, float("nan")])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature: expected a number above 0"):
        consistency_loss(*tensors(), temperature)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_consistency_in_half_precision_is_computed_in_float32(dtype):
    anchors, candidates, positives, negatives = tensors(dtype, requires_grad=True)
    loss = consistency_loss(anchors, candidates, positives, negatives, 0.1)
    exact = consistency_loss(anchors.float(), candidates.float(), positives, negatives, 0.1)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, exact)
    loss.backward()
    assert anchors.grad.dtype == dtype
    assert anchors.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_consistency_under_autocast_is_computed_in_float32(dtype):
    anchors, candidates, positives, negatives = tensors(torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        loss = consistency_loss(anchors, candidates, positives, negatives, 0.1)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, consistency_loss(anchors, candidates, positives, negatives, 0.1))


@st.composite
def problems(draw):
    num_anchors, num_candidates = draw(st.integers(0, 4)), draw(st.integers(0, 5))
    number = st.floats(-1, 1, allow_nan=False, width=32)
    vectors = [
        draw(st.lists(st.lists(number, min_size=3, max_size=3), min_size=n, max_size=n))
        for n in (num_anchors, num_candidates)
    ]
    rows = st.lists(st.booleans(), min_size=num_candidates, max_size=num_candidates)
    masks = [draw(st.lists(rows, min_size=num_anchors, max_size=num_anchors)) for _ in range(2)]
    return *vectors, *masks


def as_tensors(anchors, candidates, positives, negatives):
    shape = len(anchors), len(candidates)
    return (
        torch.tensor(anchors, dtype=torch.float64).view(shape[0], 3),
        torch.tensor(candidates, dtype=torch.float64).view(shape[1], 3),
        torch.tensor(positives, dtype=torch.bool).view(shape),
        torch.tensor(negatives, dtype=torch.bool).view(shape),
    )


@settings(max_examples=100, deadline=None)
@given(problems(), st.sampled_from([0.1, 1.0]), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(problem, temperature, random):
    anchors, candidates, positives, negatives = as_tensors(*problem)
    order = list(range(len(candidates)))
    random.shuffle(order)
    loss = consistency_loss(anchors, candidates, positives, negatives, temperature)
    moved = consistency_loss(anchors, candidates[order], positives[:, order], negatives[:, order], temperature)
    assert moved.item() == pytest.approx(loss.item(), rel=1e-9, abs=1e-12)
    assert loss.item() == pytest.approx(plain_consistency(*problem, temperature), rel=1e-9, abs=1e-9)
    assert loss.item() >= 0


# -- sentence representations -------------------------------------------------------------------------------------


def test_a_representation_is_the_normalised_mean_over_the_span():
    hidden = torch.tensor([[1.0, 0.0], [3.0, 4.0], [3.0, 8.0], [0.0, 5.0]])
    result = sentence_representations(hidden, [(1, 3), (3, 4)])
    # (3, 4) and (3, 8) have the mean (3, 6).
    expected = [[3 / math.sqrt(45), 6 / math.sqrt(45)], [0.0, 1.0]]
    torch.testing.assert_close(result, torch.tensor(expected))


def test_no_sentence_gives_no_vector():
    hidden = torch.ones(4, 3, dtype=torch.bfloat16, requires_grad=True)
    result = sentence_representations(hidden, [])
    assert result.shape == (0, 3)
    assert result.dtype == torch.float32
    result.sum().backward()
    assert hidden.grad.eq(0).all()


def test_representation_gradients_by_finite_differences():
    hidden = torch.linspace(-1, 2, 18, dtype=torch.float64).view(6, 3).sin().requires_grad_()
    assert torch.autograd.gradcheck(lambda h: sentence_representations(h, [(0, 2), (1, 5), (5, 6)]), (hidden,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_representations_in_half_precision_are_computed_in_float32(dtype):
    hidden = torch.linspace(-1, 2, 12).view(4, 3).to(dtype)
    result = sentence_representations(hidden, [(0, 3)])
    assert result.dtype == torch.float32
    assert torch.equal(result, sentence_representations(hidden.float(), [(0, 3)]))


# -- token likelihood ---------------------------------------------------------------------------------------------

LOGITS = [[0.3, -1.2, 2.0, 0.0], [1.0, 1.0, -3.0, 0.5], [5.0, 0.1, 0.2, 0.3]]
LABELS = [2, 0, 1]


def plain_nll(logits, label, smoothing=0.0):
    log_sum = math.log(sum(math.exp(logit) for logit in logits))
    log_probabilities = [logit - log_sum for logit in logits]
    even = -sum(log_probabilities) / len(logits)
    return (1 - smoothing) * -log_probabilities[label] + smoothing * even


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_token_nll_equals_the_formula(smoothing):
    values = token_nll(torch.tensor(LOGITS, dtype=torch.float64), torch.tensor(LABELS), smoothing)
    expected = [plain_nll(row, label, smoothing) for row, label in zip(LOGITS, LABELS, strict=True)]
    assert values.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.05, 0.3])
def test_label_smoothing_is_that_of_transformers(smoothing):
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    theirs = LabelSmoother(epsilon=smoothing)({"logits": logits[None]}, torch.tensor([LABELS]))
    ours = token_nll(logits, torch.tensor(LABELS), smoothing).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)  # theirs sums in float32


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_token_nll_gradient_by_finite_differences(smoothing):
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: token_nll(x, torch.tensor(LABELS), smoothing), (logits,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_token_nll_in_half_precision_is_computed_in_float32(dtype):
    logits = torch.tensor(LOGITS, dtype=dtype, requires_grad=True)
    values = token_nll(logits, torch.tensor(LABELS))
    assert values.dtype == torch.float32
    assert torch.equal(values, token_nll(logits.float(), torch.tensor(LABELS)))
    values.sum().backward()
    assert logits.grad.isfinite().all()


def test_token_nll_of_no_token_is_empty():
    logits = torch.zeros(0, 4, requires_grad=True)
    values = token_nll(logits, torch.zeros(0, dtype=torch.long))
    assert values.shape == (0,)
    values.sum().backward()


# -- completeness -------------------------------------------------------------------------------------------------


def test_the_new_target_keeps_what_was_right_and_adds_what_was_missed():
    match = PersonaMatch(np.zeros((3, 4)), consistent=[1, 3], inconsistent=[0, 2], missing=[0, 2])
    target = completeness_target(["g0", "g1", "g2", "g3"], ["r0", "r1", "r2"], match)
    assert target == ["g1", "g3", "r0", "r2"]


def test_with_nothing_generated_the_new_target_is_the_reference():
    match = PersonaMatch(np.zeros((2, 0)), consistent=[], inconsistent=[], missing=[0, 1])
    assert completeness_target([], ["r0", "r1"], match) == ["r0", "r1"]


def test_with_an_empty_reference_the_new_target_is_empty():
    match = PersonaMatch(np.zeros((0, 1)), consistent=[], inconsistent=[0], missing=[])
    assert completeness_target(["g0"], [], match) == []


def test_dialogue_mean_weighs_dialogues_not_tokens():
    values = torch.tensor([1.0, 2.0, 6.0, 10.0], dtype=torch.float64)
    # dialogue 0: 3 tokens, mean 3; dialogue 1: none, 0; dialogue 2: one, 10.
    assert dialogue_mean(values, torch.tensor([0, 0, 0, 2]), 3).item() == pytest.approx(13 / 3, rel=1e-12)
    assert dialogue_mean(values[[3, 0, 2, 1]], torch.tensor([2, 0, 0, 0]), 3).item() == pytest.approx(13 / 3)


def test_dialogue_mean_gradient_by_finite_differences():
    values = torch.tensor([1.0, -2.0, 6.0, 0.5], dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([1, 0, 1, 3])
    assert torch.autograd.gradcheck(lambda v: dialogue_mean(v, rows, 4), (values,))
    dialogue_mean(values, rows, 4).backward()
    assert values.grad.tolist() == [1 / 8, 1 / 4, 1 / 8, 1 / 4]


@pytest.mark.parametrize("num_rows", [0, 3])
def test_dialogue_mean_of_no_token_is_zero_with_a_zero_gradient(num_rows):
    values = torch.zeros(0, requires_grad=True)
    mean = dialogue_mean(values, torch.zeros(0, dtype=torch.long), num_rows)
    assert mean.item() == 0
    mean.backward()
    assert values.grad.shape == (0,)
