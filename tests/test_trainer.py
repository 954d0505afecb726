"""The trainer: normalisation, presence of the terms, logs, evaluation, resuming."""

import inspect
import math

import pytest
import torch
from tiny_extractor import LetterEncoder, ScriptedTrainer, make_trainer, rows, tiny_bart, tiny_encoder_decoder, tiny_t5
from tiny_tokenizers import byte_level_tokenizer, unigram_tokenizer
from transformers import BartForConditionalGeneration, Trainer

from pess_hf import PersonaMatcher, PessError
from pess_hf.trainer import PessTrainer

TERMS = ("nll", "completeness", "consistency")


def trained_log(trainer):
    trainer.train()
    return next(entry for entry in trainer.state.log_history if "loss" in entry)


def test_compute_loss_has_the_signature_of_the_trainer():
    ours = inspect.signature(PessTrainer.compute_loss).parameters
    theirs = inspect.signature(Trainer.compute_loss).parameters
    assert list(ours) == list(theirs)
    assert [p.default for p in ours.values()] == [p.default for p in theirs.values()]


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.7, 0.3)])
def test_accumulation_changes_neither_gradient_nor_logged_loss(tmp_path, weights):
    logs = {}
    for steps in (1, 2, 4):
        trainer = make_trainer(
            tmp_path,
            per_device_train_batch_size=8 // steps,
            gradient_accumulation_steps=steps,
            completeness_weight=weights[0],
            consistency_weight=weights[1],
        )
        logs[steps] = trained_log(trainer)
    for steps in (2, 4):
        for name in ("grad_norm", "loss", *TERMS, "rollout_consistent_rate"):
            assert logs[steps][name] == pytest.approx(logs[1][name], rel=1e-5), name
    assert logs[1]["grad_norm"] > 0


def test_in_batch_negatives_come_from_the_micro_batch_and_change_the_consistency_term_alone(tmp_path):
    own, lent = (trained_log(make_trainer(tmp_path, in_batch_negatives=wanted)) for wanted in (False, True))
    assert lent["consistency"] > own["consistency"] * 1.1, "more sentences stand against each"
    assert [lent[name] for name in ("nll", "completeness")] == [own[name] for name in ("nll", "completeness")]
    cuts = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    alone = trained_log(make_trainer(tmp_path, in_batch_negatives=True, **cuts))
    assert alone["consistency"] == pytest.approx(own["consistency"], rel=1e-5), "one dialogue has no others"


def gradient(tmp_path, **weights):
    trainer = make_trainer(tmp_path, **weights)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.is_in_train, trainer.current_gradient_accumulation_steps = True, 1
    trainer.state.max_steps = 1
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch, num_items_in_batch=batch["labels"].ne(-100).sum()).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])


def test_every_term_is_in_the_gradient(tmp_path):
    full = gradient(tmp_path)
    without_completeness = gradient(tmp_path, completeness_weight=0.0)
    without_consistency = gradient(tmp_path, consistency_weight=0.0)
    plain = gradient(tmp_path, completeness_weight=0.0, consistency_weight=0.0)
    assert (full - without_completeness).norm() > 1e-3 * full.norm()
    assert (full - without_consistency).norm() > 1e-3 * full.norm()
    assert plain.norm() > 0
    # Linear in the weights: the two differences are what the plain gradient lacks.
    assert torch.allclose(full - plain, 2 * full - without_completeness - without_consistency, atol=1e-5)


def test_logged_terms_add_up_to_the_logged_loss(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=5, learning_rate=1e-2, logging_steps=2, gradient_accumulation_steps=2,
                           per_device_train_batch_size=3, pess_start=0.5)  # fmt: skip
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 2
    for log in logs:
        total = log["nll"] + 0.7 * log["completeness"] + 0.3 * log["consistency"]
        assert log["loss"] == pytest.approx(total, rel=1e-5)
    assert logs[0]["completeness"] == 0
    assert all(logs[1][name] > 0 for name in (*TERMS, "rollout_consistent_rate"))


def test_rollouts_of_a_peft_model_are_greedy_and_short(tmp_path):
    peft = pytest.importorskip("peft")
    base = tiny_bart()
    base.generation_config.update(num_beams=3, min_length=30, max_length=40)
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q_proj", "v_proj"])
    trainer = make_trainer(
        tmp_path, model=peft.get_peft_model(base, config), kind=PessTrainer, rollout_max_new_tokens=6
    )
    rollouts = trainer._roll_out([next(iter(trainer.get_train_dataloader()))])[0]
    assert max(len(rollout.token_ids) for rollout in rollouts) <= 7  # the start token and six more
    assert base.generation_config.num_beams == 3


