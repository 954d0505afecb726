"""What the extractor recipes take besides training arguments, and the model, tokenizer and data made from it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pess_hf.data import load_persona_dataset
from pess_hf.data.groups import row_groups
from pess_hf.data.overlap import find_overlap, without_overlap
from pess_hf.data.subset import first_rows
from pess_hf.data_args import DataSourceArguments
from pess_hf.errors import PessError
from pess_hf.text import DEFAULT_SEPARATOR
from pess_hf.window_args import WindowArguments

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")


@dataclass
class ExtractorArguments:
    """Which checkpoint to start from and how.

    Example:
        >>> ExtractorArguments(model_name_or_path="facebook/bart-base").dtype
        'float32'
    """

    model_name_or_path: str = field(
        metadata={"help": "Hub id or folder: BART, T5, encoder-decoder, or a BERT-like encoder."}
    )
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the Hub."})
    decoder_layers: int | None = field(
        default=None,
        metadata={"help": "Warm-start a decoder of so many layers; needed for, and only for, a BERT-like encoder."},
    )
    encoder_layers: int | None = field(
        default=None, metadata={"help": "Keep only so many first layers of a BERT-like encoder; by default all."}
    )
    freeze_encoder: bool = field(default=False, metadata={"help": "Train the decoder alone."})
    freeze_embeddings: bool = field(
        default=False,
        metadata={"help": "Keep the decoder's word embeddings, so that words training never shows stay within reach."},
    )
    vocabulary_size: int | None = field(
        default=None,
        metadata={
            "help": "Keep only so many tokens of a BERT-like checkpoint, those that the training rows use most."
        },
    )
    encoder_cache_rows: int = field(
        default=0, metadata={"help": "Dialogues whose outputs of a frozen encoder are kept in memory; 0 keeps none."}
    )
    dtype: str = field(default="float32", metadata={"help": "Data type of the weights; bf16 trains in bfloat16."})
    utterance_separator: str = field(default=DEFAULT_SEPARATOR, metadata={"help": "Stands between utterances."})
    utterance_window: int | None = field(
        default=None,
        metadata={"help": "Utterances that the finished extractor reads at a time; by default the whole dialogue."},
    )
    persona_separator: str = field(default=DEFAULT_SEPARATOR, metadata={"help": "Stands between persona sentences."})

    def __post_init__(self) -> None:
        """Check what does not fit together."""
        if self.encoder_cache_rows < 0:
            raise PessError(f"encoder_cache_rows: expected 0 or more, found {self.encoder_cache_rows}.")
        if self.encoder_cache_rows and not self.freeze_encoder:
            raise PessError("encoder_cache_rows: expected freeze_encoder: true with it, found false. Set one of them.")
        if self.encoder_layers is not None and self.decoder_layers is None:
            raise PessError(
                "encoder_layers: expected decoder_layers with it, found none. It is for BERT-like encoders."
            )
        if self.vocabulary_size is not None and self.decoder_layers is None:
            raise PessError(
                "vocabulary_size: expected decoder_layers with it, found none. It is for BERT-like encoders."
            )
        if self.utterance_window is not None and self.utterance_window < 1:
            raise PessError(f"utterance_window: expected 1 or more, found {self.utterance_window}.")
        if self.dtype not in _DTYPES:
            raise PessError(f"dtype: expected one of {', '.join(_DTYPES)}, found {self.dtype!r}.")
        for name in ("utterance_separator", "persona_separator"):
            if not getattr(self, name).strip():
                raise PessError(f"{name}: expected a mark such as '{DEFAULT_SEPARATOR}', found only white space.")


@dataclass
class PersonaDataArguments(WindowArguments, DataSourceArguments):
    """Which dialogues to train and measure on.

    Example:
        >>> PersonaDataArguments(train_data=["sample"]).max_source_length
        512
    """

    exclude_data: list[str] | None = field(
        default=None,
        metadata={"help": "Sources whose dialogues, speakers and personas are taken out of the training rows."},
    )
    exclude_split: str | None = field(default=None, metadata={"help": "Split of the excluded sources."})
    held_out_fraction: float = field(
        default=0.0,
        metadata={"help": "Share of the training rows set aside for measuring; no speaker is on both sides."},
    )
    held_out_seed: int | None = field(
        default=None, metadata={"help": "Decides which rows are set aside; by default the training seed does."}
    )
    max_source_length: int = field(default=512, metadata={"help": "Source tokens; the oldest utterances go first."})
    max_target_length: int = field(default=128, metadata={"help": "Target tokens; the last sentences go first."})
    max_train_rows: int | None = field(default=None, metadata={"help": "Use only so many training rows."})
    max_test_rows: int | None = field(default=None, metadata={"help": "Use only so many test rows."})
    evaluate_before_pess: bool = field(
        default=False, metadata={"help": "Also measure at the step at which the PESS terms switch on."}
    )
    save_before_pess: bool = field(
        default=False,
        metadata={"help": "Save a checkpoint at that step, from which runs with other PESS settings can go on."},
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 0 <= self.held_out_fraction < 1:
            raise PessError(f"held_out_fraction: expected a number in [0, 1), found {self.held_out_fraction}.")
        if self.held_out_fraction and self.test_data:
            raise PessError("held_out_fraction: expected no test_data with it, found both. Drop one of them.")
        for name in ("max_source_length", "max_target_length", "max_train_rows", "max_test_rows"):
            value = getattr(self, name)
            if value is not None and value < (8 if name.endswith("length") else 1):
                raise PessError(f"{name}: expected {8 if name.endswith('length') else 1} or more, found {value}.")


def load_tokenizer(args: ExtractorArguments) -> PreTrainedTokenizerBase:
    """The tokenizer of the starting checkpoint."""
    from pess_hf.checkpoint import open_tokenizer
    from pess_hf.similarity import resolve_encoder

    return open_tokenizer(resolve_encoder(args.model_name_or_path), revision=args.model_revision or "main")


def load_extractor(args: ExtractorArguments, max_new_tokens: int, num_beams: int | None = None, **loading: Any) -> Any:
    """Open or warm-start the extractor.

    What it decodes with later is set here: the checkpoint's own settings (a summariser's minimum length, say) would
    spoil personas.

    Args:
        args: Which checkpoint and how.
        max_new_tokens: Tokens written at most.
        num_beams: Beams; None for greedy decoding.
        **loading: Further arguments of `from_pretrained`, such as `quantization_config`.

    Returns:
        The model, its encoder and its decoder's embeddings frozen if asked for.

    Example:
        >>> args = ExtractorArguments("sentence-transformers/all-MiniLM-L6-v2", decoder_layers=2)
        >>> load_extractor(args, max_new_tokens=64).generation_config.max_new_tokens
        64
    """
    from pess_hf.modeling_extractor import AutoPessExtractor, PessEncoderDecoderExtractor
    from pess_hf.rollout import greedy_config

    kwargs: dict[str, Any] = {"dtype": args.dtype, "revision": args.model_revision or "main", **loading}
    model: Any
    if args.decoder_layers is not None and loading:
        raise PessError(
            f"decoder_layers: expected none with {', '.join(loading)}, found {args.decoder_layers}. A decoder cannot "
            "be warm-started from quantized weights; load in full."
        )
    if args.decoder_layers is not None:
        model = PessEncoderDecoderExtractor.from_backbone(
            args.model_name_or_path, args.decoder_layers, args.encoder_layers, **kwargs
        )
    else:
        model = AutoPessExtractor.from_pretrained(args.model_name_or_path, **kwargs)
    model.set_separators(args.utterance_separator, args.persona_separator)
    if args.utterance_window is not None:
        model.config.utterance_window = args.utterance_window
    model.generation_config = greedy_config(model, max_new_tokens)
    model.generation_config.num_beams = num_beams or 1
    if args.freeze_embeddings:
        model.get_output_embeddings().weight.requires_grad_(False)
    if args.freeze_encoder:
        model.freeze_encoder(cache_rows=args.encoder_cache_rows)
    return model


@dataclass(frozen=True)
class PersonaSplits:
    """The rows of one run.

    Args:
        train: For training.
        validation: For evaluation during training, or None.
        test: For the figures at the end, or None.
    """

    train: datasets.Dataset
    validation: datasets.Dataset | None
    test: datasets.Dataset | None


def load_splits(args: PersonaDataArguments, seed: int = 42) -> PersonaSplits:
    """Read the rows; with `held_out_fraction` the test rows are groups of the training rows.

    What training rows share with the rows that are measured is said in a warning; see `find_overlap`.

    Args:
        args: Which rows.
        seed: Decides which groups are set aside where `held_out_seed` does not.

    Example:
        >>> splits = load_splits(PersonaDataArguments(train_data=["sample"], held_out_fraction=0.1))
        >>> len(splits.train) + len(splits.test)
        1600
    """
    train = load_persona_dataset(args.train_data, args.train_split, persona_turns=args.window_sizes is not None)
    validation = load_persona_dataset(args.validation_data, args.validation_split) if args.validation_data else None
    test = load_persona_dataset(args.test_data, args.test_split) if args.test_data else None
    if args.held_out_fraction:
        of_split = seed if args.held_out_seed is None else args.held_out_seed
        train, test = split_by_group(train, args.held_out_fraction, of_split)
    if args.exclude_data:
        train = _exclude(train, args.exclude_data, args.exclude_split)
    test = None if test is None else first_rows(test, args.max_test_rows)
    splits = PersonaSplits(first_rows(train, args.max_train_rows), validation, test)
    for name, rows in (("validation", splits.validation), ("test", splits.test)):
        if rows is not None:
            warn_of_overlap(rows, splits.train, name)
    return splits


def _exclude(train: datasets.Dataset, sources: list[str], split: str | None) -> datasets.Dataset:
    kept = without_overlap(train, load_persona_dataset(sources, split))
    logger.warning("exclude_data: %d of %d training rows are left out.", len(train) - len(kept), len(train))
    if not len(kept):
        raise PessError(f"exclude_data: expected to keep training rows, found all {len(train)} excluded. Name others.")
    return kept


def warn_of_overlap(rows: datasets.Dataset, train: datasets.Dataset, name: str) -> None:
    """Say in one warning how many rows share a speaker, a dialogue or a persona with the training rows.

    Args:
        rows: The rows that are measured.
        train: The training rows.
        name: What the rows are called: "test", "validation".
    """
    found = find_overlap(rows, train)
    if found.rows:
        logger.warning(
            "%s rows: of %d, %d share a dialogue or a speaker with training rows and %d a whole persona; scores on "
            "them flatter. Name the %s sources in exclude_data to take such rows out of training.",
            *(name, len(rows), len(found.groups), len(found.personas), name),
        )


def split_by_group(
    rows: datasets.Dataset, fraction: float, seed: int = 42
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Set aside about `fraction` of the rows so that no dialogue and no speaker is on both sides.

    Args:
        rows: Persona rows; `row_groups` tells what belongs together. Rows that share no more than a persona may part:
            in Persona-Chat they would chain most dialogues to one group.
        fraction: Share of the groups set aside, in (0, 1).
        seed: Decides which.

    Returns:
        The rows kept and the rows set aside, each in their order.

    Raises:
        PessError: If one side would be empty.

    Example:
        >>> from pess_hf.data import load_persona_dataset
        >>> kept, aside = split_by_group(load_persona_dataset("sample"), 0.25)
        >>> len(kept), len(aside)
        (1200, 400)
    """
    import random

    groups = row_groups(rows["dialogue_id"], rows["utterances"])
    names = sorted(set(groups))
    random.Random(seed).shuffle(names)
    aside = set(names[: round(fraction * len(names))])
    sides = [[row for row, group in enumerate(groups) if (group in aside) == is_aside] for is_aside in (False, True)]
    if not all(sides):
        raise PessError(
            f"held_out_fraction={fraction}: expected rows on both sides, found {len(sides[0])} kept and "
            f"{len(sides[1])} set aside of {len(names)} speaker groups. Choose another fraction."
        )
    return rows.select(sides[0]), rows.select(sides[1])
