"""Decoder rows that share a dialogue's keys and values: the same states and gradients as a copy for each row."""

import pytest
import torch
from tiny_extractor import tiny_bart, tiny_encoder_decoder, tiny_t5

ROWS = torch.tensor([0, 1, 1, 0, 1])
KINDS = {"bart": tiny_bart, "t5": tiny_t5, "encoder-decoder": tiny_encoder_decoder}


def states_and_gradients(model, states):
    states.square().mean().backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return states.detach(), gradients


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_states_and_gradients_are_those_of_repeated_dialogues(kind, padded, attention):
    model = KINDS[kind]().eval()
    model.set_attn_implementation(attention)
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(4, 60, (2, 7), generator=generator)
    target = torch.randint(4, 60, (5, 6), generator=generator)
    mask = torch.ones_like(source)
    mask[1, 4:] = 0 if padded else 1
    shared = model(input_ids=source, attention_mask=mask, decoder_input_ids=target, encoder_rows=ROWS)
    states, gradients = states_and_gradients(model, shared.decoder_hidden_states)
    repeated = model.decode(target, model.encode(source, mask)[ROWS], mask[ROWS])
    expected, expected_gradients = states_and_gradients(model, repeated)
    torch.testing.assert_close(states, expected)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], msg=name)
    assert any(gradient.abs().sum() > 0 for name, gradient in gradients.items() if "encoder" in name)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_keys_and_values_are_projected_once_a_dialogue(kind):
    model = KINDS[kind]().eval()
    keys = {"bart": "encoder_attn.k_proj", "t5": "EncDecAttention.k", "encoder-decoder": "crossattention.self.key"}
    [module] = [module for name, module in model.named_modules() if name.endswith(keys[kind])]
    batches = []
    module.register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0])))
    source, target = torch.ones(2, 7, dtype=torch.long), torch.ones(5, 6, dtype=torch.long)
    model(input_ids=source, decoder_input_ids=target, encoder_rows=ROWS)
    assert batches == [2]
