"""Batch extraction: dialogues in, persona sentences out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from pess_hf.beam_sharing import shared_beams
from pess_hf.data.windows import cut_windows
from pess_hf.encoding import encode_sources, warn_of_truncation
from pess_hf.errors import PessError
from pess_hf.rollout import rollout_mode
from pess_hf.sequence_log_probs import sequence_log_probs
from pess_hf.text import split_pieces, unique_sentences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pess_hf.consensus import Consensus
    from pess_hf.fast_engine import CTranslate2Engine

ENGINES = ("torch", "ctranslate2")


class TorchEngine:
    """Writes personas by the model's own `generate`.

    Args:
        model: The extractor.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer

    def write(self, sources: Sequence[Sequence[int]], generation: dict[str, Any]) -> list[str]:
        """Write one persona text per source.

        Args:
            sources: Source token ids with the special tokens, B rows of any length.
            generation: Anything `generate` takes.

        Returns:
            B texts without special tokens.
        """
        input_ids, mask = self._padded(sources)  # (B, S)
        with rollout_mode(self.model), shared_beams(self.model):
            sequences = self.model.generate(input_ids=input_ids, attention_mask=mask, **generation)  # (B, T)
        return self.tokenizer.batch_decode(sequences, skip_special_tokens=True)

    def write_likeliest(
        self, sources: Sequence[Sequence[int]], number: int, generation: dict[str, Any]
    ) -> list[list[tuple[str, float]]]:
        """Write the likeliest persona texts of each source, by beam search.

        Args:
            sources: Source token ids with the special tokens, B rows of any length.
            number: K texts for each, and beams.
            generation: Anything else `generate` takes.

        Returns:
            For each source K texts without special tokens and their log-probabilities, the likeliest first.
        """
        input_ids, mask = self._padded(sources)  # (B, S)
        beams = {"num_beams": number, "num_return_sequences": number, "length_penalty": 0.0, "do_sample": False}
        ends = generation_setting(self.model, generation, "eos_token_id")
        forced_end = _forced_end(self.model, generation)
        answers = []
        with rollout_mode(self.model):
            with shared_beams(self.model):
                sequences = self.model.generate(input_ids=input_ids, attention_mask=mask, **generation, **beams)
            for row, several in enumerate(sequences.view(len(sources), number, -1)):  # (B * K, T) -> (B, K, T)
                source = input_ids[row : row + 1], mask[row : row + 1]  # each (1, S)
                log_probs = sequence_log_probs(self.model, *source, several, ends, forced_end)
                texts = self.tokenizer.batch_decode(several, skip_special_tokens=True)
                answers.append(list(zip(texts, log_probs.tolist(), strict=True)))
        return answers

    def _padded(self, sources: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [torch.tensor(source, device=self.model.device) for source in sources]
        input_ids = pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_token_id)  # (B, S)
        return input_ids, pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)  # (B, S)


#: A source and the numbers of the windows that read like it.
Group: TypeAlias = tuple[Sequence[int], list[int]]
#: What writes personas: a name, or an engine that `open_engine` made.
Engine: TypeAlias = "str | TorchEngine | CTranslate2Engine"


def open_engine(
    model: Any, tokenizer: PreTrainedTokenizerBase, engine: Engine = "torch", compute_type: str | None = None
) -> TorchEngine | CTranslate2Engine:
    """Make an engine ready, so that many calls of `extract` share it.

    Args:
        model: The extractor.
        tokenizer: Its tokenizer.
        engine: "torch" or "ctranslate2" (extra `fast`); an engine is returned as it is.
        compute_type: How CTranslate2 computes, such as "float32" or "int8"; None leaves the weights' own type.

    Raises:
        PessError: If there is no such engine, or it cannot run this model.

    Example:
        >>> engine = open_engine(model, tokenizer, "ctranslate2", "int8")  # doctest: +SKIP
        >>> model.extract(dialogues, tokenizer, engine=engine)  # doctest: +SKIP
    """
    if engine == "ctranslate2":
        from pess_hf.fast_engine import CTranslate2Engine

        return CTranslate2Engine(model, tokenizer, compute_type or "default")
    if compute_type is not None:
        raise PessError(
            f"compute_type={compute_type!r}: expected none, for only engine='ctranslate2' opens with one. "
            "Name that engine, or load the model with dtype=... for torch."
        )
    if engine == "torch":
        return TorchEngine(model, tokenizer)
    if isinstance(engine, str):
        raise PessError(f"engine: expected {' or '.join(ENGINES)}, found {engine!r}.")
    return engine


