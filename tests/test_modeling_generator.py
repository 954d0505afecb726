import doctest

import pytest
import torch
from safetensors import safe_open
from tiny_generator import (
    BACKBONES,
    START,
    STRATEGY_IDS,
    VOCAB,
    row_of,
    tiny_backbone,
    tiny_config,
    tiny_generator,
    tiny_inputs,
    tiny_tokenizer,
)
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from pess_hf import configuration_generator, guided_decoding, modeling_generator, persona_fusion, strategies
from pess_hf.configuration_generator import PAL_GUIDANCE, PessGeneratorConfig
from pess_hf.modeling_generator import PessGenerator, register
from pess_hf.strategies import STRATEGIES, add_strategy_tokens, strategy_index

KINDS = sorted(BACKBONES)
LABELS = torch.tensor([[5, 13, 14, 2, -100], [9, 15, 2, -100, -100], [4, 16, 17, 18, 2]])


def same_weights(first, second):
    own, other = first.state_dict(), second.state_dict()
    return own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


class TestConfig:
    def test_defaults_are_pals(self):
        config = PessGeneratorConfig()
        assert config.backbone.model_type == "blenderbot-small"
        assert tuple(config.strategies) == STRATEGIES
        assert tuple(config.guidance_strengths) == PAL_GUIDANCE == (0, 0.75, 0, 0, 0.75, 0.75, 0.75, 0.375)
        assert config.strategy_guidance == 0.075

    def test_round_trip(self, tmp_path):
        config = PessGeneratorConfig(backbone=tiny_config("bart"), guidance_strengths=[1] * 8, learn_guidance=True)
        config.save_pretrained(tmp_path)
        again = PessGeneratorConfig.from_pretrained(tmp_path)
        assert again.to_dict() == config.to_dict()
        assert type(again.backbone) is type(config.backbone)
        assert again.guidance_strengths == [1.0] * 8

    def test_backbone_attributes_read_through(self):
        config = PessGeneratorConfig(backbone=tiny_config("bart"))
        config.pad_token_id = 3
        assert (config.vocab_size, config.hidden_size, config.decoder_start_token_id) == (VOCAB, 16, START)
        assert config.backbone.pad_token_id == 3

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"guidance_strengths": [0.5] * 7}, "guidance_strengths"),
            ({"guidance_strengths": [-1] * 8}, "guidance_strengths"),
            ({"guidance_strengths": [True] * 8}, "guidance_strengths"),
            ({"strategy_guidance": float("nan")}, "strategy_guidance"),
            ({"strategies": ["[Question]"] * 8}, "strategies"),
            ({"strategy_token_ids": [1, 2]}, "strategy_token_ids"),
            ({"strategy_token_ids": [1] * 8}, "strategy_token_ids"),
            ({"backbone": {"d_model": 16}}, "model_type"),
            ({"backbone": {"model_type": "gpt2"}}, "encoder-decoder"),
        ],
    )
    def test_bad_values_are_named(self, settings, named):
        with pytest.raises(ValueError, match=named):
            PessGeneratorConfig(**settings)


class TestStrategyTokens:
    def test_added_once_and_skipped_in_text(self):
        tokenizer = tiny_tokenizer()
        size = len(tokenizer)
        ids = add_strategy_tokens(tokenizer)
        assert ids == list(range(size, size + 8)) == add_strategy_tokens(tokenizer)
        encoded = tokenizer("[Self-disclosure] i feel sad", add_special_tokens=False).input_ids
        assert encoded[0] == ids[3]
        assert tokenizer.decode(encoded, skip_special_tokens=True).strip() == "i feel sad"

    def test_survive_saving(self, tmp_path):
        tokenizer = tiny_tokenizer()
        ids = add_strategy_tokens(tokenizer)
        tokenizer.save_pretrained(tmp_path)
        again = type(tokenizer).from_pretrained(tmp_path)
        assert again.convert_tokens_to_ids(list(STRATEGIES)) == ids
        assert again.decode([ids[0]], skip_special_tokens=True) == ""

    @pytest.mark.parametrize("name", ["Self-disclosure", "[Self-disclosure]", "self-disclosure"])
    def test_index(self, name):
        assert strategy_index(name) == 3

    def test_unknown_name_lists_the_eight(self):
        with pytest.raises(ValueError, match="Unknown strategy 'Sing'") as caught:
            strategy_index("Sing")
        assert all(token[1:-1] in str(caught.value) for token in STRATEGIES)


