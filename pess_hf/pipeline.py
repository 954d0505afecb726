"""`SupportPipeline`: chat messages in; the reply, its strategy and the persona it was conditioned on out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, Pipeline

from pess_hf.chat_messages import Turn, check_messages, check_persona
from pess_hf.configuration_generator import PessGeneratorConfig
from pess_hf.data.strategies import normalise_strategy
from pess_hf.data.support_collator import SupportCollator
from pess_hf.errors import PessError
from pess_hf.inference import PersonaFilter, PersonaTracker
from pess_hf.safety import SafetyCheck, default_safety_check
from pess_hf.strategy_names import bare_name

#: The name under which transformers' `pipeline` knows this one.
TASK = "emotional-support"
#: Tokens of a reply at most, as in PAL.
MAX_NEW_TOKENS = 50


@dataclass(frozen=True)
class _Conversation:
    """One conversation, so that a list of messages is not taken for a batch."""

    messages: Any


class SupportPipeline(Pipeline):
    """Answers one conversation as a supporter.

    The persona is inferred from all seeker messages so far, from the third one on, and remembered by what was said:
    a conversation that grows by a message costs one run of the extractor, one that was seen before costs none.
    Every seeker message and every reply goes through `safety_check`; what it returns is answered instead. No text is
    logged.

    Args:
        args: As `transformers.Pipeline`.
        extractor: A persona extractor, its id or its folder; None for no persona unless one is passed in a call.
        extractor_tokenizer: Its tokenizer; loaded with it where `extractor` is a name.
        safety_check: Called with a text and its role ("user" or "assistant"); returns None, or what to answer
            instead. None for the default, which finds explicit wording of self-harm (`pess_hf.safety`).
        rules: From when on a persona is inferred, and which sentences are kept.
        kwargs: As `transformers.Pipeline`, and the arguments of a call, as defaults.

    Raises:
        PessError: The model is no PESS generator or its tokenizer is another's; the extractor is none, or has no
            tokenizer.

    Example:
        >>> from transformers import pipeline  # doctest: +SKIP
        >>> chat = pipeline("emotional-support", model="runs/generator", extractor="runs/extractor")  # doctest: +SKIP
        >>> chat([{"role": "user", "content": "I lost my job."}])  # doctest: +SKIP
        {'reply': 'I am sorry to hear that.', 'strategy': 'Reflection of feelings', 'persona': [], 'safety': None}
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = True

    model: Any

    def __init__(
        self,
        *args: Any,
        extractor: Any = None,
        extractor_tokenizer: Any = None,
        safety_check: SafetyCheck | None = None,
        rules: PersonaFilter | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.safety_check = safety_check or default_safety_check
        self.tracker = _tracker(extractor, extractor_tokenizer, rules, self.device)
        self.collator = collator_of(self.model, self.tokenizer)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer one conversation or several.

        Args:
            inputs: A list of chat messages (`role` "user" or "assistant", `content`, for the assistant optionally
                `strategy`), or a list of such lists.
            args: As `transformers.Pipeline`.
            kwargs: `strategy` to begin the reply with a certain one, `persona` (sentences) in place of an inferred
                one, and whatever `generate` takes.

        Returns:
            For each conversation a dict: `reply`, `strategy` (None where the safety check answered), `persona` (the
            sentences used) and `safety`: None, "message" where a message of the seeker was answered by the check, or
            "reply" where it replaced what the model wrote.

        Raises:
            PessError: A message, the persona, a strategy or a setting is malformed; the message says which.
        """
        if isinstance(inputs, Sequence) and inputs and all(_is_conversation(item) for item in inputs):
            return super().__call__([_Conversation(messages) for messages in inputs], *args, **kwargs)
        return super().__call__(_Conversation(inputs), *args, **kwargs)

    def _sanitize_parameters(
        self, strategy: str | None = None, persona: Sequence[str] | None = None, **generation: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before = {} if persona is None else {"persona": check_persona(persona)}
        if strategy is not None:
            generation["strategy"] = normalise_strategy(strategy)
        config = generation.get("generation_config")
        for name, plain in (("num_return_sequences", 1), ("return_dict_in_generate", False)):
            if (generation[name] if name in generation else getattr(config, name, None)) not in (None, plain):
                raise PessError(f"{name}: expected {plain}, for one reply. Call model.generate for more.")
        check_new_tokens(self.model, generation.get("max_new_tokens"))
        return before, generation, {}

    def preprocess(self, input_: Any, **preprocess_parameters: Any) -> dict[str, Any]:
        """Check the messages, infer the persona and make the model's inputs."""
        turns = check_messages(input_.messages)
        known = preprocess_parameters.get("persona")
        if known is None:
            known = self._persona(turns)
        answer = self._answer_to_messages(turns)
        if answer is not None:
            return {"answer": answer, "persona": known}
        return {**self.collator.encode_prompts([turns], [known]), "persona": known}

    def _persona(self, turns: list[Turn]) -> list[str]:
        said = [str(turn["text"]) for turn in turns if turn["speaker"] == "seeker"]
        return self.tracker.personas([said])[0] if self.tracker is not None else []

    def _answer_to_messages(self, turns: list[Turn]) -> str | None:
        """What the check answers to a message of the seeker, unless it has been answered so already."""
        for n, turn in enumerate(turns):
            if turn["speaker"] != "seeker":
                continue
            answer = self.safety_check(str(turn["text"]), "user")
            later = [other["text"] for other in turns[n + 1 :] if other["speaker"] == "supporter"]
            if answer is not None and answer not in later:
                return answer
        return None

    def _forward(self, input_tensors: Any, **forward_parameters: Any) -> Any:
        inputs = dict(input_tensors)
        persona = inputs.pop("persona")
        if "answer" in inputs:
            return {"answer": inputs["answer"], "persona": persona}
        sequences = self.model.generate(**inputs, **self._with_length(forward_parameters))  # (1, T)
        return {"sequences": sequences, "persona": persona}

    def _with_length(self, generation: dict[str, Any]) -> dict[str, Any]:
        given = generation.get("generation_config") or self.model.generation_config
        is_set = bool({"max_length", "max_new_tokens"} & set(generation)) or given.max_new_tokens is not None
        return generation if is_set else {**generation, "max_new_tokens": MAX_NEW_TOKENS}

    def postprocess(self, model_outputs: Any, **postprocess_parameters: Any) -> dict[str, Any]:
        """Read the strategy and the text off the tokens, and check the reply."""
        result = {"reply": "", "strategy": None, "persona": model_outputs["persona"], "safety": None}
        if "answer" in model_outputs:
            return {**result, "reply": model_outputs["answer"], "safety": "message"}
        [(strategy, reply)] = decode_replies(self.model, self.tokenizer, model_outputs["sequences"])
        answer = self.safety_check(reply, "assistant")
        if answer is not None:
            return {**result, "reply": answer, "safety": "reply"}
        return {**result, "reply": reply, "strategy": strategy}


def decode_replies(model: Any, tokenizer: Any, sequences: Any) -> list[tuple[str | None, str]]:
    """Strategy and text of generated replies.

    Args:
        model: The generator.
        tokenizer: Its tokenizer.
        sequences: Ids (B, T) as `generate` returns them.

    Returns:
        B pairs; the strategy is one of the eight names, or None where there is none.

    Example:
        >>> decode_replies(model, tokenizer, model.generate(**context))  # doctest: +SKIP
        [('Question', 'What happened?')]
    """
    names = [None if token is None else bare_name(token) for token in model.strategies_of(sequences)]
    texts = tokenizer.batch_decode(sequences, skip_special_tokens=True)
    return [(name, " ".join(text.split())) for name, text in zip(names, texts, strict=True)]


def collator_of(model: Any, tokenizer: Any, **settings: Any) -> SupportCollator:
    """A `SupportCollator` with the text form of a generator's config, no longer than its positions.

    Raises:
        PessError: The model is no PESS generator, or the tokenizer is not its own.

    Example:
        >>> collator_of(model, tokenizer, use_persona=False)  # doctest: +SKIP
    """
    config = model.config
    _check_pair(config, tokenizer)
    names = ("utterance_separator", "persona_separator", "seeker_prefix", "supporter_prefix")
    form = {name: getattr(config, name) for name in names}
    limits = {"max_context_length": 512, "max_persona_length": 256, "max_target_length": MAX_NEW_TOKENS}
    positions = config.backbone.max_position_embeddings
    lengths = {name: min(settings.pop(name, limit), positions) for name, limit in limits.items()}
    return SupportCollator(tokenizer, **form, **lengths, **settings)


def _check_pair(config: Any, tokenizer: Any) -> None:
    """Other ids for the strategies, or ids beyond the embedding, would give nonsense or an index error."""
    if config.model_type != PessGeneratorConfig.model_type:
        raise PessError(f"model: expected a PESS generator, found a model of type {config.model_type!r}.")
    if tokenizer is None:
        raise PessError("tokenizer: expected the generator's tokenizer, found none. Give it with the model.")
    vocabulary = tokenizer.get_vocab()
    ids = config.strategy_token_ids
    found = [vocabulary.get(token) for token in config.strategies]
    if ids is not None and None not in found and (found != ids or len(tokenizer) > config.vocab_size):
        raise PessError(
            f"tokenizer: expected the generator's own ({config.vocab_size} tokens, strategies {ids}), found one of "
            f"{len(tokenizer)} tokens, strategies {found}. Take the one saved with the model."
        )


def check_new_tokens(model: Any, number: int | None, name: str = "max_new_tokens") -> None:
    """See that a reply of so many tokens fits a generator's positions.

    Args:
        model: The generator.
        number: New tokens at most; None leaves it to the model.
        name: What the setting is called.

    Raises:
        PessError: It does not, or is below 1.

    Example:
        >>> check_new_tokens(model, 50)  # doctest: +SKIP
    """
    if number is None:
        return
    most = model.config.backbone.max_position_embeddings
    if not 1 <= number <= most:
        raise PessError(f"{name}: expected 1 to {most}, the model's positions, found {number}.")


def _is_conversation(item: Any) -> bool:
    return isinstance(item, Sequence) and not isinstance(item, str | bytes | Mapping)


def _tracker(extractor: Any, tokenizer: Any, rules: PersonaFilter | None, device: Any) -> PersonaTracker | None:
    if extractor is None:
        return None
    if isinstance(extractor, str | os.PathLike):
        from pess_hf.modeling_extractor import AutoPessExtractor

        tokenizer = tokenizer or AutoTokenizer.from_pretrained(extractor)
        extractor = AutoPessExtractor.from_pretrained(os.fspath(extractor)).to(device)
    if tokenizer is None:
        raise PessError("SupportPipeline: expected the extractor's tokenizer as extractor_tokenizer=, found none.")
    if not hasattr(extractor, "extract"):
        raise PessError(f"extractor: expected a persona extractor, found {type(extractor).__name__}.")
    return PersonaTracker(extractor, tokenizer, rules, disable_tqdm=True)


def register() -> None:
    """Make `transformers.pipeline("emotional-support", ...)` find `SupportPipeline`; calling it twice is harmless.

    Example:
        >>> register()
        >>> from transformers.pipelines import PIPELINE_REGISTRY
        >>> TASK in PIPELINE_REGISTRY.get_supported_tasks()
        True
    """
    from transformers.pipelines import PIPELINE_REGISTRY

    if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
        PIPELINE_REGISTRY.register_pipeline(TASK, SupportPipeline, pt_model=AutoModelForSeq2SeqLM, type="text")


register()
