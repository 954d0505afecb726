"""Train a persona extractor, measure it and save it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pess_hf.arguments import Kind, parse_recipe_args
from pess_hf.cli import prepare_output_dir, run_recipe, write_json, write_jsonl
from pess_hf.errors import PessError
from pess_hf.extractor_args import (
    ExtractorArguments,
    PersonaDataArguments,
    PersonaSplits,
    load_extractor,
    load_splits,
    load_tokenizer,
)
from pess_hf.lora_args import LoraArguments, check_resumable
from pess_hf.run_checkpoints import find_checkpoint
from pess_hf.run_predictions import PREDICTIONS, prediction_rows
from pess_hf.similarity import PersonaMatcher, persona_scores
from pess_hf.training_fields import PESS_TRAINING

if TYPE_CHECKING:
    import datasets

    from pess_hf.trainer import PessTrainer
    from pess_hf.training_args import PessTrainingArguments

#: Values of `train_sampling_strategy` whose sampler reads how long rows are.
READS_LENGTHS = ("group_by_length", "batch_rebalance")


def main(args: list[str] | None = None) -> None:
    """Read the settings, train, measure, save."""
    kinds: list[Kind] = [ExtractorArguments, PersonaDataArguments, LoraArguments, PESS_TRAINING]
    parsed = parse_recipe_args(kinds, args, __doc__)
    model_args, data_args, lora_args, training_args = parsed
    folder = prepare_output_dir(training_args.output_dir)
    checkpoint = find_checkpoint(training_args)
    check_resumable(checkpoint, lora_args)

    # Settings and data come first: a mistake shows before anything slow starts.
    check_evaluation(data_args, training_args)
    splits = load_splits(data_args, training_args.seed)
    matcher = None
    if data_args.window_sizes is not None or training_args.has_pess_terms:
        matcher = training_args.open_matcher()  # a wrong name shows before training
    if matcher is not None and data_args.window_sizes is not None:
        splits = cut_training_rows(splits, data_args, training_args, matcher)
    trainer = build_trainer(model_args, data_args, lora_args, training_args, splits, matcher)

    # Train
    result = trainer.train(resume_from_checkpoint=checkpoint)
    metrics = {name: value for name, value in result.metrics.items() if name.startswith("train")}
    metrics.update(before_pess_metrics(trainer))

    trainer.save_model(_internal_call=True)  # as an outside call it would push before anything is measured

    # Measure
    personas: list[list[str]] = []
    if splits.test is not None:
        scores, personas = measure(trainer, splits.test)
        metrics.update(scores)

    # Report
    trainer.save_state()
    if trainer.is_world_process_zero():
        write_json(folder / "metrics.json", metrics)
        write_predictions(folder, splits, personas)
        record_run(folder, list(parsed), splits, metrics)
        report(metrics, splits, personas)
    if training_args.push_to_hub:
        trainer.push_to_hub()


def check_evaluation(data_args: PersonaDataArguments, training_args: PessTrainingArguments) -> None:
    """Refuse what would fail, or leave nothing to measure, after training has begun."""
    strategy = getattr(training_args.eval_strategy, "value", training_args.eval_strategy)
    if strategy != "no" and not data_args.validation_data:
        raise PessError(
            f"eval_strategy: expected validation_data with {strategy}, found none. "
            "Name validation_data, or leave evaluation during training out."
        )
    if training_args.prediction_loss_only:
        raise PessError("prediction_loss_only: expected false, found true. Personas are what this recipe measures.")


def build_trainer(
    model_args: ExtractorArguments,
    data_args: PersonaDataArguments,
    lora_args: LoraArguments,
    training_args: PessTrainingArguments,
    splits: PersonaSplits,
    matcher: PersonaMatcher | None = None,
) -> PessTrainer:
    """Model, tokenizer, collator and trainer of this run."""
    from transformers import set_seed

    from pess_hf.callbacks import EvaluateBeforePess, SaveBeforePess
    from pess_hf.data.collator import PersonaCollator
    from pess_hf.trainer import PessTrainer

    set_seed(training_args.seed)
    model, tokenizer = load_model(model_args, data_args, lora_args, training_args, splits)
    collator = PersonaCollator(
        tokenizer,
        model_args.utterance_separator,
        model_args.persona_separator,
        data_args.max_source_length,
        data_args.max_target_length,
    )
    if training_args.process_index == 0:
        collator.warn_of_truncation(splits.train)
    training_args.predict_with_generate = True
    trainer = PessTrainer(
        model,
        training_args,
        matcher,
        data_collator=collator,
        train_dataset=with_lengths(splits.train)
        if training_args.train_sampling_strategy in READS_LENGTHS
        else splits.train,
        eval_dataset=splits.validation,
        processing_class=tokenizer,
    )
    if data_args.evaluate_before_pess and splits.test is not None:
        trainer.add_callback(EvaluateBeforePess(trainer, splits.test))
    if data_args.save_before_pess:
        trainer.add_callback(SaveBeforePess())
    return trainer


def load_model(
    model_args: ExtractorArguments,
    data_args: PersonaDataArguments,
    lora_args: LoraArguments,
    training_args: PessTrainingArguments,
    splits: PersonaSplits,
) -> tuple[Any, Any]:
    """Extractor and tokenizer to start from, with a trimmed vocabulary and with adapters if asked for."""
    from pess_hf.adapter_start import named_base
    from pess_hf.lora import adapt_for_run
    from pess_hf.vocabulary import trim_vocabulary

    start = model_args.model_name_or_path if model_args.decoder_layers is None else None
    base_model = named_base(start, model_args.model_revision, lora_args, training_args)
    tokenizer = load_tokenizer(model_args)
    beams = training_args.generation_num_beams
    model = load_extractor(model_args, data_args.max_target_length, beams, **lora_args.loading_kwargs())
    if model_args.vocabulary_size is not None:
        texts = (text for row in splits.train for text in [*row["utterances"], *row["persona"]])
        tokenizer = trim_vocabulary(model, tokenizer, texts, model_args.vocabulary_size)
    return adapt_for_run(model, tokenizer, lora_args, training_args, base_model), tokenizer


def cut_training_rows(
    splits: PersonaSplits,
    data_args: PersonaDataArguments,
    training_args: PessTrainingArguments,
    matcher: PersonaMatcher,
) -> PersonaSplits:
    """The same rows, those for training cut into windows; one process finds the turns and the others read them."""
    from datasets import disable_progress_bars

    if training_args.disable_tqdm:
        disable_progress_bars()
    seed = training_args.seed if training_args.data_seed is None else training_args.data_seed
    with training_args.main_process_first(desc="cutting windows"):
        return replace(splits, train=data_args.cut(splits.train, matcher, seed))


def measure(trainer: PessTrainer, rows: datasets.Dataset) -> tuple[dict[str, float], list[list[str]]]:
    """Test metrics and personas; an extractor that reads in windows is measured both ways.

    Returns:
        The metrics: `test_persona_*` are those of the personas, `test_whole_persona_*` of reading whole dialogues
        where that is not the same. And the persona of each row.
    """
    from pess_hf.extraction import cut_dialogues, join_windows, window_of

    output = trainer.predict(rows, metric_key_prefix="test")
    metrics = dict(output.metrics or {})
    window = window_of(trainer.extractor)
    if not window:
        return metrics, trainer.decode_personas(output.predictions)
    owners, parts = cut_dialogues(rows["utterances"], window)
    personas = join_windows(owners, trainer.write_personas(parts), len(rows))
    metrics |= {name.replace("test_", "test_whole_"): value for name, value in metrics.items() if "_persona_" in name}
    scores = persona_scores(trainer.matcher.match(personas, [list(persona) for persona in rows["persona"]]))
    return metrics | {f"test_persona_{name}": value for name, value in scores.items()}, personas


def with_lengths(rows: datasets.Dataset) -> datasets.Dataset:
    """Add the column by which the Trainer puts rows of like length into one batch.

    A target token costs about as much as three source tokens: every decoder layer and the projection read it.
    """
    lengths = [sum(map(len, row["utterances"])) + 3 * sum(map(len, row["persona"])) for row in rows]
    return rows.add_column("length", lengths)


def before_pess_metrics(trainer: PessTrainer) -> dict[str, float]:
    """What was measured when the PESS terms switched on."""
    return {
        name: value
        for entry in trainer.state.log_history
        for name, value in entry.items()
        if name.startswith("before_pess_")
    }


def write_predictions(folder: Path, splits: PersonaSplits, personas: list[list[str]]) -> None:
    """One line per test row: its id, the reference persona and what the model wrote."""
    if splits.test is None:
        return
    write_jsonl(folder / PREDICTIONS, prediction_rows(splits.test, personas))


def record_run(folder: Path, arguments: list[Any], splits: PersonaSplits, metrics: dict[str, float]) -> None:
    """Write run.json, and the model card from it."""
    from pess_hf.model_card import write_model_card
    from pess_hf.run_record import write_run_record

    write_run_record(folder, arguments, len(splits.train), metrics.get("train_runtime", 0.0))
    write_model_card(folder)


def report(metrics: dict[str, float], splits: PersonaSplits, personas: list[list[str]]) -> None:
    """Print the persona scores and one dialogue with its persona."""
    if splits.test is None:
        return
    print(f"\npersona scores on {len(splits.test)} test rows   precision  recall  F1")
    rows = [("before the PESS terms", "before_pess"), ("after training", "test")]
    if "test_whole_persona_f1" in metrics:
        rows[1:] = [("after training, whole dialogues", "test_whole"), ("after training, in windows", "test")]
    for name, prefix in rows:
        if f"{prefix}_persona_f1" in metrics:
            scores = [metrics[f"{prefix}_persona_{score}"] for score in ("precision", "recall", "f1")]
            print(f"{name:<37}" + "".join(f"{score:9.3f}" for score in scores))
    print("\nOne dialogue:")
    for utterance in splits.test[0]["utterances"]:
        print(f"  {utterance}")
    print("Its persona, as extracted:")
    for sentence in personas[0]:
        print(f"  - {sentence}")


if __name__ == "__main__":
    run_recipe(main)