def extract_personas(
    model: Any,
    dialogues: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int = 16,
    max_source_length: int = 512,
    disable_tqdm: bool = False,
    progress: Any = None,
    engine: Engine = "torch",
    compute_type: str | None = None,
    utterance_window: int | None = None,
    consensus: Consensus | None = None,
    **generation: Any,
) -> list[list[str]]:
    """Generate personas in length-sorted batches; see `PersonaExtractionMixin.extract` for the arguments."""
    if batch_size < 1:
        raise PessError(f"batch_size: expected 1 or more, found {batch_size}.")
    if consensus is not None:
        refuse_other_search(generation)
    window = window_of(model, utterance_window)
    writer = open_engine(model, tokenizer, engine, compute_type)
    owners, windows = cut_dialogues(dialogues, window)
    max_source_length = min(max_source_length, max_positions(model))
    sources = encode_sources(tokenizer, windows, model.config.utterance_separator, max_source_length)
    warn_of_truncation([source.num_dropped for source in sources], "oldest utterances", "max_source_length")
    written: list[list[str]] = [[] for _ in sources]
    left = Counter(owners)
    draws = consensus is None and bool(generation_setting(model, generation, "do_sample"))
    alike = _alike([source.input_ids for source in sources], draws)
    own_bar = tqdm(total=len(dialogues), desc="extract", unit="row", disable=disable_tqdm or progress is not None)
    with own_bar:
        bar = own_bar if progress is None else progress
        for groups in _length_sorted(alike, batch_size):
            personas = write_personas(
                writer, [ids for ids, _ in groups], model.config.persona_separator, generation, consensus
            )
            for (_, parts), persona in zip(groups, personas, strict=True):
                for part in parts:
                    written[part] = persona
            done = [owners[part] for _, parts in groups for part in parts]
            left.subtract(done)
            bar.update(sum(left[row] == 0 for row in set(done)))
    return join_windows(owners, written, len(dialogues))


def generation_setting(model: Any, generation: dict[str, Any], name: str) -> Any:
    """The value that `generate` goes by: the call's, even None, else that of a config passed to it or its own.

    Args:
        model: The extractor.
        generation: What is passed to `generate`, perhaps with a `generation_config`.
        name: The setting.
    """
    if name in generation:
        return generation[name]
    configs = (generation.get("generation_config"), model.generation_config)
    values = (getattr(config, name, None) for config in configs)
    return next((value for value in values if value is not None), None)


def _forced_end(model: Any, generation: dict[str, Any]) -> int | None:
    """How many tokens are written before the end is forced; None where it is not."""
    if generation_setting(model, generation, "forced_eos_token_id") is None:
        return None
    most = generation_setting(model, generation, "max_new_tokens")
    length = generation_setting(model, generation, "max_length") or 21  # the first token is not written
    return (length - 1 if most is None else most) - 1


def _alike(sources: Sequence[Sequence[int]], draws: bool) -> list[Group]:
    """Each distinct source once with the numbers of those that are the same; all apart where answers are drawn."""
    groups: dict[Any, list[int]] = {}
    for part, source in enumerate(sources):
        groups.setdefault(part if draws else tuple(source), []).append(part)
    return [(sources[parts[0]], parts) for parts in groups.values()]


