"""Greedy rollouts: the same as one by one, whatever the checkpoint's own generation settings say."""

import pytest
import torch
from tiny_extractor import tiny_bart, tiny_encoder_decoder, tiny_t5
from transformers import GenerationConfig

from pess_hf.rollout import greedy_config, greedy_rollouts, rollout_mode

KINDS = {"bart": tiny_bart, "t5": tiny_t5, "encoder-decoder": tiny_encoder_decoder}
SOURCES = [torch.tensor(ids) for ids in ([0, 9, 40, 2], [0, 31, 2], [0, 15, 6, 24, 8, 33, 2], [0, 12, 60, 17, 2])]
NEW = 10


def lively(kind, seed=0):
    """A tiny model that writes something else for every source and ends at different places."""
    model = KINDS[kind](seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.7)
    start, pad = model.config.decoder_start_token_id, model.config.pad_token_id
    model.generation_config = GenerationConfig(decoder_start_token_id=start, pad_token_id=pad)
    written = [one_by_one(model, source)[3:] for source in SOURCES]
    ends = [token for row in written for token in row if token not in (start, pad)]
    # The end token is one that some rows write early and others late or never.
    lengths = {end: len({row.index(end) if end in row else NEW for row in written}) for end in ends}
    model.generation_config.eos_token_id = max(lengths, key=lengths.get)
    return model


def one_by_one(model, source):
    config = GenerationConfig(**(model.generation_config.to_diff_dict() | {"max_new_tokens": NEW}))
    with torch.no_grad():
        return model.eval().generate(input_ids=source[None], generation_config=config)[0].tolist()


@pytest.fixture(params=sorted(KINDS))
def model(request):
    return lively(request.param)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_rollouts_are_those_of_one_by_one_generation(model, batch_size):
    expected = [one_by_one(model, source) for source in SOURCES]
    written = greedy_rollouts(model, SOURCES, NEW, batch_size=batch_size)
    assert [row.tolist() for row in written] == expected
    assert len({tuple(row) for row in expected}) >= 3
    assert len({len(row) for row in expected}) > 1


def test_padding_is_cut_and_the_start_token_kept(model):
    start, end = model.config.decoder_start_token_id, model.generation_config.eos_token_id
    pad = model.config.pad_token_id
    for row in greedy_rollouts(model, SOURCES, NEW):
        tokens = row.tolist()
        assert tokens[0] == start
        assert tokens[-1] == end or len(tokens) == NEW + 1
        assert tokens[-1] != pad


def test_t5_starts_with_its_padding_token():
    model = lively("t5")
    assert model.config.decoder_start_token_id == model.config.pad_token_id == 0
    assert all(row[0] == 0 and len(row) > 1 for row in greedy_rollouts(model, SOURCES, NEW))


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3, "early_stopping": True, "length_penalty": 0.1},
        {"min_length": 9},
        {"min_new_tokens": 8},
        {"no_repeat_ngram_size": 1},
        {"repetition_penalty": 5.0},
        {"forced_eos_token_id": 5, "max_length": 4},
        {"do_sample": True, "temperature": 9.0},
        {"suppress_tokens": list(range(4, 100))},
    ],
)
def test_the_checkpoints_generation_settings_are_ignored(model, settings):
    expected = [row.tolist() for row in greedy_rollouts(model, SOURCES, NEW)]
    model.generation_config.update(**settings)
    before = model.generation_config.to_dict()
    assert [row.tolist() for row in greedy_rollouts(model, SOURCES, NEW)] == expected
    assert model.generation_config.to_dict() == before


def test_special_tokens_of_the_generation_config_win_over_the_config():
    model = tiny_bart()
    model.generation_config.forced_bos_token_id, model.generation_config.eos_token_id = 7, 9
    config = greedy_config(model, 5)
    assert (config.forced_bos_token_id, config.eos_token_id, config.pad_token_id) == (7, 9, 1)
    assert config.decoder_start_token_id == model.config.decoder_start_token_id
    assert (config.max_new_tokens, config.num_beams, config.do_sample) == (5, 1, False)
    assert all(row[1] == 7 for row in greedy_rollouts(model, SOURCES, 4))


def test_sources_are_encoded_a_few_at_a_time_and_decoded_together(model):
    encoded, decoded = [], []
    model.get_encoder().register_forward_hook(
        lambda _, __, kwargs, ___: encoded.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    model.get_decoder().register_forward_hook(
        lambda _, __, kwargs, ___: decoded.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    greedy_rollouts(model, SOURCES * 10, NEW, batch_size=64)
    assert [rows for rows, _ in encoded] == [16, 16, 8]
    assert [length for _, length in encoded] == [7, 5, 3]  # each as long as its own longest
    assert set(decoded) == {40}


def test_no_source_gives_no_rollout(model):
    assert greedy_rollouts(model, [], NEW) == []


def test_modes_are_restored_after_an_error():
    model = tiny_bart().train()
    model.model.encoder.eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyError), rollout_mode(model):
        assert not model.training and not torch.is_grad_enabled()
        raise KeyError
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled()
