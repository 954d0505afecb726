"""What the generator recipes take besides training arguments, and the model, tokenizer and data made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pess_hf.data import load_support_dataset
from pess_hf.data.subset import first_rows
from pess_hf.data.support_examples import build_support_examples
from pess_hf.data_args import DataSourceArguments
from pess_hf.errors import PessError
from pess_hf.inference import STOCK_PHRASES, PersonaFilter, infer_personas
from pess_hf.similarity import DEFAULT_ENCODER

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

    from pess_hf.data.support_collator import SupportCollator

PersonaSource = Literal["none", "reference", "inferred"]


@dataclass
class GeneratorArguments:
    """Which checkpoint to start from, or how large a model to build.

    Example:
        >>> GeneratorArguments(model_name_or_path="facebook/bart-base").dtype
        'float32'
    """

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Backbone (BlenderbotSmall, BART) or generator: Hub id or folder."},
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the Hub."})
    backbone_config: dict | None = field(
        default=None,
        metadata={"help": "Instead of a checkpoint: model_type and sizes of a backbone with random weights."},
    )
    vocab_size: int = field(
        default=2000, metadata={"help": "With backbone_config: size of the tokenizer trained on the training texts."}
    )
    learn_guidance: bool = field(default=False, metadata={"help": "Train the guidance strengths of the strategies."})
    dtype: str = field(default="float32", metadata={"help": "Data type of the weights; bf16 trains in bfloat16."})

    def __post_init__(self) -> None:
        """Check that there is one way to begin."""
        if (self.model_name_or_path is None) == (self.backbone_config is None):
            raise PessError("expected either model_name_or_path or backbone_config, found both or none. Give one.")
        if self.backbone_config is not None and "model_type" not in self.backbone_config:
            raise PessError("backbone_config: expected model_type in it ('bart' or 'blenderbot-small'), found none.")
        if self.vocab_size < 300:
            raise PessError(f"vocab_size: expected 300 or more, found {self.vocab_size}.")


@dataclass
class PersonaSourceArguments:
    """Where the personas come from that the generator sees.

    Example:
        >>> PersonaSourceArguments(persona_source="none").rules().first_inferred
        3
    """

    persona_source: PersonaSource = field(
        default="inferred",
        metadata={
            "help": "none: the generator sees no persona; reference: those in the data; inferred: by the extractor."
        },
    )
    extractor: str | None = field(default=None, metadata={"help": "Persona extractor: Hub id or folder."})
    first_inferred: int = field(default=3, metadata={"help": "Seeker utterances before a persona is inferred."})
    persona_min_words: int = field(default=2, metadata={"help": "Shorter persona sentences are dropped."})
    persona_max_words: int = field(default=25, metadata={"help": "Longer persona sentences are dropped."})
    stock_phrases: list[str] = field(
        default_factory=lambda: list(STOCK_PHRASES), metadata={"help": "Sentences with one of these are dropped."}
    )
    extraction_batch_size: int = field(default=32, metadata={"help": "Prefixes the extractor reads at once."})
    extraction_num_beams: int | None = field(default=None, metadata={"help": "Beams of the extractor."})
    extraction_max_source_length: int = field(default=512, metadata={"help": "Source tokens of the extractor."})

    def __post_init__(self) -> None:
        """Check what does not fit together."""
        if self.persona_source == "inferred" and self.extractor is None:
            raise PessError("persona_source inferred: expected an --extractor, found none. Name one, or choose none.")
        if self.extraction_batch_size < 1:
            raise PessError(f"extraction_batch_size: expected 1 or more, found {self.extraction_batch_size}.")
        self.rules()

    def rules(self) -> PersonaFilter:
        """From when on a persona is inferred, and which sentences are kept."""
        words = (self.persona_min_words, self.persona_max_words)
        return PersonaFilter(self.first_inferred, *words, stock_phrases=tuple(self.stock_phrases))


@dataclass
class SupportDataArguments(DataSourceArguments):
    """Which conversations to train and measure on.

    Example:
        >>> SupportDataArguments(train_data=["sample"]).max_context_length
        512
    """

    max_train_dialogues: int | None = field(default=None, metadata={"help": "Use only so many training dialogues."})
    max_test_dialogues: int | None = field(default=None, metadata={"help": "Use only so many test dialogues."})
    max_test_replies: int | None = field(
        default=None, metadata={"help": "Write only so many replies; likelihood is measured on all test dialogues."}
    )
    max_context_length: int = field(default=512, metadata={"help": "Context tokens; the oldest go first."})
    max_persona_length: int = field(default=256, metadata={"help": "Persona tokens; the last sentences go first."})
    max_target_length: int = field(default=50, metadata={"help": "Tokens of strategy, response and end at most."})
    similarity_model: str = field(default=DEFAULT_ENCODER, metadata={"help": "Compares replies with personas."})

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("max_train_dialogues", "max_test_dialogues", "max_test_replies"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PessError(f"{name}: expected 1 or more, found {value}.")
        for name in ("max_context_length", "max_persona_length", "max_target_length"):
            if getattr(self, name) < 8:
                raise PessError(f"{name}: expected 8 or more, found {getattr(self, name)}.")

    def lengths(self) -> dict[str, int]:
        """The limits of the collator."""
        names = ("max_context_length", "max_persona_length", "max_target_length")
        return {name: getattr(self, name) for name in names}


def load_support_rows(data: list[str], split: str | None, max_dialogues: int | None = None) -> datasets.Dataset:
    """Read support dialogues, the first `max_dialogues` of them; the sample brings its reference personas.

    Example:
        >>> len(load_support_rows(["sample"], "test", 5))
        5
    """
    return first_rows(load_support_dataset(data, split, sample_reference=True), max_dialogues)


def with_personas(rows: datasets.Dataset, args: PersonaSourceArguments) -> datasets.Dataset:
    """The rows with the personas that a run asks for.

    With `persona_source` none they are only measured against: the data's own, or, where there are none and an
    extractor is named, inferred ones.

    Args:
        rows: Support rows.
        args: Where the personas come from.

    Raises:
        PessError: The data's own personas are asked for and there are none.

    Example:
        >>> rows = load_support_rows(["sample"], "test", 5)
        >>> len(with_personas(rows, PersonaSourceArguments(persona_source="reference")))
        5
    """
    has_own = any(any(known) for row in rows["persona"] for known in row)
    if args.persona_source == "reference" and not has_own:
        raise PessError(
            "persona_source reference: expected rows with personas, found none. "
            "Use PESConv or the sample, or persona_source inferred with an --extractor."
        )
    if args.extractor is None or args.persona_source == "reference" or (args.persona_source == "none" and has_own):
        return rows
    from transformers import AutoTokenizer

    from pess_hf.modeling_extractor import AutoPessExtractor

    model: Any = AutoPessExtractor.from_pretrained(args.extractor)
    generation: dict[str, Any] = {
        "batch_size": args.extraction_batch_size,
        "max_source_length": args.extraction_max_source_length,
    }
    if args.extraction_num_beams is not None:
        generation["num_beams"] = args.extraction_num_beams
    tokenizer = AutoTokenizer.from_pretrained(args.extractor)
    return infer_personas(rows, model, tokenizer, rules=args.rules(), replace=True, **generation)


def load_examples(
    data: list[str], split: str | None, max_dialogues: int | None, persona_args: PersonaSourceArguments
) -> datasets.Dataset:
    """Examples of some sources, one for each supporter turn, with personas.

    Example:
        >>> args = PersonaSourceArguments(persona_source="reference")
        >>> load_examples(["sample"], "test", 2, args).column_names[:3]
        ['dialogue_id', 'turn', 'context']
    """
    return build_support_examples(with_personas(load_support_rows(data, split, max_dialogues), persona_args))


def load_generator(
    args: GeneratorArguments, examples: datasets.Dataset, **loading: Any
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Open, warm-start or build the generator.

    Args:
        args: Which checkpoint, or how large a model.
        examples: Training examples; a tokenizer is trained on their texts where the model is built.
        **loading: Further arguments of `from_pretrained`, such as `quantization_config`.

    Returns:
        The model and its tokenizer, strategy tokens included.

    Raises:
        PessError: The checkpoint or `backbone_config` is not one that a generator can be made from.

    Example:
        >>> sizes = {"model_type": "bart", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
        ...     "encoder_attention_heads": 2, "decoder_attention_heads": 2}
        >>> rows = load_examples(["sample"], "test", 5, PersonaSourceArguments(persona_source="none"))
        >>> model, tokenizer = load_generator(GeneratorArguments(backbone_config=sizes, vocab_size=400), rows)
        >>> model.config.vocab_size == len(tokenizer)
        True
    """
    try:
        if args.backbone_config is not None:
            if loading:
                raise ValueError(
                    f"{', '.join(loading)} needs model_name_or_path; backbone_config has no weights to load."
                )
            return _build(args.backbone_config, args, examples)
        return _open(args, loading)
    except PessError:
        raise
    except (ValueError, TypeError) as error:
        raise PessError(f"generator: {' '.join(str(error).split())}") from error