@pytest.mark.parametrize("kind", KINDS)
class TestBackbone:
    def test_warm_start_from_a_folder(self, kind, tmp_path):
        backbone = tiny_backbone(kind)
        backbone.save_pretrained(tmp_path)
        tokenizer = tiny_tokenizer()
        ids = add_strategy_tokens(tokenizer)
        rows = backbone.config.vocab_size
        model = PessGenerator.from_backbone(tmp_path, tokenizer=tokenizer, learn_guidance=True)
        assert model.config.strategy_token_ids == ids and model.config.learn_guidance
        assert model.config.vocab_size == rows >= len(tokenizer)
        assert same_weights(model.backbone, backbone)
        model.save_pretrained(tmp_path / "saved")
        assert str(tmp_path) not in (tmp_path / "saved" / "config.json").read_text()

    def test_growing_the_embedding_is_logged(self, kind, caplog):
        backbone = tiny_backbone(kind, vocab_size=20)
        old = backbone.get_input_embeddings().weight.clone()
        tokenizer = tiny_tokenizer()
        add_strategy_tokens(tokenizer)
        model = PessGenerator.from_backbone(backbone, tokenizer=tokenizer)
        assert "grows from 20 to 29 rows" in caplog.text
        assert model.config.vocab_size == model.config.backbone.vocab_size == len(tokenizer) == 29
        assert torch.equal(model.get_input_embeddings().weight[:20], old)
        inputs = tiny_inputs()
        inputs["input_ids"] = inputs["input_ids"].clamp(max=28)
        inputs["persona_input_ids"] = inputs["persona_input_ids"].clamp(max=28)
        assert model(**inputs, labels=LABELS).logits.shape == (3, 5, 29)

    def test_missing_strategy_tokens(self, kind):
        with pytest.raises(ValueError, match="add_strategy_tokens"):
            PessGenerator.from_backbone(tiny_backbone(kind), tokenizer=tiny_tokenizer())

    def test_plain_fusion_gives_the_backbones_logits(self, kind):
        backbone = tiny_backbone(kind, init_std=0.5)
        model = PessGenerator.from_backbone(backbone)
        model.fusion.mix_logits.data = torch.tensor([200.0, 0.0, 0.0])
        inputs = tiny_inputs()
        ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        labels = LABELS.clamp(min=0)
        expected = backbone(**ids, decoder_input_ids=labels).logits
        assert torch.equal(model(**inputs, decoder_input_ids=labels).logits, expected)
        assert torch.equal(model(**ids, decoder_input_ids=labels).logits, expected)
        model.fusion.mix_logits.data.zero_()
        changed = model(**inputs, decoder_input_ids=labels).logits
        assert not torch.allclose(changed[:2], expected[:2], atol=1e-3)
        assert torch.equal(changed[2], expected[2])

    def test_round_trip_bit_for_bit(self, kind, tmp_path):
        model = PessGenerator.from_backbone(tiny_backbone(kind), strategy_token_ids=STRATEGY_IDS, learn_guidance=True)
        for parameter in (*model.fusion.parameters(), *model.guidance.parameters()):
            torch.nn.init.normal_(parameter)
        model.resize_token_embeddings(VOCAB + 3)
        model.save_pretrained(tmp_path)
        with safe_open(tmp_path / "model.safetensors", "pt") as file:
            assert sum(list(file.get_slice(key).get_shape()) == [VOCAB + 3, 16] for key in file.keys()) == 1  # noqa: SIM118
        again, notes = PessGenerator.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(notes[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert same_weights(model, again)
        assert again.get_input_embeddings().weight is again.get_output_embeddings().weight
        inputs = tiny_inputs()
        assert torch.equal(model(**inputs, labels=LABELS).logits, again(**inputs, labels=LABELS).logits)

    def test_gradient_checkpointing(self, kind):
        model = tiny_generator(kind, tied=True).train()
        plain = gradients(model)
        model.gradient_checkpointing_enable()
        assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
        torch.testing.assert_close(gradients(model), plain)

    def test_padding_and_batch_do_not_matter(self, kind):
        model = tiny_generator(kind)
        inputs = tiny_inputs()
        together = model(**inputs, labels=LABELS.clamp(min=0)).logits
        for row in range(3):
            alone = model(**row_of(inputs, row), labels=LABELS[row : row + 1].clamp(min=0)).logits
            torch.testing.assert_close(together[row], alone[0], atol=1e-4, rtol=0)


def gradients(model, **extra):
    model.zero_grad()
    model(**tiny_inputs(), labels=LABELS, **extra).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_auto_classes(tmp_path):
    register()
    register()
    model = tiny_generator()
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), PessGeneratorConfig)
    for auto in (AutoModel, AutoModelForSeq2SeqLM):
        assert same_weights(auto.from_pretrained(tmp_path), model)


