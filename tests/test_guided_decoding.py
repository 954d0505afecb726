import threading

import pytest
import torch
from tiny_generator import BACKBONES, END, START, STRATEGY_IDS, VOCAB, row_of, tiny_generator, tiny_inputs
from transformers.modeling_outputs import BaseModelOutput

from pess_hf.guided_decoding import combine_streams, guidance_strengths, pair_rows
from pess_hf.strategies import STRATEGIES, StrategyLogitsProcessor

KINDS = sorted(BACKBONES)
STRONG = [0.5, 2.0, 1.0, 3.0, 2.5, 1.5, 2.0, 1.0]
MODES = {
    "greedy": {},
    "beams": {"num_beams": 3, "length_penalty": 0.6},
    "sampling": {"do_sample": True, "top_k": 10, "temperature": 0.8},
    "beam sampling": {"do_sample": True, "num_beams": 2},
}


def guided(kind="blenderbot-small", **settings):
    return tiny_generator(kind, guidance_strengths=STRONG, strategy_guidance=0.8, **settings)


def generate(model, inputs, seed=0, **settings):
    torch.manual_seed(seed)
    # Varied replies make the comparisons sharp: an untrained model repeats itself.
    return model.generate(**inputs, **{"max_new_tokens": 10, "no_repeat_ngram_size": 2, **settings})


def until_end(row):
    """The row up to its end token: beam search fills up with either padding or end tokens."""
    tokens = row.tolist()
    return tokens[: tokens.index(END) + 1] if END in tokens else tokens


def combined_scores(model, inputs, ids):
    """Log-probabilities of the next token after `ids`, both streams from scratch, by the formula itself."""
    encoder = model.get_encoder()
    mask = inputs["attention_mask"]
    context = encoder(inputs["input_ids"], attention_mask=mask)[0]
    logits = []
    for hidden in (fused_alone(model, inputs, context), context):
        out = model.backbone(
            encoder_outputs=BaseModelOutput(hidden), attention_mask=mask, decoder_input_ids=ids, use_cache=False
        )
        logits.append(out.logits[0, -1])
    first = ids.shape[1] == 1
    a = 0.8 if first else STRONG[STRATEGY_IDS.index(int(ids[0, 1]))]
    scores = ((1 + a) * logits[0] - a * logits[1]).log_softmax(-1)
    if first:
        kept = scores[STRATEGY_IDS].log_softmax(-1)
        scores = torch.full_like(scores, -torch.inf)
        scores[STRATEGY_IDS] = kept
    else:
        scores[STRATEGY_IDS] = -torch.inf
    return scores


def fused_alone(model, inputs, context):
    if "persona_input_ids" not in inputs:
        return context
    persona = model.get_encoder()(inputs["persona_input_ids"], attention_mask=inputs["persona_attention_mask"])[0]
    return model.fusion(context, persona)


@torch.no_grad()
def slow_beams(model, inputs, beams, new_tokens, penalty):
    """Beam search over one unpadded row, written plainly."""
    running, finished = [(0.0, [START])], []
    for step in range(1, new_tokens + 1):
        candidates = []
        for total, ids in running:
            scores = combined_scores(model, inputs, torch.tensor([ids]))
            candidates += [(total + score, [*ids, token]) for token, score in enumerate(scores.tolist())]
        best = sorted(candidates, key=lambda entry: -entry[0])[: 2 * beams]
        running = []
        for rank, (total, ids) in enumerate(best):
            if ids[-1] == END or step == new_tokens:
                if rank < beams:
                    finished.append((total / step**penalty, ids))
            elif len(running) < beams:
                running.append((total, ids))
    return max(finished)[1]