def test_evaluation_losses_before_and_after_the_start_compare(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=4, pess_start=0.5, eval_strategy="steps", eval_steps=1)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(losses) == 4
    assert losses == pytest.approx([losses[0]] * 4)  # the learning rate is 0


def test_predictions_decode_whether_concatenated_or_in_batches(tmp_path):
    changes = {"predict_with_generate": True, "kind": PessTrainer, "per_device_eval_batch_size": 3}
    whole = make_trainer(tmp_path, **changes)
    parts = make_trainer(tmp_path, eval_do_concat_batches=False, **changes)
    expected = whole.predict(whole.eval_dataset)
    output = parts.predict(parts.eval_dataset)
    assert parts.decode_personas(output.predictions) == whole.decode_personas(expected.predictions)
    assert output.metrics["test_persona_f1"] == expected.metrics["test_persona_f1"]


def test_personas_without_references_cost_no_loss_and_no_matching(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, predict_with_generate=True, kind=PessTrainer, per_device_eval_batch_size=3)
    expected = trainer.decode_personas(trainer.predict(trainer.eval_dataset).predictions)
    dialogues = trainer.eval_dataset["utterances"]
    with monkeypatch.context() as patch:
        for name in ("compute_loss", "_matcher"):
            patch.setattr(trainer, name, None)
        patch.setattr(trainer, "compute_metrics", lambda _: pytest.fail("there is nothing to compare with"))
        assert trainer.write_personas(dialogues) == expected and any(expected)
        assert trainer._matcher is None
        assert trainer.write_personas([]) == []
    assert trainer.evaluate()["eval_nll"] > 0  # the next evaluation measures again


def test_without_generation_there_are_no_personas_to_write(tmp_path):
    for settings in ({}, {"predict_with_generate": True, "prediction_loss_only": True}):
        with pytest.raises(PessError, match="write_personas: expected predict_with_generate=True"):
            make_trainer(tmp_path, **settings).write_personas([["I sing."]])


def test_rows_that_a_dropped_last_batch_leaves_out_are_not_measured(tmp_path):
    trainer = make_trainer(tmp_path, predict_with_generate=True, kind=PessTrainer, per_device_eval_batch_size=3,
                           dataloader_drop_last=True)  # fmt: skip
    assert len(trainer.predict(trainer.eval_dataset).predictions) == 6


def test_rollouts_of_other_batches_are_made_anew(tmp_path, caplog):
    trainer = make_trainer(tmp_path, kind=PessTrainer)
    batch = next(iter(trainer.get_train_dataloader()))
    rollouts = trainer._roll_out([batch], [[torch.tensor([2])] * 3])
    assert len(rollouts[0]) == 8


def test_more_source_tokens_than_positions_are_refused(tmp_path):
    with pytest.raises(PessError, match="max_source_length: expected at most 32, the positions of the model"):
        make_trainer(tmp_path, model=tiny_bart(max_position_embeddings=32))


@pytest.mark.parametrize("batch_size", [8, 3])
def test_evaluation_logs_the_same_terms_whatever_the_batch_size(tmp_path, batch_size):
    metrics = make_trainer(tmp_path, per_device_eval_batch_size=batch_size).evaluate()
    whole = make_trainer(tmp_path).evaluate()
    for name in (*TERMS, "loss", "rollout_consistent_rate"):
        assert metrics[f"eval_{name}"] == pytest.approx(whole[f"eval_{name}"], rel=1e-5)
    total = metrics["eval_nll"] + 0.7 * metrics["eval_completeness"] + 0.3 * metrics["eval_consistency"]
    assert metrics["eval_loss"] == pytest.approx(total, rel=1e-6)
    assert metrics["eval_consistency"] > 0


def test_persona_scores_are_those_of_the_texts_and_the_full_references(tmp_path):
    trainer = make_trainer(tmp_path, predict_with_generate=True, kind=PessTrainer)
    trainer.data_collator.max_target_length = 12  # shorter than most references, which the scores must not notice
    metrics = trainer.evaluate()
    output = trainer.predict(trainer.eval_dataset)
    personas = trainer.decode_personas(output.predictions)
    matches = trainer.matcher.match(personas, list(trainer.eval_dataset["persona"]))
    assert [len(match.similarity) for match in matches] == [
        len(persona) for persona in trainer.eval_dataset["persona"]
    ]
    recall = sum(match.recall for match in matches) / len(matches)
    assert metrics["eval_persona_recall"] == pytest.approx(recall)
    assert {"eval_persona_precision", "eval_persona_f1"} <= set(metrics)
    assert metrics["eval_persona_f1"] == output.metrics["test_persona_f1"]