def test_every_buffer_is_saved():
    model = tiny_generator()
    assert {name for name, _ in model.named_buffers()} <= model.state_dict().keys()


def test_attention_implementation_reaches_the_backbone(tmp_path):
    tiny_backbone("bart").save_pretrained(tmp_path)
    model = PessGenerator.from_backbone(tmp_path, attn_implementation="eager")
    assert model.config._attn_implementation == model.backbone.config._attn_implementation == "eager"
    outputs = model(**tiny_inputs(), labels=LABELS, output_attentions=True)
    assert outputs.cross_attentions[0].shape == (3, 2, 5, 9)


def test_loss_is_the_mean_or_the_share_of_the_step():
    model = tiny_generator()
    outputs = model(**tiny_inputs(), labels=LABELS)
    expected = functional.cross_entropy(outputs.logits.flatten(0, 1), LABELS.flatten())
    torch.testing.assert_close(outputs.loss, expected)
    share = model(**tiny_inputs(), labels=LABELS, num_items_in_batch=torch.tensor(44)).loss
    torch.testing.assert_close(share, expected * 12 / 44)
    assert model(**tiny_inputs(), labels=torch.full((3, 5), -100)).loss == 0


def test_decoder_input_ids_are_the_labels_behind_the_start_token():
    model = tiny_generator()
    assert model.prepare_decoder_input_ids_from_labels(LABELS).tolist() == [
        [START, 5, 13, 14, 2],
        [START, 9, 15, 2, 0],
        [START, 4, 16, 17, 18],
    ]


@pytest.mark.parametrize("learn_guidance", [False, True])
def test_gradient_norm_does_not_depend_on_accumulation(tmp_path, learn_guidance):
    inputs = tiny_inputs(rows=4)
    labels = torch.cat([LABELS, torch.tensor([[6, 2, -100, -100, -100]])])
    rows = [{"labels": labels[i], **{name: inputs[name][i] for name in inputs}} for i in range(4)]
    norms = []
    for steps in (1, 2, 4):
        arguments = Seq2SeqTrainingArguments(
            output_dir=str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=4 // steps,
            gradient_accumulation_steps=steps,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Seq2SeqTrainer(tiny_generator(learn_guidance=learn_guidance), arguments, train_dataset=rows)
        trainer.train()
        norms.append(next(entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry))
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-4)


def test_a_backbone_without_the_logits_bias_is_refused():
    config = PessGeneratorConfig(backbone={"model_type": "t5", "d_model": 16, "num_layers": 1, "d_ff": 16, "d_kv": 8})
    with pytest.raises(ValueError, match="BlenderbotSmall or BART, found t5"):
        PessGenerator(config)


def test_dropout_does_not_guide_rows_without_persona():
    model = tiny_generator(learn_guidance=True).train()
    model.backbone.base_model.decoder.dropout = 0.5
    labels = LABELS.clone()
    labels[:2] = -100
    model(**tiny_inputs(), labels=labels).loss.backward()
    assert not model.guidance.weight.grad.any()


