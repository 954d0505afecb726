"""The cache of a frozen encoder's outputs changes nothing but the number of dialogues encoded."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pess_hf.encoder_cache import EncoderCache

SIZE = 4


class Encoder:
    """States that depend on the whole dialogue under the mask, and never 0 at a real token."""

    def __init__(self):
        self.batches = []

    def __call__(self, input_ids, attention_mask):
        self.batches.append(input_ids.tolist())
        real = input_ids * attention_mask
        position = torch.arange(1, input_ids.shape[1] + 1)
        state = (real * position).sum(dim=1, keepdim=True) + 1000 * position + real  # (B, S)
        garbage_at_padding = torch.where(attention_mask.bool(), state, -7)
        return garbage_at_padding[..., None].float() + torch.arange(SIZE) / 8


def batch(*dialogues, width=None):
    width = max(map(len, dialogues)) if width is None else width
    input_ids = torch.tensor([[*ids, *[99] * (width - len(ids))] for ids in dialogues])
    return input_ids, torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in dialogues])


def without_cache(input_ids, attention_mask):
    return Encoder()(input_ids, attention_mask) * attention_mask[..., None]


def test_outputs_are_those_without_a_cache_on_first_and_later_readings():
    cache, encoder = EncoderCache(8), Encoder()
    for dialogues in ([[5, 7, 9], [4]], [[4], [5, 7, 9]], [[4], [6, 6]]):
        assert torch.equal(cache(*batch(*dialogues), encoder), without_cache(*batch(*dialogues)))
    assert cache.misses == 3
    assert encoder.batches == [[[5, 7, 9], [4, 99, 99]], [[6, 6]]], "only what is new is encoded, cut to its length"


def test_padding_is_zero_and_as_wide_as_the_batch():
    cache = EncoderCache(8)
    states = cache(*batch([5, 7], [4], width=6), Encoder())
    assert states.shape == (2, 6, SIZE)
    assert states[0, 2:].eq(0).all()
    assert states[1, 1:].eq(0).all()
    assert states[0, :2].ne(0).all()


def test_the_same_dialogue_under_other_padding_is_no_miss():
    cache, encoder = EncoderCache(8), Encoder()
    narrow = cache(*batch([5, 7]), encoder)
    wide = cache(*batch([5, 7], width=5), encoder)
    assert cache.misses == 1
    assert torch.equal(wide[:, :2], narrow)


def test_a_prefix_is_another_dialogue():
    cache = EncoderCache(8)
    cache(*batch([5, 7, 9]), Encoder())
    assert torch.equal(cache(*batch([5, 7], width=3), Encoder()), without_cache(*batch([5, 7], width=3)))
    assert cache.misses == 2


def test_the_least_recently_used_dialogue_goes_first():
    cache, encoder = EncoderCache(2), Encoder()
    for dialogue in ([1], [2], [1], [3]):  # 1 is read again, so 2 goes
        cache(*batch(dialogue), encoder)
    assert cache.misses == 3
    cache(*batch([1], [3]), encoder)
    assert cache.misses == 3
    cache(*batch([2]), encoder)
    assert cache.misses == 4


@pytest.mark.parametrize("max_rows", [0, 1])
def test_a_batch_larger_than_the_cache(max_rows):
    cache = EncoderCache(max_rows)
    dialogues = [[1, 2], [3], [4, 5, 6]]
    for _ in range(2):
        assert torch.equal(cache(*batch(*dialogues), Encoder()), without_cache(*batch(*dialogues)))
    assert len(cache._rows) == max_rows
    assert cache.misses == 6 - max_rows


def test_what_is_kept_is_not_the_whole_batch():
    cache = EncoderCache(8)
    cache(*batch([5, 7, 9], [4]), Encoder())
    for row in cache._rows.values():
        assert row.untyped_storage().nbytes() == row.numel() * row.element_size()


def test_writing_into_the_output_does_not_change_what_is_kept():
    cache = EncoderCache(8)
    cache(*batch([5, 7]), Encoder()).zero_()
    assert torch.equal(cache(*batch([5, 7]), Encoder()), without_cache(*batch([5, 7])))


DIALOGUES = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(DIALOGUES, max_size=6), st.integers(0, 5))
def test_any_sequence_of_batches_reads_as_without_a_cache(batches, max_rows):
    cache = EncoderCache(max_rows)
    for dialogues in batches:
        assert torch.equal(cache(*batch(*dialogues), Encoder()), without_cache(*batch(*dialogues)))
        assert len(cache._rows) <= max_rows


def test_states_that_carry_a_gradient_are_not_kept():
    with pytest.raises(RuntimeError, match="expected a frozen encoder"):
        EncoderCache(8)(*batch([5, 7]), lambda ids, mask: torch.zeros(*ids.shape, SIZE, requires_grad=True))