class TestPieces:
    def test_strengths_by_position(self):
        ids = torch.tensor([[1, 9, 7, 7], [1, 8, 7, 7], [1, 7, 7, 7]])
        found = guidance_strengths(ids, torch.tensor([8, 9]), torch.tensor([0.5, 0.75]), 0.1)
        expected = torch.tensor([[0.1] + [a] * 3 for a in (0.75, 0.5, 0.0)])
        torch.testing.assert_close(found, expected)
        assert torch.equal(guidance_strengths(ids[:, :1], torch.tensor([8, 9]), torch.ones(2), 0.1), expected[:, :1])

    def test_combination(self):
        with_persona, without, a = torch.randn(3, 2, 5), torch.randn(3, 2, 5), torch.rand(3, 2)
        logits = torch.stack([with_persona, without], 1).flatten(0, 1)
        expected = (1 + a[..., None]) * with_persona - a[..., None] * without
        torch.testing.assert_close(combine_streams(logits, a), expected)

    def test_pairs(self):
        assert pair_rows(torch.tensor([1, 1, 0], dtype=torch.int32)).tolist() == [2, 3, 2, 3, 0, 1]

    def test_rules_on_scores(self):
        rules = StrategyLogitsProcessor([4, 5], [None, 1])
        first = rules(torch.zeros(4, 1), torch.arange(24.0).view(4, 6))
        assert first.exp().sum(1).tolist() == pytest.approx([1] * 4)
        assert first.isfinite().sum(1).tolist() == [2, 2, 1, 1]
        later = rules(torch.zeros(4, 2), torch.zeros(4, 6))
        assert later[:, 4:].isneginf().all() and (later[:, :4] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
class TestDecoding:
    @pytest.mark.parametrize("mode", sorted(MODES))
    def test_strength_zero_is_ordinary_decoding(self, kind, mode):
        inputs = tiny_inputs()
        model = tiny_generator(kind, guidance_strengths=[0] * 8, strategy_guidance=0)
        found = generate(model, inputs, **MODES[mode])
        hidden = model.encode(**inputs).last_hidden_state
        ordinary = {
            "encoder_outputs": BaseModelOutput(hidden),
            "attention_mask": inputs["attention_mask"],
            "logits_processor": [StrategyLogitsProcessor(STRATEGY_IDS)],
        }
        assert torch.equal(found, generate(model.backbone, ordinary, **MODES[mode]))
        assert len({tuple(row) for row in found.tolist()}) > 1

    @pytest.mark.parametrize("mode", sorted(MODES))
    def test_cached_is_uncached(self, kind, mode):
        model, inputs = guided(kind), tiny_inputs()
        wanted = {"output_scores": True, "return_dict_in_generate": True, **MODES[mode]}
        cached = generate(model, inputs, **wanted)
        uncached = generate(model, inputs, use_cache=False, **wanted)
        assert torch.equal(cached.sequences, uncached.sequences)
        for one, other in zip(cached.scores, uncached.scores, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        assert torch.equal(generate(model, inputs, **MODES[mode], cache_implementation="static"), cached.sequences)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_beams_equal_the_slow_reference(self, kind, seed):
        model, inputs = guided(kind, seed=seed), tiny_inputs(rows=4, seed=seed)
        # "never" makes upstream's stopping rule exact, as the reference's is.
        settings = {"num_beams": 3, "length_penalty": 0.6, "early_stopping": "never", "no_repeat_ngram_size": 0}
        found = generate(model, inputs, **settings, max_new_tokens=7)
        for row in range(4):
            expected = slow_beams(model, row_of(inputs, row), 3, 7, 0.6)
            assert until_end(found[row]) == expected

    def test_greedy_equals_the_slow_reference(self, kind):
        model, inputs = guided(kind), tiny_inputs()
        found = generate(model, inputs, no_repeat_ngram_size=0, max_new_tokens=7)
        for row in range(3):
            expected = slow_beams(model, row_of(inputs, row), 1, 7, 0.0)
            assert until_end(found[row]) == expected

    def test_guidance_matters_only_with_a_persona(self, kind):
        model, inputs = guided(kind), tiny_inputs()
        unguided = tiny_generator(kind, guidance_strengths=[0] * 8, strategy_guidance=0)
        settings = {"output_logits": True, "return_dict_in_generate": True, "strategy": "Self-disclosure"}
        first, second = (generate(one, inputs, **settings) for one in (model, unguided))
        assert torch.equal(first.sequences[2], second.sequences[2])
        assert not torch.equal(first.sequences[:2], second.sequences[:2])
        torch.testing.assert_close(first.logits[3][2], second.logits[3][2], atol=1e-4, rtol=1e-4)

    def test_no_persona_at_all(self, kind):
        inputs = tiny_inputs()
        context = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        empty = {**inputs, "persona_attention_mask": torch.zeros(3, 5)}
        zero_wide = {**context, "persona_input_ids": torch.zeros(3, 0, dtype=torch.long)}
        expected = generate(guided(kind), context)
        assert torch.equal(generate(guided(kind), empty), expected)
        assert torch.equal(generate(guided(kind), zero_wide), expected)

    def test_a_row_does_not_depend_on_its_batch(self, kind):
        model, inputs = guided(kind), tiny_inputs(rows=4)
        together = generate(model, inputs, num_beams=2)
        for row in range(4):
            alone = generate(model, row_of(inputs, row), num_beams=2)[0]
            assert until_end(together[row]) == until_end(alone)


@pytest.mark.parametrize("mode", sorted(MODES))
def test_generating_twice_gives_the_same(mode):
    model, inputs = guided(), tiny_inputs()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attributes = set(vars(model))
    first = generate(model, inputs, **MODES[mode])
    generate(model, tiny_inputs(rows=5, seed=3), num_beams=2)
    assert torch.equal(generate(model, inputs, **MODES[mode]), first)
    assert set(vars(model)) == attributes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_threads_do_not_disturb_each_other(mode):
    model = guided()
    jobs = [tiny_inputs(rows=2 + index, seed=index) for index in range(2)]
    expected = [generate(model, inputs, **MODES[mode], max_new_tokens=20) for inputs in jobs]
    wrong = []
    start = threading.Barrier(len(jobs))

    def work(index):
        start.wait()
        for _ in range(6):
            found = model.generate(**jobs[index], **MODES[mode], max_new_tokens=20, no_repeat_ngram_size=2)
            if not torch.equal(found, expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class TestStrategies:
    @pytest.mark.parametrize("mode", sorted(MODES))
    @pytest.mark.parametrize("strategy", [None, "Question", ["[Others]", None, "Information"]])
    def test_forced_or_predicted(self, mode, strategy):
        model = guided()
        found = generate(model, tiny_inputs(), strategy=strategy, **MODES[mode])
        names = strategy if isinstance(strategy, list) else [strategy] * 3
        for token, name in zip(model.strategies_of(found), names, strict=True):
            assert token in STRATEGIES if name is None else token.strip("[]") == name.strip("[]")

    @pytest.mark.parametrize("mode", sorted(MODES))
    def test_never_inside_the_response(self, mode):
        model = guided()
        model.backbone.final_logits_bias[:, STRATEGY_IDS] = 50.0
        found = generate(model, tiny_inputs(), **MODES[mode])
        assert torch.isin(found[:, 1], torch.tensor(STRATEGY_IDS)).all()
        assert not torch.isin(found[:, 2:], torch.tensor(STRATEGY_IDS)).any()

    def test_several_replies_a_row(self):
        strategy = ["Question", "Others", "Information"]
        found = generate(guided(), tiny_inputs(), strategy=strategy, num_beams=4, num_return_sequences=2)
        assert found[:, 1].tolist() == [4, 4, 11, 11, 10, 10]

    def test_more_beams_than_strategies(self):
        found = generate(guided(), tiny_inputs(), num_beams=12)
        assert torch.isin(found[:, 1], torch.tensor(STRATEGY_IDS)).all()

    def test_predicted_token_follows_guidance(self):
        model, inputs = guided(), row_of(tiny_inputs(), 0)
        found = generate(model, inputs, max_new_tokens=1)
        assert found.tolist() == [[START, combined_scores(model, inputs, torch.tensor([[START]])).argmax()]]

    def test_prefix_of_the_reply(self):
        model, inputs = guided(), tiny_inputs()
        whole = generate(model, inputs, no_repeat_ngram_size=0)
        again = generate(model, inputs, no_repeat_ngram_size=0, decoder_input_ids=whole[:, :4], max_new_tokens=7)
        assert torch.equal(again, whole)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"strategy": "Sing"}, "Unknown strategy 'Sing'.*Self-disclosure"),
            ({"strategy": ["Question"]}, "found 1"),
            ({"strategy": "Question", "decoder_input_ids": torch.full((3, 2), START)}, "Pass one of the two"),
            ({"forced_bos_token_id": 13}, "forced_bos_token_id"),
            ({"forced_eos_token_id": END, "max_new_tokens": 1}, "forced_eos_token_id"),
        ],
    )
    def test_mistakes_are_explained(self, settings, message):
        with pytest.raises(ValueError, match=message):
            generate(guided(), tiny_inputs(), **settings)

    def test_no_strategy_tokens_yet(self):
        with pytest.raises(ValueError, match="add_strategy_tokens"):
            generate(tiny_generator(strategy_token_ids=None), tiny_inputs())