def test_the_encoder_never_reads_an_empty_row():
    model, masks = tiny_generator(), []
    model.get_encoder().register_forward_pre_hook(
        lambda module, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    model(**tiny_inputs(), labels=LABELS)
    assert len(masks) == 2 and all(mask.any(dim=1).all() for mask in masks)


@pytest.mark.parametrize("persona", ["tensor", "empty rows", "none"])
@pytest.mark.parametrize("learn_guidance", [False, True])
def test_every_weight_gets_a_finite_gradient_in_training(persona, learn_guidance):
    model = tiny_generator(tied=True, learn_guidance=learn_guidance).train()
    inputs = tiny_inputs()
    if persona == "empty rows":
        inputs["persona_attention_mask"].zero_()
    elif persona == "none":
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    model(**inputs, labels=LABELS).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_learned_guidance_trains_on_the_combined_logits():
    model = tiny_generator(learn_guidance=True)
    fixed = tiny_generator(strategy_token_ids=STRATEGY_IDS)
    inputs = tiny_inputs()
    labels = LABELS.clone()
    labels[2] = -100
    outputs = model(**inputs, labels=labels)
    with_persona = fixed(**inputs, labels=labels).logits
    without = fixed(inputs["input_ids"], inputs["attention_mask"], labels=labels).logits
    strengths = torch.full((3, 5), 0.075)
    strengths[:, 1:] = torch.tensor([0.75, 0.75, 0.0])[:, None]
    expected = (1 + strengths[..., None]) * with_persona - strengths[..., None] * without
    torch.testing.assert_close(outputs.logits, expected, atol=1e-4, rtol=1e-4)

    outputs.loss.backward()
    touched = model.guidance.weight.grad.nonzero().flatten().tolist()
    assert touched == [1, 5]
    step = 1e-2
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            model.guidance.weight[1] += sign * step
            losses.append(model(**inputs, labels=labels).loss.item())
            model.guidance.weight[1] -= sign * step
    assert model.guidance.weight.grad[1].item() == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-2)


def test_encoding_can_be_shared():
    model = tiny_generator()
    inputs = tiny_inputs()
    mask = inputs["attention_mask"]
    expected = model(**inputs, labels=LABELS).logits
    encoded = model.encode(**inputs)
    assert torch.equal(model(attention_mask=mask, encoder_outputs=encoded, labels=LABELS).logits, expected)
    plain = model.get_encoder()(inputs["input_ids"], attention_mask=mask)
    for outputs in (plain, plain.to_tuple()):
        again = model(**{**inputs, "input_ids": None}, encoder_outputs=outputs, labels=LABELS)
        torch.testing.assert_close(again.logits, expected)


@pytest.mark.parametrize("name", ["input_ids", "persona_input_ids"])
def test_too_many_tokens_are_refused(name):
    inputs = {**tiny_inputs(), name: torch.full((3, 65), 13)}
    with pytest.raises(ValueError, match="expected at most 64 tokens, found 65"):
        tiny_generator().encode(**inputs)


def test_docstring_examples(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    tiny_backbone("blenderbot-small").save_pretrained(tmp_path)
    add_strategy_tokens(tokenizer)
    shared = {
        "torch": torch,
        "folder": str(tmp_path),
        "tokenizer": tokenizer,
        "model": PessGenerator.from_backbone(str(tmp_path), tokenizer=tokenizer),
        "context": tokenizer(["i feel sad"], return_tensors="pt"),
        "persona": tokenizer(["i have two dogs"], return_tensors="pt"),
        "add_strategy_tokens": add_strategy_tokens,
        "AutoTokenizer": AutoTokenizer,
    }
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for module in (strategies, configuration_generator, persona_fusion, guided_decoding, modeling_generator):
        for example in doctest.DocTestFinder().find(module, globs={**vars(module), **shared}):
            runner.run(example)
    assert runner.tries > 30 and runner.failures == 0


def test_tuple_output():
    model = tiny_generator()
    loss, logits = model(**tiny_inputs(), labels=LABELS, return_dict=False)[:2]
    assert loss.ndim == 0 and logits.shape == (3, 5, VOCAB)
