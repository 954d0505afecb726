"""Infer personas, train a supporter generator on them, measure it and save it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pess_hf.arguments import Kind, parse_recipe_args
from pess_hf.cli import prepare_output_dir, run_recipe, write_json, write_jsonl
from pess_hf.errors import PessError
from pess_hf.generator_args import (
    GeneratorArguments,
    PersonaSourceArguments,
    SupportDataArguments,
    load_examples,
    load_generator,
    make_collator,
)
from pess_hf.late_arguments import LateArguments
from pess_hf.lora_args import LoraArguments, check_resumable
from pess_hf.run_checkpoints import find_checkpoint

if TYPE_CHECKING:
    import datasets
    from transformers import Seq2SeqTrainingArguments

    from pess_hf.generator_evaluation import Reply

TRAINING = LateArguments("transformers:Seq2SeqTrainingArguments", "transformers' Seq2SeqTrainingArguments")


def main(args: list[str] | None = None) -> None:
    """Read the settings, infer personas, train, measure, save."""
    kinds: list[Kind] = [GeneratorArguments, PersonaSourceArguments, SupportDataArguments, LoraArguments, TRAINING]
    parsed = parse_recipe_args(kinds, args, __doc__)
    model_args, persona_args, data_args, lora_args, training_args = parsed
    refuse_label_smoothing(training_args)
    folder = prepare_output_dir(training_args.output_dir)
    checkpoint = find_checkpoint(training_args)
    check_resumable(checkpoint, lora_args)

    # One process infers, the others read its result.
    with training_args.main_process_first(desc="personas"):
        examples = load_splits(data_args, persona_args)
    trainer = build_trainer(model_args, persona_args, data_args, lora_args, training_args, examples)

    # Train
    result = trainer.train(resume_from_checkpoint=checkpoint)
    metrics = {name: value for name, value in result.metrics.items() if name.startswith("train")}

    # Save, before the measuring: it is slow, and nothing should be lost in it
    trainer.save_model(_internal_call=True)  # as an outside call it would push before anything is measured
    trainer.save_state()
    replies = measure(trainer, data_args, training_args, examples.get("test"), metrics)
    if trainer.is_world_process_zero():
        write_json(folder / "metrics.json", metrics)
        write_predictions(folder, examples.get("test"), replies)
        record_run(folder, list(parsed), examples["train"], metrics)
        report(metrics, examples.get("test"), replies, persona_args.persona_source)
    trainer.accelerator.wait_for_everyone()
    if training_args.push_to_hub:
        trainer.push_to_hub()


def refuse_label_smoothing(training_args: Seq2SeqTrainingArguments) -> None:
    """The Trainer's smoother replaces the model's loss by a mean that ignores gradient accumulation."""
    if training_args.label_smoothing_factor:
        raise PessError("label_smoothing_factor: expected 0, the generator is trained without it. Leave it out.")


def load_splits(data_args: SupportDataArguments, persona_args: PersonaSourceArguments) -> dict[str, datasets.Dataset]:
    """Examples of the parts there are, under train, validation and test."""
    parts = {
        "train": (data_args.train_data, data_args.train_split, data_args.max_train_dialogues),
        "validation": (data_args.validation_data, data_args.validation_split, None),
        "test": (data_args.test_data, data_args.test_split, data_args.max_test_dialogues),
    }
    return {name: load_examples(*part, persona_args) for name, part in parts.items() if part[0]}  # type: ignore[arg-type]


def build_trainer(
    model_args: GeneratorArguments,
    persona_args: PersonaSourceArguments,
    data_args: SupportDataArguments,
    lora_args: LoraArguments,
    training_args: Seq2SeqTrainingArguments,
    examples: dict[str, datasets.Dataset],
) -> Any:
    """Model, tokenizer, collator and trainer of this run."""
    from transformers import set_seed

    from pess_hf.adapter_start import named_base
    from pess_hf.generator_trainer import PessGeneratorTrainer
    from pess_hf.lora import adapt_for_run
    from pess_hf.pipeline import check_new_tokens

    set_seed(training_args.seed)
    base_model = named_base(model_args.model_name_or_path, model_args.model_revision, lora_args, training_args)
    model, tokenizer = load_generator(model_args, examples["train"], **lora_args.loading_kwargs())
    check_new_tokens(model, data_args.max_target_length, "max_target_length")
    model = adapt_for_run(model, tokenizer, lora_args, training_args, base_model)
    # Measuring writes the replies itself; during training only the loss is wanted.
    training_args.predict_with_generate = False
    training_args.remove_unused_columns = False
    return PessGeneratorTrainer(
        model,
        training_args,
        data_collator=make_collator(model, tokenizer, persona_args, data_args.lengths()),
        train_dataset=examples["train"],
        eval_dataset=examples.get("validation"),
        processing_class=tokenizer,
    )


def measure(
    trainer: Any,
    data_args: SupportDataArguments,
    training_args: Seq2SeqTrainingArguments,
    examples: datasets.Dataset | None,
    metrics: dict[str, float],
) -> list[Reply]:
    """Add the test figures to `metrics` and return the replies."""
    if examples is None:
        return []
    from pess_hf.generator_evaluation import measure_generator
    from pess_hf.similarity import load_encoder

    scores, replies = measure_generator(
        trainer.model,
        trainer.data_collator,
        examples,
        load_encoder(data_args.similarity_model) if any(examples["persona"]) else None,
        batch_size=training_args.per_device_eval_batch_size,
        max_replies=data_args.max_test_replies,
        disable_tqdm=bool(training_args.disable_tqdm) or not trainer.is_local_process_zero(),
        accelerator=trainer.accelerator,
        max_new_tokens=data_args.max_target_length,
        num_beams=training_args.generation_num_beams or 1,
    )
    metrics.update({f"test_{name}": value for name, value in scores.items()})
    return replies


def write_predictions(folder: Path, examples: datasets.Dataset | None, replies: list[Reply]) -> None:
    """One line per reply: its place, the persona, and strategy and text of reference and reply."""
    if examples is None:
        return
    from pess_hf.generator_evaluation import reply_rows

    write_jsonl(folder / "predictions.jsonl", reply_rows(examples, replies))


def record_run(folder: Path, arguments: list[Any], examples: datasets.Dataset, metrics: dict[str, float]) -> None:
    """Write run.json, and the model card from it."""
    from pess_hf.model_card import write_model_card
    from pess_hf.run_record import write_run_record

    write_run_record(folder, arguments, len(examples), metrics.get("train_runtime", 0.0))
    write_model_card(folder)


def report(
    metrics: dict[str, float], examples: datasets.Dataset | None, replies: list[Reply], persona_source: str
) -> None:
    """Print the scores and one reply with what led to it."""
    if examples is None:
        return
    print(f"\nscores on {len(replies)} replies, persona source {persona_source}")
    for name in ("perplexity", "strategy_accuracy", "bleu_2", "rouge_l", "persona_similarity"):
        if f"test_{name}" in metrics:
            print(f"{name:<20} {metrics[f'test_{name}']:.3f}")
    shown = max(range(len(replies)), key=lambda row: (len(examples[row]["persona"]), -row))
    row, reply = examples[shown], replies[shown]
    print("\nThe end of one conversation:")
    for turn in row["context"][-4:]:
        print(f"  {turn['speaker']}: {turn['text']}")
    print("The persona so far:")
    for sentence in row["persona"]:
        print(f"  - {sentence}")
    print(f"The reply [{reply.strategy}]:\n  {reply.text}")


if __name__ == "__main__":
    run_recipe(main)
