"""What every extractor backbone shares: several decoder rows over one encoded dialogue, freezing, extraction.

Letters: B dialogues, S source tokens, R decoder rows, T target tokens, V vocabulary, D width, N labelled tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn
from transformers.modeling_outputs import ModelOutput

from pess_hf.beam_sharing import BeamSharingMixin
from pess_hf.encoder_cache import EncoderCache
from pess_hf.errors import PessError
from pess_hf.extraction import Engine, extract_personas
from pess_hf.shared_attention import rows_mask, shared_cross_attention
from pess_hf.text import DEFAULT_SEPARATOR

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pess_hf.consensus import Consensus


@dataclass
class SharedEncoderOutput(ModelOutput):
    """What a forward pass with more decoder rows than dialogues returns.

    Args:
        logits: Next-token scores at the positions whose label is not -100, row by row, (N, V).
        decoder_hidden_states: Last hidden states of every decoder row, (R, T, D).
        encoder_last_hidden_state: The encoder's output, computed once per dialogue, (B, S, D).
    """

    logits: torch.Tensor | None = None
    decoder_hidden_states: torch.Tensor | None = None
    encoder_last_hidden_state: torch.Tensor | None = None


class PersonaExtractionMixin(BeamSharingMixin):
    """Makes an encoder-decoder language model a persona extractor, adding no weight.

    It adds `extract`, a forward pass in which several decoder rows share one encoded dialogue, a loss that honours
    `num_items_in_batch`, and the two separators in the config. A backbone class provides `decode` and `project`.
    """

    accepts_loss_kwargs = True

    # What the backbone brings along.
    config: Any
    get_encoder: Any
    get_decoder: Any
    named_parameters: Any
    training: bool

    def set_separators(self, utterance: str = DEFAULT_SEPARATOR, persona: str = DEFAULT_SEPARATOR) -> Self:
        """Write the separators of the text form into the model's config; returns the model itself.

        Args:
            utterance: Stands between two utterances of the source.
            persona: Stands between two persona sentences of the target.
        """
        self.config.utterance_separator = utterance
        self.config.persona_separator = persona
        return self

    def freeze_encoder(self, frozen: bool = True, cache_rows: int = 0) -> Self:
        """Take the encoder out of training (or back in); a frozen encoder also runs without dropout.

        Embeddings that the decoder uses too stay trainable.

        Args:
            frozen: Out of training or back in.
            cache_rows: How many dialogues' encoder outputs are kept in memory during training, so that a dialogue
                that is read again (next epoch, rollout) is not encoded again. 0 keeps none. It is refused where the
                encoder shares its embeddings with a decoder that trains.

        Raises:
            PessError: If the cache is asked for and the encoder would still change.
        """
        encoder = self.get_encoder()
        shared = {id(p) for name, p in self.named_parameters(remove_duplicate=False) if not _is_encoder_name(name)}
        for parameter in encoder.parameters():
            if id(parameter) not in shared:
                parameter.requires_grad_(not frozen)
        if cache_rows and any(parameter.requires_grad for parameter in _without_pooler(encoder)):
            raise PessError(
                f"cache_rows={cache_rows}: expected an encoder that stays as it is; this one is trained or shares its "
                "embeddings with the decoder. Leave the cache out."
            )
        self._encoder_is_frozen = frozen
        self._encoder_cache = EncoderCache(cache_rows) if cache_rows else None
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`; a frozen encoder stays in eval mode."""
        super().train(mode)  # type: ignore[misc]
        if getattr(self, "_encoder_is_frozen", False):
            self.get_encoder().eval()
        return self

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: Any = None,
        labels: torch.Tensor | None = None,
        encoder_rows: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> Any:
        """The backbone's forward pass, or, with more decoder rows than dialogues, one that encodes each dialogue once.

        Args:
            input_ids: Source tokens, (B, S).
            attention_mask: 1 for real source tokens, (B, S).
            decoder_input_ids: Decoder inputs, (R, T). With R a multiple of B and no `encoder_rows`, row r belongs to
                dialogue r mod B.
            decoder_attention_mask: Passed to the backbone; without a use where rows share a dialogue.
            encoder_outputs: Passed to the backbone, in place of `input_ids`.
            labels: Target tokens, (R, T); -100 where no logits are wanted.
            encoder_rows: The dialogue of each decoder row, (R,), in [0, B).
            num_items_in_batch: Labelled tokens in the whole global batch; the loss is then a sum divided by it.
            **kwargs: Passed to the backbone.

        Returns:
            The backbone's output where each dialogue has one decoder row, else a `SharedEncoderOutput`.

        Example:
            >>> import torch
            >>> from transformers import BartConfig
            >>> from pess_hf import PessExtractor
            >>> config = BartConfig(vocab_size=50, d_model=8, encoder_layers=1, decoder_layers=1,
            ...     encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8)
            >>> source, target = torch.ones(2, 5, dtype=torch.long), torch.ones(6, 3, dtype=torch.long)
            >>> PessExtractor(config)(input_ids=source, decoder_input_ids=target).decoder_hidden_states.shape
            torch.Size([6, 3, 8])
        """
        if (
            input_ids is None
            or decoder_input_ids is None
            or (encoder_rows is None and len(decoder_input_ids) <= len(input_ids))
        ):
            outputs = super().forward(  # type: ignore[misc]
                input_ids=input_ids,
                attention_mask=attention_mask,
                decoder_input_ids=decoder_input_ids,
                decoder_attention_mask=decoder_attention_mask,
                encoder_outputs=encoder_outputs,
                labels=labels,
                **kwargs,
            )
            if num_items_in_batch is not None and labels is not None:  # a sum: a mean over no token is not a number
                outputs.loss = _sum_over_tokens(outputs.logits, labels) / num_items_in_batch
            return outputs
        return self._forward_shared(input_ids, attention_mask, decoder_input_ids, labels, encoder_rows)

    def _forward_shared(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        decoder_input_ids: torch.Tensor,
        labels: torch.Tensor | None,
        encoder_rows: torch.Tensor | None,
    ) -> SharedEncoderOutput:
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        encoded = self.encode(input_ids, attention_mask)  # (B, S, D)
        if encoder_rows is None:
            repeats = len(decoder_input_ids) // len(input_ids)
            encoder_rows = torch.arange(len(input_ids), device=input_ids.device).repeat(repeats)  # (R,)
        mask = attention_mask[encoder_rows]  # (R, S)
        if self.training and _checkpoints_layers(self.get_decoder()):  # they take no cache then
            hidden = self.decode(decoder_input_ids, encoded[encoder_rows], mask)  # (R, T, D)
        else:
            ready = rows_mask(self.get_decoder().config, mask, encoded, decoder_input_ids.shape[1])
            hidden = self.decode(decoder_input_ids, encoded, ready, shared_cross_attention(encoder_rows))
        wanted = hidden if labels is None else hidden[labels.ne(-100)]  # (N, D)
        return SharedEncoderOutput(
            logits=self.project(wanted), decoder_hidden_states=hidden, encoder_last_hidden_state=encoded
        )

    def encode(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Encode source tokens (B, S) into (B, S, D), from the cache where a frozen encoder has one."""
        cache = getattr(self, "_encoder_cache", None)
        return (
            cache(input_ids, attention_mask, self._run_encoder)
            if cache
            else self._run_encoder(input_ids, attention_mask)
        )

    def _run_encoder(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)[0]

    def decode(
        self, decoder_input_ids: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor | None, cache: Any = None
    ) -> torch.Tensor:
        """Last hidden states (R, T, D) of decoder inputs (R, T) over encoded dialogues (R, S, D), teacher forced.

        With a `shared_cross_attention` as cache the dialogues are (B, S, D) and the mask comes from `rows_mask`.
        Targets are padded on the right, where a causal decoder's real positions cannot see the padding: no mask.
        """
        raise TypeError(f"{type(self).__name__} has to say how its backbone decodes.")

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """Vocabulary scores (..., V) of hidden states (..., D)."""
        raise TypeError(f"{type(self).__name__} has to say how its backbone projects.")

    def extract(
        self,
        dialogues: Sequence[Sequence[str]],
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 16,
        *,
        max_source_length: int = 512,
        disable_tqdm: bool = False,
        progress: Any = None,
        engine: Engine = "torch",
        compute_type: str | None = None,
        utterance_window: int | None = None,
        consensus: Consensus | None = None,
        **generation: Any,
    ) -> list[list[str]]:
        """Write the persona of each speaker.

        Dialogues are tokenised, sorted by length, generated in batches and put back into order. What reads alike, such
        as windows that two beginnings of one conversation share, is read once, unless answers are drawn (`do_sample`).

        Args:
            dialogues: One list of utterances per speaker, oldest first.
            tokenizer: The tokenizer that was saved with the model.
            batch_size: Dialogues generated for at once.
            max_source_length: Source tokens kept; what is dropped first are the oldest utterances.
            disable_tqdm: No progress bar.
            progress: A progress bar to move in place of an own one.
            engine: "torch", "ctranslate2" (extra `fast`; BART and T5), or what `open_engine` returns.
            compute_type: How CTranslate2 computes, such as "float32" or "int8"; None leaves the weights' own type.
            utterance_window: Utterances read at a time; what the windows tell is joined, repeated sentences once. None
                takes `config.utterance_window`, 0 reads each dialogue as a whole.
            consensus: Keeps what several of the likeliest answers agree on; None takes the best answer as it is.
            **generation: Anything `generate` takes, such as `num_beams=4`; CTranslate2 refuses what it has no
                counterpart for.

        Returns:
            The persona sentences of each dialogue, in the order of `dialogues`.

        Raises:
            PessError: If a dialogue has no utterance, or the engine cannot run this model or a setting.

        Example:
            >>> model = AutoPessExtractor.from_pretrained("runs/demo")  # doctest: +SKIP
            >>> model.extract([["My two dogs need a walk."]], tokenizer)  # doctest: +SKIP
            [['I have two dogs.']]
        """
        return extract_personas(
            self,
            dialogues,
            tokenizer,
            batch_size=batch_size,
            max_source_length=max_source_length,
            disable_tqdm=disable_tqdm,
            progress=progress,
            engine=engine,
            compute_type=compute_type,
            utterance_window=utterance_window,
            consensus=consensus,
            **generation,
        )


def _sum_over_tokens(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    targets = labels.to(logits.device).flatten()
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="sum")


def _without_pooler(encoder: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for name, parameter in encoder.named_parameters() if not name.startswith("pooler."))


def _checkpoints_layers(decoder: nn.Module) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in decoder.modules())


def _is_encoder_name(name: str) -> bool:
    return name.startswith(("encoder.", "model.encoder."))
