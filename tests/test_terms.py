"""The three terms of a micro-batch against a transcription that takes one dialogue, row and token at a time."""

import math

import pytest
import torch
from test_decoder_batch import CAR, CHOIR, DOG, GENERATED, NURSE, PUPPY, REFERENCES, THRESHOLD, encode, rollouts

from pess_hf.decoder_batch import build_decoder_batch
from pess_hf.terms import PessTerms, TermMeter, consistent_counts, pess_terms

VOCABULARY, SIZE = 400, 6
CASES = {
    "mixed": (GENERATED, REFERENCES),
    "several with pairs": ([[CAR, PUPPY], [NURSE, CAR, CHOIR]], [[DOG, CHOIR], [NURSE, CHOIR]]),
    "nothing generated": ([[], []], [[DOG], [NURSE, CHOIR]]),
    "one dialogue": ([[PUPPY, CAR]], [[DOG]]),
    "empty references": ([[CAR], []], [[], []]),
}
every_case = pytest.mark.parametrize(("generated", "references"), CASES.values(), ids=CASES.keys())


def outputs_of_a_model(batch, dtype=torch.float64):
    """Random scores for every position and random states; the scores the library reads are the labelled ones."""
    generator = torch.Generator().manual_seed(7)
    rows, length = batch.target_ids.shape
    scores = torch.randn(rows, length, VOCABULARY, generator=generator, dtype=dtype)
    hidden = torch.randn(rows, length, SIZE, generator=generator, dtype=dtype)
    return scores, hidden


def negative_log_likelihood(scores, token, smoothing):
    log_sum = math.log(sum(math.exp(score) for score in scores))
    even = sum(log_sum - score for score in scores) / len(scores)
    return (1 - smoothing) * (log_sum - scores[token]) + smoothing * even


def row_likelihoods(scores, sentences, row, smoothing):
    [target] = encode([sentences])
    return [
        negative_log_likelihood(scores[row, position].tolist(), token, smoothing)
        for position, token in enumerate(target.input_ids)
    ]


def representation(hidden, row, span):
    """The state at decoder input t + 1 has read label t: the sentence's own last token included."""
    states = [hidden[row, position + 1].tolist() for position in range(*span)]
    mean = [sum(values) / len(states) for values in zip(*states, strict=True)]
    norm = math.sqrt(sum(value * value for value in mean))
    return [value / norm for value in mean]


def dialogue_consistency(hidden, reference_row, generated_row, rollout, reference, temperature):
    [anchor_target], [candidate_target] = encode([reference]), encode([rollout.generated])
    anchors = [representation(hidden, reference_row, span) for span in anchor_target.spans]
    candidates = [representation(hidden, generated_row, span) for span in candidate_target.spans]
    losses = []
    for i, anchor in enumerate(anchors):
        weight = [math.exp(sum(a * c for a, c in zip(anchor, h, strict=True)) / temperature) for h in candidates]
        against = sum(weight[n] for n in rollout.match.inconsistent)
        positives = [j for j in rollout.match.consistent if rollout.match.similarity[i, j] >= THRESHOLD]
        if positives:
            losses.append(-sum(math.log(weight[j] / (weight[j] + against)) for j in positives) / len(positives))
    return sum(losses) / len(losses)


def slow_terms(scores, hidden, references, written, temperature, smoothing):
    num = len(references)
    nll = sum(sum(row_likelihoods(scores, reference, row, smoothing)) for row, reference in enumerate(references))
    completeness = consistency = 0.0
    generated_row = 2 * num
    for row, (rollout, reference) in enumerate(zip(written, references, strict=True)):
        target = [rollout.generated[j] for j in rollout.match.consistent]
        target += [reference[i] for i in rollout.match.missing]
        values = row_likelihoods(scores, target, num + row, smoothing)
        completeness += sum(values) / len(values) / num
        if rollout.match.consistent and rollout.match.inconsistent:
            loss = dialogue_consistency(hidden, row, generated_row, rollout, reference, temperature)
            consistency += loss / num
            generated_row += 1
    return nll, completeness, consistency


@every_case
@pytest.mark.parametrize(("temperature", "smoothing"), [(0.1, 0.0), (0.7, 0.2)])
def test_terms_equal_a_slow_transcription(generated, references, temperature, smoothing):
    written = rollouts(generated, references)
    batch = build_decoder_batch(references, written, encode, THRESHOLD)
    scores, hidden = outputs_of_a_model(batch)
    terms = pess_terms(scores[batch.labels.ne(-100)], hidden, batch, len(references), temperature, smoothing)
    expected = slow_terms(scores, hidden, references, written, temperature, smoothing)
    found = terms.nll_sum.item(), terms.completeness.item(), terms.consistency.item()
    assert found == pytest.approx(expected, rel=1e-9)


@every_case
def test_without_rollouts_the_pess_terms_are_zero(generated, references):
    batch = build_decoder_batch(references, None, encode, THRESHOLD)
    scores, hidden = outputs_of_a_model(batch)
    terms = pess_terms(scores[batch.labels.ne(-100)], hidden, batch, len(references), 0.1)
    both = build_decoder_batch(references, rollouts(generated, references), encode, THRESHOLD)
    assert terms.nll_sum.item() > 0
    assert (terms.completeness.item(), terms.consistency.item()) == (0, 0)
    assert torch.equal(both.labels[: len(references), : batch.labels.shape[1]], batch.labels)