class CountingTrainer(ScriptedTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.windows = []

    def _roll_out(self, batches, token_ids=None):
        self.windows.append((self.state.global_step, len(batches)))
        return super()._roll_out(batches, token_ids)


def test_rollouts_come_in_windows_after_the_start(tmp_path):
    trainer = make_trainer(tmp_path, kind=CountingTrainer, max_steps=12, per_device_train_batch_size=1,
                           rollout_steps=4, pess_start=0.25, number=20)  # fmt: skip
    trainer.train()
    assert trainer.windows == [(3, 4), (7, 4), (11, 4)]
    # The sentence encoder is asked once a window.
    assert trainer.matcher.encoder.calls == 3


def test_the_sentence_encoder_is_asked_once_a_window(tmp_path):
    trainer = make_trainer(tmp_path, kind=PessTrainer, max_steps=8, per_device_train_batch_size=1, rollout_steps=4)
    trainer._matcher = PersonaMatcher(LetterEncoder(), 0.9, cache_size=0)  # every sentence has to be embedded
    trainer.train()
    assert trainer.matcher.encoder.calls == 2


def test_a_window_ends_with_the_epoch(tmp_path):
    trainer = make_trainer(tmp_path, kind=CountingTrainer, max_steps=-1, num_train_epochs=2,
                           per_device_train_batch_size=2, rollout_steps=3)  # fmt: skip
    trainer.train()
    assert [size for _, size in trainer.windows] == [3, 1, 3, 1]


def test_the_plain_baseline_needs_no_sentence_encoder(tmp_path):
    trainer = make_trainer(tmp_path, completeness_weight=0.0, consistency_weight=0.0, similarity_model="no/such-model")
    trainer._matcher = None
    log = trained_log(trainer)
    assert log["completeness"] == log["consistency"] == 0
    assert log["loss"] == pytest.approx(log["nll"])
    assert trainer._matcher is None


def test_training_mode_is_restored_after_a_rollout(tmp_path):
    trainer = make_trainer(tmp_path, kind=PessTrainer)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    trainer.model.model.encoder.eval()  # a mode of its own, such as a frozen encoder's
    before = [module.training for module in trainer.model.modules()]
    trainer._roll_out([batch])
    assert [module.training for module in trainer.model.modules()] == before
    assert True in before and False in before


def test_rollouts_with_gradient_checkpointing_are_those_of_eval_mode(tmp_path):
    trainer = make_trainer(tmp_path, kind=PessTrainer, model=tiny_bart(dropout=0.3))
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    expected = trainer._roll_out([batch])[0]
    trainer.model.gradient_checkpointing_enable()
    trainer.model.train()
    again = trainer._roll_out([batch])[0]
    assert [r.token_ids.tolist() for r in again] == [r.token_ids.tolist() for r in expected]


@pytest.mark.parametrize("rollout_steps", [1, 4])
@pytest.mark.parametrize("pess_start", [0.0, 0.3])
def test_resuming_gives_the_weights_of_never_stopping(tmp_path, rollout_steps, pess_start):
    common = {"kind": PessTrainer, "max_steps": 9, "learning_rate": 5e-2, "per_device_train_batch_size": 1,
              "rollout_steps": rollout_steps, "pess_start": pess_start, "gradient_accumulation_steps": 2,
              "lr_scheduler_type": "constant"}  # fmt: skip
    whole = make_trainer(tmp_path / "whole", model=tiny_bart(dropout=0.1), **common)
    whole.train()
    first = make_trainer(tmp_path / "cut", model=tiny_bart(dropout=0.1), save_strategy="steps", save_steps=5,
                         **(common | {"max_steps": 9}))  # fmt: skip
    first.train()
    second = make_trainer(tmp_path / "cut", model=tiny_bart(seed=5, dropout=0.1), **common)
    second.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-5"))
    for name, weight in whole.model.state_dict().items():
        assert torch.allclose(weight, second.model.state_dict()[name], atol=1e-6), name


def test_a_finished_run_is_not_trained_further(tmp_path):
    """Upstream takes one more step where the last checkpoint lies within an epoch."""
    common = {"kind": PessTrainer, "max_steps": 3, "learning_rate": 5e-2, "per_device_train_batch_size": 1}
    first = make_trainer(tmp_path, save_strategy="steps", save_steps=3, **common)
    first.train()
    again = make_trainer(tmp_path, model=tiny_bart(seed=5), **common)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert again.state.global_step == 3
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


def test_pending_rollouts_matter_for_resuming(tmp_path):
    """Without them a resumed run would generate anew from other weights: the file is there and is read."""
    trainer = make_trainer(tmp_path, kind=PessTrainer, max_steps=3, per_device_train_batch_size=1, rollout_steps=8,
                           save_strategy="steps", save_steps=2)  # fmt: skip
    trainer.train()
    again = make_trainer(tmp_path, kind=PessTrainer, max_steps=3, per_device_train_batch_size=1, rollout_steps=8)
    again.create_optimizer_and_scheduler(3)
    again._load_optimizer_and_scheduler(str(tmp_path / "checkpoint-2"))
    assert len(again._restored_rollouts) == 6


@pytest.mark.parametrize(
    ("model", "tokenizer"),
    [(tiny_t5, unigram_tokenizer), (tiny_encoder_decoder, byte_level_tokenizer), (tiny_bart, byte_level_tokenizer)],
)
def test_every_backbone_trains_with_all_terms(tmp_path, model, tokenizer):
    trainer = make_trainer(tmp_path, model=model(), tokenizer=tokenizer(), max_steps=3, learning_rate=1e-2)
    log = trained_log(trainer)
    assert all(math.isfinite(log[name]) and log[name] > 0 for name in (*TERMS, "grad_norm"))


def test_a_peft_model_trains_through_its_adapter(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=2, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(tiny_bart(), config)
    trainer = make_trainer(tmp_path, model=model, max_steps=2, learning_rate=1e-2)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    assert trained_log(trainer)["consistency"] > 0
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters() if name in before)


def test_bf16_autocast_keeps_the_terms_finite(tmp_path):
    log = trained_log(make_trainer(tmp_path, bf16=True))
    exact = trained_log(make_trainer(tmp_path))
    for name in TERMS:
        assert log[name] == pytest.approx(exact[name], rel=0.05)  # bfloat16 has eight bits of mantissa


def test_a_frozen_encoder_is_read_from_the_cache_with_the_same_loss(tmp_path):
    def log(cache_rows):
        model = tiny_encoder_decoder().freeze_encoder(cache_rows=cache_rows)
        return trained_log(make_trainer(tmp_path, model=model, max_steps=2)), model

    (plain, _), (cached, model) = log(0), log(16)
    assert cached["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert model._encoder_cache.misses == 8  # two epochs over eight rows, and rollouts


def test_label_smoothing_raises_the_likelihood_terms(tmp_path):
    smooth = trained_log(make_trainer(tmp_path, label_smoothing_factor=0.2))
    assert smooth["nll"] != pytest.approx(trained_log(make_trainer(tmp_path))["nll"])


def test_an_empty_persona_trains(tmp_path):
    data = rows(4).map(lambda row, n: {"persona": row["persona"] if n else []}, with_indices=True)
    trainer = make_trainer(tmp_path, kind=PessTrainer, train_rows=data, predict_with_generate=True)
    assert math.isfinite(trained_log(trainer)["loss"])
    assert math.isfinite(trainer.evaluate()["eval_persona_f1"])


def test_a_plain_bart_is_refused_in_words(tmp_path):
    with pytest.raises(PessError, match="expected a persona extractor, found BartForConditionalGeneration"):
        make_trainer(tmp_path, model=BartForConditionalGeneration(tiny_bart().config))


def test_a_missing_tokenizer_is_refused_in_words(tmp_path):
    args = make_trainer(tmp_path).args
    with pytest.raises(PessError, match="expected the tokenizer as processing_class="):
        PessTrainer(tiny_bart(), args, train_dataset=rows())


def test_the_default_collator_has_the_models_separators(tmp_path):
    model = tiny_bart().set_separators(persona=" ; ")
    trainer = PessTrainer(model, make_trainer(tmp_path).args, matcher=PersonaMatcher(LetterEncoder()),
                          train_dataset=rows(), processing_class=byte_level_tokenizer())  # fmt: skip
    assert trainer.data_collator.persona_separator == " ; "


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("completeness_weight", -0.1),
        ("consistency_weight", -1),
        ("consistency_temperature", 0),
        ("similarity_threshold", 1.2),
        ("similarity_threshold", -1.5),
        ("pess_start", 1.1),
        ("rollout_steps", 0),
        ("rollout_max_new_tokens", 0),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(tmp_path, name, value):
    with pytest.raises(PessError, match=f"^{name}: expected a number .*, found {value}") as caught:
        make_trainer(tmp_path, **{name: value})
    assert "\n" not in str(caught.value)
