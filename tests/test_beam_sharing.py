"""Beams that share a dialogue's encoder states: the same tokens as plain `generate`, from fewer projections."""

import pytest
import torch
from test_extraction import DIALOGUES, KINDS, lively

from pess_hf.beam_sharing import SHARED_BEAMS, shared_beam_attention, shared_beams

SETTINGS = {
    "beams": {"num_beams": 4},
    "several texts": {"num_beams": 4, "num_return_sequences": 3},
    "without a cache": {"num_beams": 3, "use_cache": False},
    "static cache": {"num_beams": 3, "cache_implementation": "static"},
    "a prompt": {"num_beams": 3, "decoder_input_ids": torch.tensor([[0, 5, 6]] * len(DIALOGUES))},
    "samples": {"do_sample": True, "num_return_sequences": 3},
    "sampled beams": {"do_sample": True, "num_beams": 3},
    "greedy": {},
}


def batch(kind, padding=True):
    tokenizer = KINDS[kind][1]()
    texts = [" | ".join(dialogue) for dialogue in DIALOGUES] if padding else ["I sing. Hello."] * len(DIALOGUES)
    encoded = tokenizer(texts, return_tensors="pt", padding=True)
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def write(model, inputs, **settings):
    torch.manual_seed(0)
    return model.generate(**inputs, **({"max_new_tokens": 12} | settings))


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_tokens_are_those_of_plain_generate(kind, settings):
    model, inputs = lively(kind).eval(), batch(kind)
    plain = write(model, inputs, **settings)
    with shared_beams(model):
        assert torch.equal(write(model, inputs, **settings), plain)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_beams_see_no_order_among_themselves_where_nothing_is_padded(kind):
    """Without a mask, queries side by side would be taken for a causal sequence."""
    model, inputs = lively(kind).eval(), batch(kind, padding=False)
    plain = write(model, inputs, num_beams=5)
    with shared_beams(model):
        assert torch.equal(write(model, inputs, num_beams=5), plain)


def test_keys_are_projected_once_a_dialogue_and_stay_in_place():
    model, inputs, seen = lively("bart").eval(), batch("bart"), []
    layer = model.model.decoder.layers[0].encoder_attn
    layer.k_proj.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    write(model, inputs, num_beams=4)
    with shared_beams(model):
        result = write(model, inputs, num_beams=4, return_dict_in_generate=True)
    assert seen == [4 * len(DIALOGUES), len(DIALOGUES)]
    cache = result.past_key_values
    assert len(cache.cross_attention_cache.layers[0].keys) == len(DIALOGUES)
    assert len(cache.self_attention_cache.layers[0].keys) == 4 * len(DIALOGUES)


def test_extract_shares_beams_and_puts_the_attention_back():
    model, seen = lively("bart").train(), []
    generate = model.generate
    model.generate = lambda **kwargs: (seen.append(model.config._attn_implementation), generate(**kwargs))[1]
    model.extract(DIALOGUES, KINDS["bart"][1](), num_beams=2, max_new_tokens=4, disable_tqdm=True)
    assert set(seen) == {SHARED_BEAMS}
    assert model.config._attn_implementation == "sdpa" and model.training


def test_the_attention_is_put_back_after_an_error_in_both_halves():
    model = lively("encoder-decoder")
    with pytest.raises(ZeroDivisionError), shared_beams(model):
        assert model.decoder.config._attn_implementation == SHARED_BEAMS
        raise ZeroDivisionError
    assert model.encoder.config._attn_implementation == model.decoder.config._attn_implementation == "sdpa"


def test_another_attention_is_left_as_it_is():
    model, inputs = lively("bart").eval(), batch("bart")
    plain = write(model, inputs, num_beams=4)
    model.set_attn_implementation("eager")
    with shared_beams(model):
        assert model.config._attn_implementation == "eager"
        assert torch.equal(write(model, inputs, num_beams=4), plain)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("length", [1, 3])
def test_attention_over_shared_keys_is_attention_over_repeated_ones(length):
    torch.manual_seed(0)
    layer = torch.nn.Identity()
    layer.is_causal = True
    query, key, value = torch.randn(6, 2, length, 4), torch.randn(2, 2, 5, 4), torch.randn(2, 2, 5, 4)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()[:, None, None].expand(2, 1, length, 5)
    shared, _ = shared_beam_attention(layer, query, key, value, mask)
    many = [tensor.repeat_interleave(3, dim=0) for tensor in (key, value, mask)]
    expected, _ = shared_beam_attention(layer, query, *many)
    assert shared.shape == (6, length, 2, 4)
    torch.testing.assert_close(shared, expected)
