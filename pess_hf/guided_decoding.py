"""Strategy-guided decoding: two logit streams in one decoder batch (PAL, arXiv 2212.09235).

The stream with the persona and the stream without it stand next to each other in the decoder's batch: rows 0, 1 are
the two streams of sequence 0, rows 2, 3 those of sequence 1, so that a (B, 2, L, D) tensor becomes the decoder's batch
by a view.

Letters used in shapes: B sequences (batch times beams in generation), L context positions, T decoder positions,
D hidden size, V vocabulary, S strategies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList
from transformers.modeling_outputs import Seq2SeqModelOutput
from transformers.utils import ModelOutput

from .configuration_generator import PessGeneratorConfig
from .strategies import StrategyLogitsProcessor, strategy_index


@dataclass
class PersonaEncoderOutput(ModelOutput):
    """What the encoder hands to the decoder.

    Args:
        last_hidden_state: (B, L, D), the encoding with the persona fused in.
        streams: (B, 2, L, D), `last_hidden_state` and the context's own encoding; None where one stream is enough.
        has_persona: (B,), bool; rows without a persona are not guided.
        hidden_states: The encoder's hidden states of the context, where asked for.
        attentions: The encoder's attentions of the context, where asked for.
    """

    last_hidden_state: Tensor | None = None
    streams: Tensor | None = None
    has_persona: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def guidance_strengths(
    decoder_input_ids: Tensor, strategy_token_ids: Tensor, strengths: Tensor, strategy_guidance: float
) -> Tensor:
    """Guidance strength of every decoder position.

    Position 0 holds the start token and predicts the strategy; the token at position 1 is the strategy, and each
    position from there on predicts the response. A token that is no strategy there means no guidance.

    Args:
        decoder_input_ids: (B, T), the decoder's whole input, start token first.
        strategy_token_ids: (S,), the strategies' ids.
        strengths: (S,), the strength of each.
        strategy_guidance: The strength for the strategy token itself.

    Returns:
        (B, T), of the dtype of `strengths`; gradient flows into them.

    Example:
        >>> ids = torch.tensor([[1, 9, 4]])
        >>> guidance_strengths(ids, torch.tensor([8, 9]), torch.tensor([0.0, 0.75]), 0.075)
        tensor([[0.0750, 0.7500, 0.7500]])
    """
    rows, length = decoder_input_ids.shape
    first = strengths.new_full((rows, 1), strategy_guidance)
    if length == 1:
        return first
    chosen = (decoder_input_ids[:, 1:2] == strategy_token_ids).to(strengths.dtype)  # (B, 1) == (S,) -> (B, S)
    response = (chosen @ strengths)[:, None].expand(-1, length - 1)  # (B, S) @ (S,) -> (B, T - 1)
    return torch.cat([first, response], dim=1)


class GuidanceStrengths(nn.Module):
    """The strategies' guidance strengths as weights; a module, so that PEFT can train and save it whole.

    Args:
        strengths: S numbers to start from.

    Example:
        >>> GuidanceStrengths([0.0, 0.75])().shape
        torch.Size([2])
    """

    def __init__(self, strengths: Sequence[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(strengths))  # (S,)

    def forward(self) -> Tensor:
        """The strengths, (S,)."""
        return self.weight


def combine_streams(states: Tensor, strengths: Tensor) -> Tensor:
    """Combine the two streams as ``(1 + a) * with - a * without``.

    The combination is affine, and so is the language-model head: combined hidden states give the combined logits, at
    half the price of the head.

    Args:
        states: (2B, T, D) or (2B, T, V), each sequence's stream with the persona followed by the one without.
        strengths: (B, T), the strengths a.

    Returns:
        (B, T, D) or (B, T, V).

    Example:
        >>> combine_streams(torch.tensor([[[1.0]], [[0.5]]]), torch.tensor([[0.5]]))
        tensor([[[1.2500]]])
    """
    with_persona, without = states.unflatten(0, (-1, 2)).unbind(dim=1)  # (2B, T, D) -> (B, 2, T, D) -> 2 (B, T, D)
    # The same sum, arranged so that equal streams give exactly themselves.
    return with_persona + strengths[..., None].to(states.dtype) * (with_persona - without)


def pair_rows(rows: Tensor) -> Tensor:
    """Rows of the two-stream batch that belong to the given sequences: n becomes 2n, 2n + 1.

    Args:
        rows: (B,), indices of sequences, as beam search reorders them.

    Returns:
        (2B,), indices into the decoder's batch.

    Example:
        >>> pair_rows(torch.tensor([2, 0]))
        tensor([4, 5, 0, 1])
    """
    return (2 * rows[:, None] + torch.arange(2, device=rows.device)).flatten()  # (B, 2) -> (2B,)


def double_rows(tensor: Tensor | None) -> Tensor | None:
    """Repeat each row for its two streams: (B, ...) becomes (2B, ...).

    Example:
        >>> double_rows(torch.tensor([7, 8]))
        tensor([7, 7, 8, 8])
    """
    return None if tensor is None else tensor.repeat_interleave(2, dim=0)


def merge_streams(outputs: Any, strengths: Tensor, has_persona: Tensor | None) -> Seq2SeqModelOutput:
    """Turn the decoder's output over both streams into one of B rows: the last state combined, the rest with persona.

    Args:
        outputs: The output over 2B rows of the backbone without its head; the cache stays as it is.
        strengths: (B, T), the guidance strengths.
        has_persona: (B,), bool; the other rows are not guided. None for all rows.

    Returns:
        The merged output.

    Example:
        >>> two = Seq2SeqModelOutput(last_hidden_state=torch.tensor([[[1.0]], [[0.5]]]))
        >>> merge_streams(two, torch.tensor([[0.5]]), torch.tensor([False])).last_hidden_state
        tensor([[[1.]]])
    """
    if has_persona is not None:
        strengths = strengths * has_persona[:, None]  # (B, T) * (B, 1)

    def first_stream(states: Any) -> Any:
        return None if states is None else tuple(state[::2] for state in states)  # each (2B, ...) -> (B, ...)

    encoded = outputs.encoder_last_hidden_state
    return Seq2SeqModelOutput(
        last_hidden_state=combine_streams(outputs.last_hidden_state, strengths),
        past_key_values=outputs.past_key_values,
        decoder_hidden_states=first_stream(outputs.decoder_hidden_states),
        decoder_attentions=first_stream(outputs.decoder_attentions),
        cross_attentions=first_stream(outputs.cross_attentions),
        encoder_last_hidden_state=None if encoded is None else encoded[::2],
    )


class GuidedGenerationMixin(GenerationMixin):
    """`generate` with a persona and a strategy, on top of the generation loops of transformers.

    The model gives `encode`, `config` and `guidance`. What a call needs travels in its own arguments: the encoding
    of both streams as `encoder_outputs`, the strengths by way of the decoded ids, the cache of both streams as
    `past_key_values`.
    """

    config: PessGeneratorConfig
    guidance: GuidanceStrengths | None
    encode: Any

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: LogitsProcessorList | None = None,
        *,
        persona_input_ids: Tensor | None = None,
        persona_attention_mask: Tensor | None = None,
        strategy: str | Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Write a reply: start token, strategy token, response.

        Greedy search, beam search and sampling all work, with the cache and without it. Lengths are those of
        transformers: `max_new_tokens` and `min_new_tokens` count the strategy token, `max_length` the start token
        too.

        Args:
            inputs: (B, L), the context's ids; also taken as `input_ids`.
            generation_config: As upstream.
            logits_processor: As upstream; the strategy rules are applied after these.
            persona_input_ids: (B, M), the persona; None for none, and then nothing is guided.
            persona_attention_mask: (B, M), zero at padding; a row of zeros has no persona and is not guided.
            strategy: The strategy to begin with: one for all rows, or one for each row, None where the model
                is to predict it.
            kwargs: Further arguments of upstream's `generate`, `attention_mask` among them.

        Returns:
            What upstream returns: ids (B, T) as a rule.

        Raises:
            ValueError: A strategy is unknown, there are more or fewer of them than rows, or the strategies have no
                token ids yet.

        Example:
            >>> settings = {"num_beams": 4, "max_new_tokens": 50, "strategy": "Providing Suggestions"}
            >>> reply = model.generate(**context, persona_input_ids=persona.input_ids, **settings)
            >>> model.strategies_of(reply)
            ['[Providing Suggestions]']
        """
        input_ids = kwargs.pop("input_ids", None) if inputs is None else inputs
        of_encoder = ("inputs_embeds", "output_attentions", "output_hidden_states")
        encoded = self.encode(
            input_ids,
            kwargs.get("attention_mask"),
            persona_input_ids,
            persona_attention_mask,
            kwargs.pop("encoder_outputs", None),
            two_streams=self._is_guided(),
            **{name: kwargs[name] for name in of_encoder if name in kwargs},
        )
        forced = self._forced(strategy, encoded.last_hidden_state.shape[0], kwargs.get("decoder_input_ids"))
        rules = StrategyLogitsProcessor(self.strategy_token_ids, forced)
        upstream: Any = super()
        return upstream.generate(
            input_ids,
            generation_config,
            LogitsProcessorList([*(logits_processor or []), rules]),
            encoder_outputs=PersonaEncoderOutput(**encoded),  # beam search repeats rows in place
            **kwargs,
        )

    @property
    def strategy_token_ids(self) -> list[int]:
        """The strategies' token ids; a `ValueError` says how to get them where there are none."""
        if self.config.strategy_token_ids is None:
            raise ValueError(
                "The model has no strategy tokens: pass a tokenizer prepared by add_strategy_tokens to from_backbone, "
                "or set config.strategy_token_ids and resize the embedding."
            )
        return self.config.strategy_token_ids

    def strategies_of(self, sequences: Tensor) -> list[str | None]:
        """Strategy token of each generated sequence.

        Args:
            sequences: (B, T), ids as `generate` returns them.

        Returns:
            One token a row, None where the second id is no strategy.

        Example:
            >>> model.strategies_of(torch.tensor([[1, model.strategy_token_ids[0], 7]]))
            ['[Question]']
        """
        names = dict(zip(self.strategy_token_ids, self.config.strategies, strict=True))
        return [names.get(token) for token in sequences[:, 1].tolist()]

    def guidance_at(self, decoder_input_ids: Tensor) -> Tensor:
        """Guidance strength of every position of a decoder input that begins with the start token, (B, T)."""
        device = decoder_input_ids.device
        constants = torch.tensor(self.config.guidance_strengths, device=device)
        strengths = constants if self.guidance is None else self.guidance()  # (S,)
        ids = torch.tensor(self.strategy_token_ids, device=device)  # (S,)
        return guidance_strengths(decoder_input_ids, ids, strengths, self.config.strategy_guidance)

    def prepare_inputs_for_generation(self, input_ids: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Add the guidance strengths of the positions that are decoded now; they depend on all ids so far."""
        upstream: Any = super()
        prepared = upstream.prepare_inputs_for_generation(input_ids, *args, **kwargs)
        if prepared["encoder_outputs"].streams is not None:
            length = prepared["decoder_input_ids"].shape[1]
            prepared["strengths"] = self.guidance_at(input_ids)[:, -length:]  # (B, T so far) -> (B, T now)
        return prepared

    def _reorder_cache(self, past_key_values: Any, beam_idx: Tensor) -> Any:
        """Beam search's hook: both streams of a sequence move together."""
        rows = past_key_values.self_attention_cache.layers[0].keys.shape[0]
        past_key_values.reorder_cache(beam_idx if rows == len(beam_idx) else pair_rows(beam_idx))
        return past_key_values

    def _is_guided(self) -> bool:
        strengths = (*self.config.guidance_strengths, self.config.strategy_guidance)
        return self.config.learn_guidance or any(strength > 0 for strength in strengths)

    def _forced(
        self, strategy: str | Sequence[str | None] | None, rows: int, prefix: Tensor | None
    ) -> list[int | None] | None:
        """Index of the strategy that each row has to begin with."""
        if strategy is None:
            return None
        names = [strategy] * rows if isinstance(strategy, str) else list(strategy)
        if len(names) != rows:
            raise ValueError(f"strategy: expected one name or {rows}, one a row, found {len(names)}.")
        if prefix is not None and prefix.shape[1] > 1:
            raise ValueError("strategy: decoder_input_ids go past the strategy already. Pass one of the two.")
        known = self.config.strategies
        return [None if name is None else strategy_index(name, known) for name in names]