def test_the_gradient_of_each_term_stays_in_its_rows():
    batch = build_decoder_batch(REFERENCES, rollouts(), encode, THRESHOLD)
    scores, hidden = outputs_of_a_model(batch)
    scores.requires_grad_(), hidden.requires_grad_()
    terms = pess_terms(scores[batch.labels.ne(-100)], hidden, batch, 4, 0.1)
    rows = {}
    for name in ("nll_sum", "completeness", "consistency"):
        gradients = torch.autograd.grad(getattr(terms, name), (scores, hidden), retain_graph=True, allow_unused=True)
        rows[name] = [
            set() if gradient is None else set(gradient.flatten(1).ne(0).any(dim=1).nonzero()[:, 0].tolist())
            for gradient in gradients
        ]
    assert rows == {
        "nll_sum": [{0, 1, 2, 3}, set()],
        "completeness": [{4, 5, 6, 7}, set()],
        "consistency": [set(), {0, 8}],
    }


def test_terms_of_dialogues_together_are_means_of_terms_alone():
    generated, references = CASES["several with pairs"]
    written = rollouts(generated, references)
    batch = build_decoder_batch(references, written, encode, THRESHOLD)
    scores, hidden = outputs_of_a_model(batch)
    together = pess_terms(scores[batch.labels.ne(-100)], hidden, batch, 2, 0.5)
    alone = []
    for row in range(2):
        one = build_decoder_batch([references[row]], [written[row]], encode, THRESHOLD)
        length = one.target_ids.shape[1]
        rows = torch.tensor([row, 2 + row, 4 + row])
        alone.append(pess_terms(scores[rows, :length][one.labels.ne(-100)], hidden[rows, :length], one, 1, 0.5))
    assert together.nll_sum.item() == pytest.approx(sum(term.nll_sum.item() for term in alone))
    assert together.completeness.item() == pytest.approx(sum(term.completeness.item() for term in alone) / 2)
    assert together.consistency.item() == pytest.approx(sum(term.consistency.item() for term in alone) / 2)
    sums = together.times(2)
    assert sums.completeness.item() == pytest.approx(sum(term.completeness.item() for term in alone))
    assert sums.consistency.item() == pytest.approx(sum(term.consistency.item() for term in alone))
    assert torch.equal(sums.nll_sum, together.nll_sum)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_terms_of_a_half_precision_model_are_float32(dtype):
    batch = build_decoder_batch(REFERENCES, rollouts(), encode, THRESHOLD)
    scores, hidden = outputs_of_a_model(batch, dtype)
    wanted = batch.labels.ne(-100)
    terms = pess_terms(scores[wanted], hidden, batch, 4, 0.1)
    exact = pess_terms(scores[wanted].float(), hidden.float(), batch, 4, 0.1)
    for name in ("nll_sum", "completeness", "consistency"):
        assert getattr(terms, name).dtype == torch.float32
        assert torch.equal(getattr(terms, name), getattr(exact, name))


# -- the averages between two logs --------------------------------------------------------------------------------


def test_the_meter_divides_sums_by_weights_and_starts_anew():
    meter = TermMeter()
    meter.add({"nll": torch.tensor(6.0), "other": torch.tensor(1.0)}, weight=3)
    meter.add({"nll": torch.tensor(4.0)}, weight=torch.tensor(1))
    assert meter.read() == {"nll": 2.5, "other": pytest.approx(1 / 3)}
    assert meter.read() == {}


def test_the_meter_reads_zero_where_nothing_weighed_anything():
    meter = TermMeter()
    meter.add({"rate": torch.tensor(0.0)}, weight=0)
    assert meter.read() == {"rate": 0.0}


def test_the_meter_keeps_no_graph():
    meter = TermMeter()
    value = torch.tensor(2.0, requires_grad=True)
    meter.add({"nll": value * 2}, weight=1)
    assert not any(total.requires_grad for total in meter._totals.values())


def test_the_meter_asks_all_processes_once():
    class TwoProcesses:
        calls = 0

        def reduce(self, totals, reduction):
            assert reduction == "sum"
            self.calls += 1
            return totals + torch.tensor([[8.0, 4.0], [0.0, 1.0]])  # what the other process summed

    meter, processes = TermMeter(), TwoProcesses()
    meter.add({"b": torch.tensor(3.0)}, weight=1)
    meter.add({"a": torch.tensor(2.0)}, weight=1)
    assert meter.read(processes) == {"a": 2.0, "b": 1.5}
    assert processes.calls == 1


def test_consistent_counts_leave_repeated_sentences_out():
    assert consistent_counts(rollouts([[PUPPY, CAR, PUPPY], [], [CAR]], [[DOG], [DOG], []])) == (1, 3)
    assert consistent_counts([]) == (0, 0)


def test_times_does_not_touch_the_sum_over_tokens():
    terms = PessTerms(torch.tensor(5.0), torch.tensor(2.0), torch.tensor(3.0)).times(4)
    assert (terms.nll_sum.item(), terms.completeness.item(), terms.consistency.item()) == (5, 8, 12)