def _open(args: GeneratorArguments, loading: dict[str, Any]) -> tuple[Any, PreTrainedTokenizerBase]:
    from transformers import AutoTokenizer

    from pess_hf.adapter import is_adapter
    from pess_hf.modeling_generator import PessGenerator
    from pess_hf.open_generator import open_generator
    from pess_hf.strategies import add_strategy_tokens

    name: Any = args.model_name_or_path
    source: dict[str, Any] = {"revision": args.model_revision or "main"}
    tokenizer = AutoTokenizer.from_pretrained(name, **source)
    settings = {"dtype": args.dtype, **source, **loading}
    is_generator = is_adapter(name, **source) or _model_type(name, source) == PessGenerator.config_class.model_type
    if is_generator:
        return open_generator(name, **settings), tokenizer
    add_strategy_tokens(tokenizer)
    settings["learn_guidance"] = args.learn_guidance
    return PessGenerator.from_backbone(name, tokenizer=tokenizer, **settings), tokenizer


def _model_type(name: str, source: dict[str, Any]) -> str:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(name, **source).model_type


def _build(
    sizes: dict[str, Any], args: GeneratorArguments, examples: datasets.Dataset
) -> tuple[Any, PreTrainedTokenizerBase]:
    from pess_hf.configuration_generator import PessGeneratorConfig
    from pess_hf.modeling_generator import PessGenerator
    from pess_hf.small_tokenizer import train_tokenizer
    from pess_hf.strategies import add_strategy_tokens

    texts = [turn["text"] for context in examples["context"] for turn in context[-1:]] + list(examples["response"])
    tokenizer = train_tokenizer([*texts, *(" ".join(persona) for persona in examples["persona"])], args.vocab_size)
    strategy_ids = add_strategy_tokens(tokenizer)
    tokens = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.bos_token_id,
        "forced_eos_token_id": None,
    }
    settings: dict[str, Any] = {"learn_guidance": args.learn_guidance, "strategy_token_ids": strategy_ids}
    return PessGenerator(PessGeneratorConfig(backbone={**tokens, **sizes}, **settings)), tokenizer


def make_collator(
    model: Any, tokenizer: PreTrainedTokenizerBase, persona_args: PersonaSourceArguments, lengths: dict[str, int]
) -> SupportCollator:
    """The collator of a run: the model's text form, and the persona or none."""
    from pess_hf.pipeline import collator_of

    use_persona = persona_args.persona_source != "none"
    return collator_of(model, tokenizer, use_persona=use_persona, with_ids=True, **lengths)