def _length_sorted(groups: Sequence[Group], batch_size: int) -> list[list[Group]]:
    """The sources in batches, the longest first."""
    order = sorted(groups, key=lambda group: (-len(group[0]), group[1]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def write_personas(
    writer: TorchEngine | CTranslate2Engine,
    sources: Sequence[Sequence[int]],
    separator: str,
    generation: dict[str, Any],
    consensus: Consensus | None,
) -> list[list[str]]:
    """The sentences written for each source: those of the best answer, or what several agree on.

    Args:
        writer: What writes.
        sources: Source token ids with the special tokens, B rows of any length.
        separator: Stands between persona sentences.
        generation: Settings of `generate`.
        consensus: How several answers become one; None takes the best one.
    """
    if consensus is None:
        return [split_pieces(text, separator) for text in writer.write(sources, generation)]
    readings = writer.write_likeliest(sources, consensus.num_answers, generation)
    return consensus.agree([[(split_pieces(text, separator), log) for text, log in answers] for answers in readings])


def refuse_other_search(generation: dict[str, Any]) -> None:
    """Refuse settings of `generate` that a consensus decides, in the call and in a config passed to it.

    Raises:
        PessError: If there is one.
    """
    decided = {"num_beams": 1, "num_return_sequences": 1, "length_penalty": 1.0, "do_sample": False}
    passed = generation.get("generation_config")
    for name, neutral in (decided | {"return_dict_in_generate": False}).items():
        value = generation.get(name)
        of_config = getattr(passed, name, None)
        if value is None and of_config != neutral:  # a config of an older transformers holds every default
            value = of_config
        if value is not None:
            raise PessError(
                f"{name}: expected none with a consensus, which searches with as many beams as it weighs answers, "
                f"found {value}. Leave it out."
            )


def cut_dialogues(dialogues: Sequence[Sequence[str]], window: int) -> tuple[list[int], list[list[str]]]:
    """What an extractor reads at a time, and of which dialogue it is.

    Args:
        dialogues: One list of utterances per speaker.
        window: Utterances read at a time; 0 for whole dialogues.

    Returns:
        The dialogue's number for each window, and the windows.

    Raises:
        PessError: If a dialogue is no list, or has no utterance with text.

    Example:
        >>> cut_dialogues([["a", "b", "c"], ["d"]], 2)
        ([0, 0, 1], [['a', 'b'], ['c'], ['d']])
    """
    owners, windows = [], []
    for row, utterances in enumerate(dialogues):
        if isinstance(utterances, str):
            raise PessError(f"dialogue {row}: expected a list of utterances, found one text. Put it into a list.")
        spoken = [utterance for utterance in utterances if utterance.strip()]
        if not spoken:
            raise PessError(f"dialogue {row}: expected at least one utterance with text, found none.")
        of_row = cut_windows(spoken, window or len(spoken))
        owners += [row] * len(of_row)
        windows += of_row
    return owners, windows


def join_windows(owners: Sequence[int], written: Sequence[Sequence[str]], number: int) -> list[list[str]]:
    """The persona of each dialogue out of what its windows told, repeated sentences once.

    Args:
        owners: The dialogue's number for each window.
        written: The sentences of each window.
        number: How many dialogues there are.

    Example:
        >>> join_windows([0, 0], [["I sing."], ["i sing.", "I fly."]], 1)
        [['I sing.', 'I fly.']]
    """
    personas: list[list[str]] = [[] for _ in range(number)]
    for row, sentences in zip(owners, written, strict=True):
        personas[row] += sentences
    return [unique_sentences(persona) for persona in personas]


def window_of(model: Any, utterance_window: int | None = None) -> int:
    """Utterances that an extractor reads at a time; 0 for the whole dialogue.

    Args:
        model: An extractor; its config may hold `utterance_window`.
        utterance_window: What the caller wants instead; None leaves it to the config.

    Raises:
        PessError: If it is below 0.
    """
    window = getattr(model.config, "utterance_window", None) if utterance_window is None else utterance_window
    if window is not None and window < 0:
        raise PessError(f"utterance_window: expected 1 or more, or 0 for the whole dialogue, found {window}.")
    return window or 0


def max_positions(model: Any) -> int:
    """Source tokens that the model has positions for; a very large number where positions are relative.

    Args:
        model: An extractor.

    Returns:
        The number of positions.
    """
    config = getattr(model.config, "encoder", None) or model.config
    return getattr(config, "max_position_embeddings", None) or sys.maxsize
