"""Small runs whose results must not depend on how many processes share them; called by one process and by two."""

import torch
from tiny_extractor import ScriptedTrainer, make_trainer, rows, tiny_bart
from tiny_support import tiny_support_model
from tiny_tokenizers import byte_level_tokenizer
from transformers import Seq2SeqTrainingArguments

from pess_hf import PessError, PessExtractor
from pess_hf.generator_args import PersonaSourceArguments, load_examples
from pess_hf.generator_evaluation import measure_generator
from pess_hf.generator_trainer import PessGeneratorTrainer
from pess_hf.pipeline import collator_of
from pess_hf.trainer import PessTrainer

GLOBAL_BATCH = 8
WEIGHTS = {"plain": (0.0, 0.0), "pess": (0.7, 0.3)}
LOGGED = ("loss", "grad_norm", "nll", "completeness", "consistency", "rollout_consistent_rate")


def trained(folder, terms, world, accumulation):
    """A trainer after two steps over the same 16 rows, whatever the number of processes and accumulation steps."""
    weights = dict(zip(("completeness_weight", "consistency_weight"), WEIGHTS[terms], strict=True))
    trainer = make_trainer(
        folder, number=16, max_steps=2, learning_rate=0.05, optim="sgd", lr_scheduler_type="constant",
        per_device_train_batch_size=GLOBAL_BATCH // world // accumulation, gradient_accumulation_steps=accumulation,
        rollout_steps=1, model=tiny_bart(seed=1, init_std=0.2), **weights,
    )  # fmt: skip
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    trainer.logged = [{name: entry[name] for name in LOGGED} for entry in logs]
    return trainer


class RememberingTrainer(PessTrainer):
    """Notes the rollout of each row."""

    def _roll_out(self, batches, token_ids=None):
        made = super()._roll_out(batches, token_ids)
        for batch, rollouts in zip(batches, made, strict=True):
            named = zip(batch["dialogue_id"], rollouts, strict=True)
            self.seen.update((name, rollout.token_ids.tolist()) for name, rollout in named)
        return made


def rollouts_by_row(folder, world):
    """The rollouts that this process made in one step over eight rows."""
    trainer = make_trainer(folder, kind=RememberingTrainer, per_device_train_batch_size=8 // world)
    trainer.seen = {}
    trainer.train()
    return trainer.seen


class NotingTrainer(ScriptedTrainer):
    """Notes the rows that it trains on, in order."""

    def _roll_out(self, batches, token_ids=None):
        self.seen.extend(name for batch in batches for name in batch["dialogue_id"])
        return super()._roll_out(batches, token_ids)


def grouped_by_length(folder, world, dropout=0.0, resume=None, **changes):
    """A trainer after two epochs over 16 rows of unequal length, and the rows that this process saw."""
    data = rows(16)
    data = data.add_column("length", [sum(map(len, row["utterances"])) for row in data])
    trainer = make_trainer(
        folder, kind=NotingTrainer, train_rows=data, train_sampling_strategy="group_by_length", max_steps=4,
        per_device_train_batch_size=8 // world, learning_rate=0.05, optim="sgd", lr_scheduler_type="constant",
        rollout_steps=1, model=tiny_bart(seed=1, init_std=0.2, dropout=dropout), **changes,
    )  # fmt: skip
    trainer.seen = []
    torch.rand(trainer.args.process_index + 1)  # processes whose random states have moved apart
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def evaluated(folder, number, batch_size):
    """Metrics of some rows, with generation, and how many predictions there were."""
    trainer = make_trainer(
        folder, kind=PessTrainer, number=int(number), per_device_eval_batch_size=int(batch_size),
        predict_with_generate=True, model=tiny_bart(seed=3, init_std=0.7),
    )  # fmt: skip
    output = trainer.predict(trainer.eval_dataset)
    timing = ("runtime", "per_second", "preparation_time")
    metrics = {name: value for name, value in output.metrics.items() if not name.endswith(timing)}
    return metrics | {"predictions": len(output.predictions)}


def generator_measured(folder, world):
    """Evaluation loss, gradient norm and all figures of a generator over nine examples, which no batch divides."""
    model, tokenizer = tiny_support_model()
    source = PersonaSourceArguments(persona_source="reference")
    examples = load_examples(["sample"], "test", 2, source).select(range(9))
    args = Seq2SeqTrainingArguments(
        output_dir=str(folder), per_device_eval_batch_size=2, per_device_train_batch_size=8 // world, max_steps=1,
        learning_rate=0.0, logging_steps=1, max_grad_norm=0.0, remove_unused_columns=False, use_cpu=True,
        disable_tqdm=True, report_to="none", save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    collator = collator_of(model, tokenizer, use_persona=True, with_ids=True)
    trainer = PessGeneratorTrainer(
        model, args, data_collator=collator, train_dataset=examples.select(range(8)), eval_dataset=examples,
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    (log,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    scores, replies = measure_generator(
        trainer.model, collator, examples, batch_size=2, disable_tqdm=True, accelerator=trainer.accelerator,
        max_new_tokens=6,
    )  # fmt: skip
    loss = trainer.evaluate()["eval_loss"]
    texts = {"replies": [reply.text for reply in replies]}
    return {"eval_loss": loss, "train_loss": log["loss"], "grad_norm": log["grad_norm"], **scores, **texts}


class PoisonedBart(PessExtractor):
    """Its encoder writes NaN for the row that says Hello 5."""

    def _run_encoder(self, input_ids, attention_mask):
        five = byte_level_tokenizer()("5", add_special_tokens=False)["input_ids"][-1]
        encoded = super()._run_encoder(input_ids, attention_mask)
        return encoded.masked_fill(input_ids.eq(five).any(dim=1)[:, None, None], float("nan"))


def poisoned_message(folder, kind, world=1, **changes):
    """The error of a run with one bad row, or with a gradient that is not finite on the last process alone."""
    model = PoisonedBart(tiny_bart().config) if kind == "row" else tiny_bart()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    settings = {"per_device_train_batch_size": 4 // world, "gradient_accumulation_steps": 2, "learning_rate": 0.1}
    trainer = make_trainer(folder, kind=ScriptedTrainer, model=model, max_steps=3, **(settings | changes))
    if kind == "gradient" and trainer.args.process_index == world - 1:
        model.model.encoder.layers[0].fc1.weight.register_hook(lambda gradient: gradient * float("inf"))
    try:
        trainer.train()
    except PessError as error:
        same = all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
        return {"error": str(error), "step": trainer.state.global_step, "weights are as before": same}
    return {"error": None}
