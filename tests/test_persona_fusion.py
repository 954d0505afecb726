import pytest
import torch

from pess_hf.persona_fusion import PersonaFusion


def transcription(fusion, context, persona):
    """The formulas of notes/pal.md for one row (L, D) and (L, D), with plain functions."""
    about_context = torch.softmax(persona @ context.T, -1) @ context
    about_persona = torch.softmax(context @ persona.T, -1) @ persona
    c = torch.layer_norm(
        about_context + persona, persona.shape[-1:], fusion.norm_persona.weight, fusion.norm_persona.bias
    )
    q = torch.layer_norm(
        about_persona + context, context.shape[-1:], fusion.norm_context.weight, fusion.norm_context.bias
    )
    w = torch.exp(fusion.mix_logits) / torch.exp(fusion.mix_logits).sum()
    return w[0] * context + w[1] * c + w[2] * q


@pytest.fixture
def fusion():
    torch.manual_seed(0)
    module = PersonaFusion(16)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, mean=0.5)
    return module


def padded(rows, width, filler):
    batch = torch.full((len(rows), width, rows[0].shape[1]), filler)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        batch[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return batch, mask


def test_starts_with_equal_weights():
    assert torch.equal(PersonaFusion(4).mix_logits.softmax(0), torch.full((3,), 1 / 3))


def test_equals_the_transcription(fusion):
    context, persona = torch.randn(4, 7, 16), torch.randn(4, 7, 16)
    expected = torch.stack([transcription(fusion, c, p) for c, p in zip(context, persona, strict=True)])
    torch.testing.assert_close(fusion(context, persona), expected, atol=1e-6, rtol=0)


def test_shorter_persona_is_padded_with_zeros(fusion):
    context, persona = torch.randn(7, 16), torch.randn(3, 16)
    about_context = torch.softmax(torch.cat([persona, torch.zeros(4, 16)]) @ context.T, -1) @ context
    about_persona = torch.softmax(context @ persona.T, -1) @ persona
    c = fusion.norm_persona(about_context + torch.cat([persona, torch.zeros(4, 16)]))
    w = fusion.mix_logits.softmax(0)
    expected = w[0] * context + w[1] * c + w[2] * fusion.norm_context(about_persona + context)
    torch.testing.assert_close(fusion(context[None], persona[None])[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("filler", [0.0, 3.0, float("nan")])
def test_padding_changes_no_unpadded_position(fusion, filler):
    contexts = [torch.randn(n, 16) for n in (5, 9, 2, 4)]
    personas = [torch.randn(n, 16) for n in (3, 2, 8, 4)]
    context, context_mask = padded(contexts, 12, filler)
    persona, persona_mask = padded(personas, 10, filler)
    batch = fusion(context, persona, context_mask, persona_mask)
    for row, (c, p) in enumerate(zip(contexts, personas, strict=True)):
        alone = fusion(c[None], p[None])[0]
        torch.testing.assert_close(batch[row, : len(c)], alone, atol=1e-5, rtol=0)


def test_padding_on_the_left_changes_nothing_either(fusion):
    context, persona = torch.randn(1, 6, 16), torch.randn(1, 4, 16)
    filler = torch.randn(1, 3, 16)
    context_mask = torch.tensor([[0] * 3 + [1] * 6])
    persona_mask = torch.tensor([[0] * 3 + [1] * 4])
    left = fusion(torch.cat([filler, context], 1), torch.cat([filler, persona], 1), context_mask, persona_mask)
    torch.testing.assert_close(left[:, 3:], fusion(context, persona), atol=1e-5, rtol=0)


def test_rows_without_persona_keep_their_context(fusion):
    context, persona = torch.randn(3, 6, 16), torch.randn(3, 4, 16)
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    fused = fusion(context, persona, None, mask)
    assert torch.equal(fused[1], context[1])
    assert not torch.allclose(fused[0], context[0])
    assert torch.equal(fusion(context, persona[:, :0]), context)


def test_gradient_is_finite_where_a_row_has_no_persona(fusion):
    context = torch.randn(2, 5, 16, requires_grad=True)
    persona = torch.randn(2, 3, 16, requires_grad=True)
    mask = torch.tensor([[1, 1, 1], [0, 0, 0]])
    fusion(context, persona, torch.tensor([[1] * 5, [1, 1, 1, 0, 0]]), mask).square().sum().backward()
    assert context.grad.isfinite().all() and persona.grad.isfinite().all()
    assert persona.grad[1].abs().max() == 0
    assert all(parameter.grad.abs().max() > 0 for parameter in fusion.parameters())