class TestUpstreamSettings:
    def test_sampling_follows_the_seed(self):
        model, inputs = guided(), tiny_inputs()
        draws = [generate(model, inputs, seed=seed, **MODES["sampling"]) for seed in (1, 1, 2)]
        assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])

    @pytest.mark.parametrize("mode", sorted(MODES))
    def test_lengths(self, mode):
        model, inputs = guided(), tiny_inputs()
        model.backbone.final_logits_bias[:, END] = 100.0
        assert generate(model, inputs, **MODES[mode]).shape[1] == 3
        long = generate(model, inputs, min_new_tokens=6, **MODES[mode])
        assert long.shape[1] == 8 and (long[:, 7] == END).all() and not (long[:, :7] == END).any()
        assert generate(model, inputs, min_length=5, **MODES[mode]).shape[1] == 6
        model.backbone.final_logits_bias[:, END] = -100.0
        assert generate(model, inputs, max_new_tokens=4, **MODES[mode]).shape[1] == 5
        assert generate(model, inputs, max_new_tokens=None, max_length=7, **MODES[mode]).shape[1] == 7

    def test_states_are_those_of_the_stream_with_the_persona(self):
        model, inputs = guided(), tiny_inputs()
        model.set_attn_implementation("eager")
        wanted = {"output_hidden_states": True, "output_attentions": True, "return_dict_in_generate": True}
        out = generate(model, inputs, **wanted)
        assert out.decoder_hidden_states[1][-1].shape == (3, 1, 16)
        assert out.cross_attentions[0][0].shape == (3, 2, 1, 9)
        assert out.encoder_hidden_states[-1].shape == (3, 9, 16)

    def test_learned_strengths_are_used(self):
        inputs = tiny_inputs()
        learned = tiny_generator(learn_guidance=True, strategy_guidance=0.8)
        before = generate(learned, inputs)
        learned.guidance.weight.data = torch.tensor(STRONG)
        after = generate(learned, inputs)
        assert torch.equal(after, generate(guided(), inputs)) and not torch.equal(before, after)

    def test_shared_encoding(self):
        model, inputs = guided(), tiny_inputs()
        encoded = model.encode(**inputs, two_streams=True)
        again = {"encoder_outputs": encoded, "attention_mask": inputs["attention_mask"]}
        for mode in ("beams", "greedy", "beams"):
            assert torch.equal(generate(model, again, **MODES[mode]), generate(model, inputs, **MODES[mode]))

    def test_half_precision(self):
        found = generate(guided().to(torch.bfloat16), tiny_inputs(), num_beams=2)
        assert found.max() < VOCAB
