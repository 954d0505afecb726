"""The three terms of a micro-batch against a transcription that takes one dialogue, row and token at a time."""

import math
from dataclasses import replace

import pytest
import torch
from fake_encoder import FakeEncoder
from test_decoder_batch import (
    CAR,
    CHOIR,
    DOG,
    GENERATED,
    NURSE,
    PUPPY,
    REFERENCES,
    THRESHOLD,
    VECTORS,
    encode,
    rollouts,
)

from pess_hf.data.collator import pad_labels
from pess_hf.decoder_batch import DecoderBatch, build_decoder_batch
from pess_hf.similarity import PersonaMatcher
from pess_hf.terms import PessTerms, TermMeter, consistent_counts, pess_terms

VOCABULARY, SIZE = 400, 6
CASES = {
    "mixed": (GENERATED, REFERENCES),
    "several with pairs": ([[CAR, PUPPY], [NURSE, CAR, CHOIR]], [[DOG, CHOIR], [NURSE, CHOIR]]),
    "nothing generated": ([[], []], [[DOG], [NURSE, CHOIR]]),
    "one dialogue": ([[PUPPY, CAR]], [[DOG]]),
    "empty references": ([[CAR], []], [[], []]),
    "no new target is its reference": ([[PUPPY, CAR], [CHOIR, DOG]], [[DOG], [DOG, CHOIR]]),
    "every new target is its reference": ([[DOG, CAR], [CAR], [NURSE]], [[DOG], [CHOIR], [NURSE]]),
    "own rows among shared ones": (
        [[], [CHOIR, CAR, DOG], [CAR], [NURSE, CAR], [PUPPY]],
        [[DOG, NURSE], [DOG, CHOIR], [], [NURSE], [DOG, CHOIR]],
    ),
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


def new_target(rollout, reference):
    sentences = [rollout.generated[j] for j in rollout.match.consistent]
    return sentences + [reference[i] for i in rollout.match.missing]


def slow_terms(scores, hidden, references, written, temperature, smoothing):
    num = len(references)
    nll = sum(sum(row_likelihoods(scores, reference, row, smoothing)) for row, reference in enumerate(references))
    completeness = consistency = 0.0
    targets = [new_target(rollout, reference) for rollout, reference in zip(written, references, strict=True)]
    next_row = num
    for row, (target, reference) in enumerate(zip(targets, references, strict=True)):
        values = row_likelihoods(scores, target, row if target == reference else next_row, smoothing)
        next_row += target != reference
        completeness += sum(values) / len(values) / num
    for row, (rollout, reference) in enumerate(zip(written, references, strict=True)):
        if rollout.match.consistent and rollout.match.inconsistent:
            loss = dialogue_consistency(hidden, row, next_row, rollout, reference, temperature)
            consistency += loss / num
            next_row += 1
    assert next_row == len(scores), "every row is read"
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


def in_batch(generated, references):
    """The decoder batch whose negatives come from the whole micro-batch."""
    sentences = [[sentence for persona in personas for sentence in persona] for personas in (generated, references)]
    [similarity] = PersonaMatcher(FakeEncoder(VECTORS)).similarities(*([one] for one in sentences))
    return build_decoder_batch(references, rollouts(generated, references), encode, THRESHOLD, similarity=similarity)


def cosine(one, other):
    return sum(a * b for a, b in zip(VECTORS[one], VECTORS[other], strict=True))


def slow_in_batch_consistency(hidden, generated, references, first_row, temperature):
    meets = [any(cosine(a, b) >= THRESHOLD for a in g for b in r) for g, r in zip(generated, references, strict=True)]
    if not any(meets):
        return 0.0
    rows = {row: first_row + n for n, row in enumerate(row for row, written in enumerate(generated) if written)}
    states = {
        row: [representation(hidden, place, span) for span in encode([generated[row]])[0].spans]
        for row, place in rows.items()
    }
    total = 0.0
    for row in range(len(references)):
        losses = []
        for i, wanted in enumerate(references[row]):
            anchor = representation(hidden, row, encode([references[row]])[0].spans[i])
            positives, against = [], 0.0
            for other in rows:
                for said, state in zip(generated[other], states[other], strict=True):
                    weight = math.exp(sum(a * c for a, c in zip(anchor, state, strict=True)) / temperature)
                    meets_any = any(cosine(mine, said) >= THRESHOLD for mine in references[row])
                    if other == row and cosine(wanted, said) >= THRESHOLD:
                        positives.append(weight)
                    elif cosine(wanted, said) < THRESHOLD and (other != row or not meets_any):
                        against += weight
            if positives:
                losses.append(-sum(math.log(one / (one + against)) for one in positives) / len(positives))
        total += sum(losses) / len(losses) / len(references) if losses else 0.0
    return total


@every_case
@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_in_batch_negatives_equal_a_slow_transcription(generated, references, temperature):
    batch = in_batch(generated, references)
    scores, hidden = outputs_of_a_model(batch)
    terms = pess_terms(scores[batch.labels.ne(-100)], hidden, batch, len(references), temperature)
    first_row = len(batch.target_ids) - sum(map(bool, generated))
    expected = slow_in_batch_consistency(hidden, generated, references, first_row, temperature)
    assert terms.consistency.item() == pytest.approx(expected, rel=1e-9)


def test_in_batch_negatives_reach_a_dialogue_without_its_own():
    batch = in_batch(GENERATED, REFERENCES)
    scores, hidden = outputs_of_a_model(batch)
    hidden.requires_grad_()
    pess_terms(scores[batch.labels.ne(-100)], hidden, batch, 5, 0.1).consistency.backward()
    reached = hidden.grad.flatten(1).ne(0).any(dim=1).nonzero()[:, 0].tolist()
    # Anchors: the references of 0, 1 and 4, which have positives; then everything that was generated.
    assert [batch.encoder_rows[row].item() for row in reached] == [0, 1, 4, 0, 1, 3, 4]


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
    terms = pess_terms(scores[batch.labels.ne(-100)], hidden, batch, 5, 0.1)
    rows = {}
    for name in ("nll_sum", "completeness", "consistency"):
        gradients = torch.autograd.grad(getattr(terms, name), (scores, hidden), retain_graph=True, allow_unused=True)
        rows[name] = [
            set() if gradient is None else set(gradient.flatten(1).ne(0).any(dim=1).nonzero()[:, 0].tolist())
            for gradient in gradients
        ]
    assert rows == {
        "nll_sum": [{0, 1, 2, 3, 4}, set()],
        "completeness": [{1, 2, 3, 5, 6}, set()],  # dialogues 0 and 4 in rows of their own, 1 to 3 in the reference's
        "consistency": [set(), {0, 7}],
    }


def with_a_row_for_every_new_target(batch, references, written):
    """The layout that leaves nothing out: a new-target row per dialogue, equal to its reference or not."""
    targets = [new_target(rollout, reference) for rollout, reference in zip(written, references, strict=True)]
    paired = [pair.reference_row for pair in batch.pairs]
    encoded = encode(references + targets + [written[row].generated for row in paired])
    target_ids = pad_labels([target.input_ids for target in encoded])
    num = len(references)
    labels = target_ids.clone()
    labels[2 * num :] = -100
    encoder_rows = torch.tensor([*range(num), *range(num), *paired])
    pairs = [replace(pair, generated_row=2 * num + k) for k, pair in enumerate(batch.pairs)]
    return DecoderBatch(target_ids, labels, encoder_rows, list(range(num)), pairs)


class SmallModel(torch.nn.Module):
    """Scores and states of a row depend on its dialogue and its tokens so far, as those of a decoder do."""

    def __init__(self, num_dialogues):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        for name, rows in (("tokens", VOCABULARY), ("dialogues", num_dialogues), ("head", VOCABULARY)):
            values = torch.randn(rows, SIZE, generator=generator, dtype=torch.float64)
            setattr(self, name, torch.nn.Parameter(values))

    def forward(self, batch):
        start = torch.zeros_like(batch.target_ids[:, :1])
        read = torch.cat([start, batch.target_ids[:, :-1].clamp(min=0)], dim=1)
        hidden = torch.tanh(self.tokens[read].cumsum(dim=1) + self.dialogues[batch.encoder_rows][:, None])
        return hidden @ self.head.T, hidden


def terms_and_gradients(batch, num_dialogues):
    model = SmallModel(num_dialogues)
    scores, hidden = model(batch)
    terms = pess_terms(scores[batch.labels.ne(-100)], hidden, batch, num_dialogues, 0.3, label_smoothing=0.1)
    values = [terms.nll_sum, terms.completeness, terms.consistency]
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    return values, [
        torch.autograd.grad(value, [*model.parameters()], **options) if value.requires_grad else () for value in values
    ]


@every_case
def test_leaving_out_the_rows_of_unchanged_targets_changes_neither_value_nor_gradient(generated, references):
    written = rollouts(generated, references)
    batch = build_decoder_batch(references, written, encode, THRESHOLD)
    whole = with_a_row_for_every_new_target(batch, references, written)
    unchanged = sum(
        new_target(rollout, persona) == persona for rollout, persona in zip(written, references, strict=True)
    )
    assert len(batch.target_ids) == len(whole.target_ids) - unchanged
    values, gradients = terms_and_gradients(batch, len(references))
    whole_values, whole_gradients = terms_and_gradients(whole, len(references))
    torch.testing.assert_close(values, whole_values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients, whole_gradients, rtol=1e-12, atol=1e-12)
    assert all(gradient.abs().sum() > 0 for term in gradients[:2] for gradient in term)
    assert bool(gradients[2]) == bool(batch.pairs)


@every_case
def test_a_term_that_is_off_is_zero_and_leaves_the_others_alone(generated, references):
    written, num = rollouts(generated, references), len(references)
    values, _ = terms_and_gradients(build_decoder_batch(references, written, encode, THRESHOLD), num)
    for index, switch in enumerate(("use_completeness", "use_consistency"), start=1):
        batch = build_decoder_batch(references, written, encode, THRESHOLD, **{switch: False})
        expected = [torch.zeros_like(value) if k == index else value for k, value in enumerate(values)]
        torch.testing.assert_close(terms_and_gradients(batch, num)[0], expected, check_dtype=False)


def test_terms_of_dialogues_together_are_means_of_terms_alone():
    generated, references = CASES["several with pairs"]
    written = rollouts(generated, references)
    batch = build_decoder_batch(references, written, encode, THRESHOLD)
    scores, hidden = outputs_of_a_model(batch)
    together = pess_terms(scores[batch.labels.ne(-100)], hidden, batch, 2, 0.5)
    alone = []
    # Reference, new target where it differs, generated: the second dialogue's new target is its reference.
    for row, rows in enumerate([[0, 2, 3], [1, 4]]):
        one = build_decoder_batch([references[row]], [written[row]], encode, THRESHOLD)
        length = one.target_ids.shape[1]
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
    terms = pess_terms(scores[wanted], hidden, batch, len(REFERENCES), 0.1)
    exact = pess_terms(scores[wanted].float(), hidden.float(), batch, len(REFERENCES), 0.1)
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
        device = torch.device("cpu")

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
    finite = torch.zeros(3, 4, dtype=torch.bool)
    terms = PessTerms(torch.tensor(5.0), torch.tensor(2.0), torch.tensor(3.0), finite).times(4)
    assert (terms.nll_sum.item(), terms.completeness.item(), terms.consistency.item()) == (5, 8, 12)
