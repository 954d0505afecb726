"""Numbers that are not finite stop training by name; overflow under a GradScaler does not; bf16 autocast is sound."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from runs_to_compare import PoisonedBart, poisoned_message
from tiny_extractor import ScriptedTrainer, make_trainer, rows, tiny_bart
from tiny_support import tiny_support_model

from pess_hf import PessError
from pess_hf.data.support_collator import SupportCollator
from pess_hf.finite import FiniteWatch, check_finite
from pess_hf.generator_args import PersonaSourceArguments, load_examples
from pess_hf.generator_trainer import PessGeneratorTrainer
from pess_hf.terms import TERMS, pess_terms


def test_a_bad_row_is_named_with_its_terms_and_step(tmp_path):
    stopped = poisoned_message(tmp_path, "row")
    assert stopped["weights are as before"] and stopped["step"] == 0
    assert "\n" not in stopped["error"]
    assert stopped["error"].startswith("step 1: expected finite numbers, found nan or infinity in nll of row-5; ")
    assert "completeness of row-5; consistency of row-5. The weights" in stopped["error"]


def test_a_bad_gradient_names_the_rows_of_the_step(tmp_path):
    stopped = poisoned_message(tmp_path, "gradient")
    assert stopped["weights are as before"]
    assert "in the gradient norm of row-" in stopped["error"]
    assert sum(f"row-{n}" in stopped["error"] for n in range(8)) == 8


def test_nothing_is_saved_over_the_last_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=3, learning_rate=0.1, per_device_train_batch_size=2, number=8,
                           save_strategy="steps", save_steps=1, save_total_limit=1)  # fmt: skip
    seen = []

    def spoil(gradient):
        seen.append(trainer.state.global_step)
        return gradient * (float("nan") if trainer.state.global_step == 2 else 1.0)

    trainer.model.model.encoder.layers[0].fc1.weight.register_hook(spoil)
    with pytest.raises(PessError, match=r"step 3: .* in the gradient norm"):
        trainer.train()
    assert seen == [0, 1, 2]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        trainer.model.model.decoder.layers[0].fc1.weight[0, 0] = float("inf")
    with pytest.raises(PessError, match="expected finite weights to save"):
        trainer.save_model()
    assert not list(tmp_path.glob("*.safetensors"))


def test_rows_without_a_name_are_counted(tmp_path):
    data = rows(8).remove_columns("dialogue_id")
    trainer = make_trainer(tmp_path, model=PoisonedBart(tiny_bart().config), train_rows=data, kind=ScriptedTrainer)
    with pytest.raises(PessError, match=r"nll of unnamed row \d;"):
        trainer.train()


def test_many_rows_are_named_in_part():
    watch = FiniteWatch(["nll"])
    watch.add(torch.ones(1, 60, dtype=torch.bool), [f"d{n}" for n in range(60)])
    with pytest.raises(PessError, match="d49 and 10 more"):
        check_finite(watch, [], Accelerator(cpu=True), SimpleNamespace(global_step=0))


def test_overflow_under_a_grad_scaler_goes_on(tmp_path):
    """The gradient norm overflows float32 under so large a scale: steps are left out until it is halved enough."""
    trainer = make_trainer(tmp_path, max_steps=10, learning_rate=1e-2, per_device_train_batch_size=2)
    scaler = trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**64)
    before = trainer.model.get_input_embeddings().weight.clone()
    trainer.train()
    assert trainer.state.global_step == 10
    assert 0 < scaler.get_scale() < 2.0**64
    assert not torch.equal(before, trainer.model.get_input_embeddings().weight)
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_a_bad_example_of_the_generator_is_named(tmp_path):
    from transformers import Seq2SeqTrainingArguments

    model, tokenizer = tiny_support_model()
    examples = load_examples(["sample"], "test", 1, PersonaSourceArguments(persona_source="reference")).select([3])
    args = Seq2SeqTrainingArguments(output_dir=str(tmp_path), max_steps=1, remove_unused_columns=False, use_cpu=True,
                                    disable_tqdm=True, report_to="none", dataloader_pin_memory=False)  # fmt: skip
    collator = SupportCollator(tokenizer, max_context_length=64, max_persona_length=32, with_ids=True)
    model.fusion.register_forward_hook(lambda module, inputs, output: output * float("nan"))
    trainer = PessGeneratorTrainer(model, args, data_collator=collator, train_dataset=examples)
    name = f"{examples[0]['dialogue_id']} turn {examples[0]['turn']}"
    with pytest.raises(PessError, match=f"step 1: .* in nll of {name}. "):
        trainer.train()


def captured_terms(tmp_path, **changes):
    """What the model gave to the terms in one step, and the terms."""
    caught = {}

    class Catching(ScriptedTrainer):
        def _decoder_batch(self, inputs, rollouts):
            caught["batch"] = super()._decoder_batch(inputs, rollouts)
            return caught["batch"]

        def _scale(self, model, terms, num_items):
            caught["terms"] = terms
            return super()._scale(model, terms, num_items)

    def remember(module, inputs, output):
        caught["logits"], caught["hidden"] = output.logits, output.decoder_hidden_states

    model = tiny_bart()
    model.register_forward_hook(remember)
    trainer = make_trainer(tmp_path, model=model, kind=Catching, **changes)
    trainer.train()
    return caught


def test_terms_under_bf16_autocast_are_computed_in_float32(tmp_path):
    caught = captured_terms(tmp_path, bf16=True)
    logits, hidden = caught["logits"].bfloat16(), caught["hidden"].bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = pess_terms(logits, hidden, caught["batch"], 8, 0.1)
    outside = pess_terms(logits.float(), hidden.float(), caught["batch"], 8, 0.1)
    for name, term in zip(TERMS, ("nll_sum", "completeness", "consistency"), strict=True):
        ours, exact = getattr(inside, term), getattr(outside, term)
        assert ours.dtype == getattr(caught["terms"], term).dtype == torch.float32, name
        assert torch.equal(ours, exact) and exact > 0, name


def test_gradients_under_bf16_autocast_point_where_float32_points(tmp_path):
    def gradient(**changes):
        trainer = make_trainer(tmp_path, **changes)
        kept = []
        trainer.model.get_input_embeddings().weight.register_hook(lambda gradient: kept.append(gradient.flatten()))
        trainer.train()
        return kept[-1].float()

    for weights in ({"completeness_weight": 0.0}, {}):
        half, full = gradient(bf16=True, **weights), gradient(**weights)
        assert torch.nn.functional.cosine_similarity(half, full, dim=0) > 0.99
