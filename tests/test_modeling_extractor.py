"""The extractors: folders that open as plain models, the shared encoder, the loss, freezing, checkpointing."""

import json
import math

import pytest
import torch
from tiny_extractor import tiny_bart, tiny_encoder_decoder, tiny_t5
from tiny_tokenizers import byte_level_tokenizer
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    EncoderDecoderModel,
    GPT2Config,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5ForConditionalGeneration,
    TrainerCallback,
    default_data_collator,
)

from pess_hf import AutoPessExtractor, PessEncoderDecoderExtractor, PessError, PessExtractor, PessT5Extractor

BACKBONES = {
    "bart": (tiny_bart, PessExtractor, BartForConditionalGeneration),
    "t5": (tiny_t5, PessT5Extractor, T5ForConditionalGeneration),
    "encoder-decoder": (tiny_encoder_decoder, PessEncoderDecoderExtractor, EncoderDecoderModel),
}
KINDS = sorted(BACKBONES)
SOURCE = torch.tensor([[5, 9, 13, 21, 2], [7, 30, 2, 1, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
TARGETS = torch.tensor([[8, 20, 33, 2], [12, 40, 2, 2], [9, 3, 17, 2], [50, 4, 6, 2], [3, 11, 10, 2], [7, 7, 7, 2]])


def tiny(kind, seed=0):
    """A tiny model with weights so large that everything shows in its logits."""
    model = BACKBONES[kind][0](seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model.eval()


def inputs(rows=2):
    return {"input_ids": SOURCE, "attention_mask": MASK, "decoder_input_ids": TARGETS[:rows]}


@torch.no_grad()
def logits(model):
    return model.eval()(**inputs()).logits


def close(ours, theirs):
    return torch.allclose(ours, theirs, atol=1e-6, rtol=1e-5)


class TestFolder:
    @pytest.mark.parametrize("kind", KINDS)
    def test_save_and_load_keep_the_logits(self, tmp_path, kind):
        model = tiny(kind).set_separators(" ; ", " / ")
        model.save_pretrained(tmp_path)
        again, info = BACKBONES[kind][1].from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info.values()), info
        assert close(logits(again), logits(model))
        assert logits(model).std() > 0.1
        assert (again.config.utterance_separator, again.config.persona_separator) == (" ; ", " / ")

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("auto", [False, True])
    def test_the_folder_opens_as_the_plain_model(self, tmp_path, kind, auto):
        model = tiny(kind)
        model.save_pretrained(tmp_path)
        plain_class = BACKBONES[kind][2]
        opener = AutoModelForSeq2SeqLM if auto else plain_class
        plain, info = opener.from_pretrained(tmp_path, output_loading_info=True)
        assert type(plain) is plain_class
        assert not any(info.values()), info
        assert close(logits(plain), logits(model))
        assert plain.state_dict().keys() == model.state_dict().keys()
        assert plain.config.model_type == kind

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_plain_checkpoint_warm_starts(self, tmp_path, kind):
        model = tiny(kind)
        model.save_pretrained(tmp_path / "ours")
        plain = BACKBONES[kind][2].from_pretrained(tmp_path / "ours")
        for name in ("utterance_separator", "persona_separator"):
            delattr(plain.config, name)
        plain.save_pretrained(tmp_path / "plain")
        assert "separator" not in (tmp_path / "plain" / "config.json").read_text()
        ours = AutoPessExtractor.from_pretrained(tmp_path / "plain")
        assert type(ours) is BACKBONES[kind][1]
        assert close(logits(ours), logits(model))
        assert (ours.config.utterance_separator, ours.config.persona_separator) == (" | ", " | ")

    def test_bart_carries_what_converters_read(self, tmp_path):
        tiny("bart").save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        # Read by CTranslate2's BartLoader and by converters after it.
        assert config["normalize_before"] is False
        assert config["normalize_embedding"] is True
        assert config["add_final_layer_norm"] is False
        assert config["static_position_embeddings"] is False
        assert config["extra_pos_embeddings"] == 2
        assert config["model_type"] == "bart"
        assert config["persona_separator"] == " | "

    def test_a_converter_field_of_the_checkpoint_stays(self):
        config = BartConfig(**(tiny_bart().config.to_dict() | {"add_bias_logits": True}))
        assert PessExtractor(config).config.add_bias_logits is True


class TestAuto:
    def test_a_type_without_an_extractor_is_refused_in_one_line(self, tmp_path):
        GPT2Config().save_pretrained(tmp_path)
        with pytest.raises(PessError, match="expected a model of type bart, encoder-decoder, t5, found 'gpt2'") as got:
            AutoPessExtractor.from_pretrained(tmp_path)
        assert str(tmp_path) in str(got.value) and "\n" not in str(got.value)

    def test_a_bert_folder_is_told_about_decoder_layers(self, tmp_path):
        BertConfig().save_pretrained(tmp_path)
        with pytest.raises(PessError, match="decoder_layers"):
            AutoPessExtractor.from_pretrained(tmp_path)

    @pytest.mark.parametrize("config", [{"model_type": "no-such-type"}, {"hidden_size": 3}])
    def test_a_config_that_transformers_does_not_know_is_refused_in_one_line(self, tmp_path, config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(PessError, match="expected a model of type bart, encoder-decoder, t5") as caught:
            AutoPessExtractor.from_pretrained(tmp_path)
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


class TestSharedEncoder:
    @pytest.mark.parametrize("kind", KINDS)
    def test_more_rows_equal_separate_passes_and_the_encoder_runs_once(self, kind):
        model = tiny(kind)
        calls = []
        model.get_encoder().register_forward_hook(lambda *_: calls.append(1))
        with torch.no_grad():
            shared = model(**inputs(6))
            assert len(calls) == 1
            for start in (0, 2, 4):
                block = TARGETS[start : start + 2]
                alone = model(input_ids=SOURCE, attention_mask=MASK, decoder_input_ids=block).logits
                torch.testing.assert_close(shared.logits[start : start + 2], alone, atol=1e-6, rtol=1e-6)
        assert len(shared.encoder_last_hidden_state) == 2

    @pytest.mark.parametrize("kind", KINDS)
    def test_hidden_states_are_those_of_the_plain_model(self, kind):
        model = tiny(kind)
        with torch.no_grad():
            shared = model(**inputs(4)).decoder_hidden_states
            plain = model(**inputs(2), output_hidden_states=True).decoder_hidden_states[-1]
        torch.testing.assert_close(shared[:2], plain, atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize("kind", KINDS)
    def test_encoder_rows_pick_the_dialogue(self, kind):
        model = tiny(kind)
        rows = torch.tensor([1, 0, 1])
        with torch.no_grad():
            shared = model(**inputs(3), encoder_rows=rows).logits
            for row, dialogue in enumerate(rows.tolist()):
                one = {name: value[dialogue : dialogue + 1] for name, value in inputs().items()}
                alone = model(**(one | {"decoder_input_ids": TARGETS[row : row + 1]})).logits
                torch.testing.assert_close(shared[row : row + 1], alone, atol=1e-6, rtol=1e-6)
            swapped = model(**inputs(3), encoder_rows=1 - rows).logits
        assert not torch.allclose(shared, swapped, atol=1e-2)

    def test_without_a_mask_every_source_token_counts(self):
        model = tiny("bart")
        unmasked = {name: value for name, value in inputs(4).items() if name != "attention_mask"}
        with torch.no_grad():
            first = model(**unmasked).logits
            second = model(**(inputs(4) | {"attention_mask": torch.ones_like(SOURCE)})).logits
            masked = model(**inputs(4)).logits
        assert torch.equal(first, second)
        assert not torch.allclose(first, masked, atol=1e-3)

    @pytest.mark.parametrize("kind", KINDS)
    def test_labels_select_the_positions_of_the_logits(self, kind):
        model = tiny(kind)
        labels = TARGETS.clone()
        labels[0, 2:] = labels[3] = -100
        with torch.no_grad():
            every, chosen = model(**inputs(6)).logits, model(**inputs(6), labels=labels).logits
        assert chosen.shape[0] == labels.ne(-100).sum() == 18
        assert torch.allclose(chosen, every[labels.ne(-100)], atol=1e-6)

    @pytest.mark.parametrize("kind", KINDS)
    def test_padding_on_the_right_of_the_decoder_changes_nothing(self, kind):
        model = tiny(kind)
        padded = torch.nn.functional.pad(TARGETS, (0, 3), value=1)
        with torch.no_grad():
            short = model(**inputs(6)).logits
            long = model(**(inputs(6) | {"decoder_input_ids": padded})).logits
        torch.testing.assert_close(long[:, :4], short, atol=1e-6, rtol=1e-5)


LABELS = torch.tensor([[8, 20, 33, 2], [12, 2, -100, -100], [3, 2, -100, -100], [9, 8, 2, -100]])


def stock_gradient(folder, kind, steps):
    """The gradient of one step of the stock trainer, over four rows with labels of different length."""
    model = tiny(kind)
    taken = {}

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            taken.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    rows = [
        {"input_ids": SOURCE[n % 2], "attention_mask": MASK[n % 2], "labels": labels}
        for n, labels in enumerate(LABELS)
    ]
    args = Seq2SeqTrainingArguments(
        output_dir=str(folder), max_steps=1, per_device_train_batch_size=4 // steps, gradient_accumulation_steps=steps,
        learning_rate=0.0, max_grad_norm=0.0, save_strategy="no", logging_steps=1, report_to="none", use_cpu=True,
        disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Seq2SeqTrainer(model, args, train_dataset=rows, data_collator=default_data_collator,
                             callbacks=[Look()])  # fmt: skip
    trainer.train()
    loss = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return torch.cat([gradient.flatten() for gradient in taken.values()]), loss


class TestLoss:
    @pytest.mark.parametrize("kind", KINDS)
    def test_num_items_divides_the_sum_over_tokens(self, kind):
        model = tiny(kind)
        labels = LABELS[:2]
        batch = {"input_ids": SOURCE, "attention_mask": MASK, "labels": labels}
        with torch.no_grad():
            outputs = model(**batch, num_items_in_batch=torch.tensor(10))
            mean = model(**batch).loss
        total = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten(), reduction="sum")
        assert outputs.loss.item() == pytest.approx(total.item() / 10, rel=1e-5)
        assert mean.item() == pytest.approx(total.item() / 6, rel=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_stock_trainer_accumulates_to_the_same_gradient(self, tmp_path, kind):
        whole, loss = stock_gradient(tmp_path, kind, 1)
        assert whole.norm() > 1e-3 and math.isfinite(loss)
        for steps in (2, 4):
            gradient, accumulated = stock_gradient(tmp_path, kind, steps)
            assert (gradient - whole).norm() < 1e-5 * whole.norm()
            assert accumulated == pytest.approx(loss, rel=1e-4)

    def test_a_batch_without_labelled_tokens_counts_as_nothing(self):
        batch = {"input_ids": SOURCE, "attention_mask": MASK, "labels": torch.full((2, 3), -100)}
        model = tiny("bart")
        decoder_input_ids = TARGETS[:2, :3]
        loss = model(**batch, decoder_input_ids=decoder_input_ids, num_items_in_batch=torch.tensor(10)).loss
        assert loss.item() == 0
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def has_gradient(weight):
    return weight.grad is not None and bool(weight.grad.abs().sum() > 0)


class TestFrozenEncoder:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("rows", [2, 4])
    def test_no_gradient_reaches_it(self, kind, rows):
        model = tiny(kind).freeze_encoder().train()
        model(**inputs(rows)).logits.square().mean().backward()
        shared = {id(p) for n, p in model.named_parameters(remove_duplicate=False) if "encoder." not in n}
        own = [p for p in model.get_encoder().parameters() if id(p) not in shared]
        assert own and not any(p.requires_grad or p.grad is not None for p in own)
        assert has_gradient(model.get_output_embeddings().weight)
        decoder = [p for n, p in model.named_parameters() if n.startswith(("decoder.", "model.decoder."))]
        assert any(has_gradient(p) for p in decoder)

    @pytest.mark.parametrize("kind", ["bart", "t5"])
    def test_shared_embeddings_stay_trainable(self, kind):
        model = tiny(kind).freeze_encoder()
        assert model.get_input_embeddings().weight.requires_grad
        assert not next(p for n, p in model.get_encoder().named_parameters() if "embed_tokens" not in n).requires_grad

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_stays_in_eval_mode(self, kind):
        model = tiny(kind).train().freeze_encoder()
        for _ in range(2):
            assert not any(module.training for module in model.get_encoder().modules())
            assert model.training and model.get_decoder().training
            model.eval()
            assert not model.get_decoder().training
            model.train()
        model.freeze_encoder(False)
        assert model.get_encoder().training
        assert all(p.requires_grad for n, p in model.get_encoder().named_parameters() if not n.startswith("pooler"))

    @pytest.mark.parametrize("kind", ["bart", "t5"])
    def test_a_cache_is_refused_where_the_encoder_would_change(self, kind):
        with pytest.raises(PessError, match="cache_rows=8: expected an encoder that stays as it is"):
            tiny(kind).freeze_encoder(cache_rows=8)

    def test_a_cache_is_refused_for_an_encoder_that_trains(self):
        with pytest.raises(PessError, match="cache_rows=8"):
            tiny("encoder-decoder").freeze_encoder(False, cache_rows=8)

    def test_bart_with_frozen_embeddings_takes_a_cache(self):
        model = tiny("bart")
        model.get_input_embeddings().requires_grad_(False)
        model.freeze_encoder(cache_rows=8)
        expected = tiny("bart")(**inputs(4)).logits
        assert torch.allclose(model(**inputs(4)).logits, expected, atol=1e-6)
        assert torch.allclose(model(**inputs(4)).logits, expected, atol=1e-6)
        assert model._encoder_cache.misses == 2

    def test_an_unused_pooler_waits_for_no_gradient(self):
        model = tiny_encoder_decoder()
        assert not any(p.requires_grad for p in model.encoder.pooler.parameters())
        model(**inputs(4)).logits.square().mean().backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


class TestGradientCheckpointing:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("frozen", [False, True])
    def test_gradients_are_those_without(self, kind, frozen):
        def gradient(checkpointing):
            model = tiny(kind).freeze_encoder(frozen).train()
            layers = {"bart": "model.decoder.layers.0", "t5": "decoder.block.0"}
            layer = model.get_submodule(layers.get(kind, "decoder.bert.encoder.layer.0"))
            inner = next(module for module in layer.modules() if isinstance(module, torch.nn.Linear))
            calls = []
            inner.register_forward_hook(lambda *_: calls.append(1))
            if checkpointing:
                model.gradient_checkpointing_enable()
            model(**inputs(6)).logits.square().mean().backward()
            found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            return found, len(calls)

        plain, once = gradient(False)
        saved, twice = gradient(True)
        assert (once, twice) == (1, 2)  # the layer really ran again in the backward pass
        assert plain.keys() == saved.keys()
        for name, value in plain.items():
            assert torch.allclose(saved[name], value, atol=1e-6, rtol=1e-4), name


def test_a_mixin_without_a_backbone_says_what_is_missing():
    from pess_hf import PersonaExtractionMixin

    class Bare(PersonaExtractionMixin):
        pass

    with pytest.raises(TypeError, match="Bare has to say how its backbone decodes"):
        Bare().decode(SOURCE, SOURCE, SOURCE)
    with pytest.raises(TypeError, match="Bare has to say how its backbone projects"):
        Bare().project(SOURCE)


def test_an_extractor_writes_through_its_own_extract(caplog):
    model, tokenizer = tiny_bart(), byte_level_tokenizer()
    personas = model.extract([["I sing."], ["My dogs bark."]], tokenizer, disable_tqdm=True, max_new_tokens=4)
    assert len(personas) == 2 and all(isinstance(persona, list) for persona in personas)
