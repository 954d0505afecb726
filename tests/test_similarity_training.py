"""Fine-tuning the sentence encoder: the loss by hand, what moves and what does not, the recipe end to end."""

import json

import datasets
import numpy as np
import pytest
import torch
from recipe_runs import RECIPES, flags, recipe
from sentence_transformers import SentenceTransformerTrainingArguments
from tiny_encoder import pair_rows, tiny_encoder

from pess_hf import PersonaMatcher, PessError
from pess_hf.arguments import parse_recipe_args
from pess_hf.calibration import read_calibration
from pess_hf.similarity import load_encoder
from pess_hf.similarity_training import (
    PersonaPairLoss,
    SimilarityLossArguments,
    freeze_layers,
    interpolate,
    pair_cosines,
    train_encoder,
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def pairs():
    return datasets.Dataset.from_list(pair_rows())


def training_args(folder, **more):
    settings = {"max_steps": 3, "learning_rate": 1e-2, "save_strategy": "no", "use_cpu": True, "report_to": "none",
                "disable_tqdm": True, "per_device_train_batch_size": 12}  # fmt: skip
    return SentenceTransformerTrainingArguments(str(folder), **(settings | more))


def cosine_vectors(cosines):
    """Pairs of unit vectors in the plane with these cosines."""
    cosines = torch.tensor(cosines, dtype=torch.float64)
    left = torch.stack([torch.ones_like(cosines), torch.zeros_like(cosines)], dim=1)
    return left, torch.stack([cosines, (1 - cosines**2).sqrt()], dim=1)


def test_the_terms_are_those_worked_by_hand():
    settings = SimilarityLossArguments(ranking_weight=2.0, retention_weight=3.0)
    # entailment, neutral, contradiction at cosines 0.5, 0.6, 0.4; before training 0.5, 0.4, 0.9
    left, right = cosine_vectors([0.5, 0.6, 0.4])
    labels = torch.tensor([[0, 1.0, 0.5], [1, 0.0, 0.4], [2, 0.0, 0.9]], dtype=torch.float64)
    terms = PersonaPairLoss(None, settings).terms(left, right, labels)
    assert terms["cosent"].item() == pytest.approx(np.log(1 + np.exp(20 * 0.1) + np.exp(20 * -0.1)))
    # every premise is (1, 0), so the first one meets the hypotheses at the three cosines
    exps = np.exp(20 * np.array([0.5, 0.6, 0.4]))
    assert terms["ranking"].item() == pytest.approx(-2 * np.log(exps[0] / exps.sum()))
    # the contradiction is free to move: (0 + 0.04) / 2
    assert terms["retention"].item() == pytest.approx(3 * 20 * 0.02)


def test_a_batch_without_entailments_or_with_contradictions_only_has_finite_terms():
    settings = SimilarityLossArguments(ranking_weight=1.0, retention_weight=1.0)
    left, right = cosine_vectors([0.5, 0.6])
    left.requires_grad_()
    labels = torch.tensor([[2, 0.0, 0.5], [2, 0.0, 0.4]], dtype=torch.float64)
    terms = PersonaPairLoss(None, settings).terms(left, right, labels)
    assert {name: term.item() for name, term in terms.items()} == {"cosent": 0, "ranking": 0, "retention": 0}
    sum(terms.values()).backward()
    assert torch.isfinite(left.grad).all()


def test_training_puts_entailments_above_the_rest(encoder, pairs, tmp_path):
    from pess_hf.calibration import pair_aucs

    before = {name: weight.clone() for name, weight in encoder.named_parameters()}
    args = training_args(tmp_path, max_steps=40)
    tuned = train_encoder(encoder, pairs, SimilarityLossArguments(ranking_weight=0.5), args)
    aucs = [pair_aucs(pair_cosines(one, pairs), pairs["label"])["auc_entailment_rest"] for one in (encoder, tuned)]
    assert aucs[1] > aucs[0] + 0.1 and aucs[1] > 0.9
    assert all(torch.equal(weight, before[name]) for name, weight in encoder.named_parameters()), "a copy is trained"
    assert not tuned.training and not any(weight.requires_grad for weight in tuned.parameters())


def test_retention_keeps_the_cosines_of_neutral_pairs(encoder, pairs, tmp_path):
    neutral = pairs.filter(lambda row: row["label"] == "neutral")
    moved = {}
    for weight in (0.0, 20.0):
        tuned = train_encoder(
            encoder, pairs, SimilarityLossArguments(retention_weight=weight), training_args(tmp_path, max_steps=10)
        )
        moved[weight] = np.abs(pair_cosines(tuned, neutral) - pair_cosines(encoder, neutral)).mean()
    assert moved[20.0] < 0.5 * moved[0.0]


def test_frozen_layers_do_not_move(encoder, pairs, tmp_path):
    tuned = train_encoder(encoder, pairs, SimilarityLossArguments(frozen_layers=2), training_args(tmp_path))
    new = dict(tuned.named_parameters())
    moved = {name for name, weight in encoder.named_parameters() if not torch.equal(weight, new[name])}
    assert moved and all(".layer.2." in name for name in moved - {n for n in moved if "pooler" in n})


def test_not_all_layers_can_be_frozen(encoder):
    import copy

    with pytest.raises(PessError, match="frozen_layers: expected fewer than the encoder's 3 layers, found 3"):
        freeze_layers(copy.deepcopy(encoder), 3)


def test_interpolation_lies_between(encoder, tmp_path):
    other = tiny_encoder(tmp_path, seed=1)
    ours, theirs = (dict(one.named_parameters()) for one in (encoder, other))
    expected = {name: 0.25 * theirs[name] + 0.75 * ours[name] for name in ours}
    interpolate(encoder, other, 0.25)
    assert all(torch.allclose(weight, expected[name]) for name, weight in other.named_parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ranking_weight": -1}, "ranking_weight: expected 0 or more, found -1"),
        ({"interpolation": 0}, r"interpolation: expected a number in \(0, 1\], found 0"),
        ({"neutral_target": 1.0}, "entailment_target: expected it above neutral_target and contradiction_target"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(PessError, match=message):
        SimilarityLossArguments(**settings)


class TestRecipe:
    def settings(self, start, pairs, folder, **more):
        common = {
            "model_name_or_path": start, "data": pairs, "output_dir": folder, "max_steps": 4, "use_cpu": True,
            "disable_tqdm": True, "report_to": "none", "save_strategy": "no", "held_out_fraction": 0.4,
            "per_device_train_batch_size": 12,
        }  # fmt: skip
        return flags(**(common | more))

    @pytest.fixture
    def data(self, tmp_path):
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in pair_rows()))
        return path

    @pytest.fixture
    def start(self, tmp_path):
        tiny_encoder(tmp_path)
        return tmp_path / "encoder"

    def test_end_to_end(self, tmp_path, start, data, capsys):
        folder = tmp_path / "run"
        recipe("train_similarity").main(self.settings(start, data, folder, folds=2))
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["train_pairs"] + metrics["test_pairs"] + metrics["dropped_pairs"] == 72
        for when in ("before", "test", "folds_before", "folds_test"):
            tail = "_mean" if when.startswith("folds") else ""
            assert 0 <= metrics[f"{when}_auc_entailment_contradiction{tail}"] <= 1
        assert metrics["folds_test_auc_entailment_neutral_std"] >= 0
        assert (folder / "model.safetensors").is_file() and not list(folder.glob("*.bin"))
        assert (folder / "cosines.png").stat().st_size > 5000
        record = json.loads((folder / "run.json").read_text())
        assert record["recipe"] and record["arguments"]["held_out_fraction"] == 0.4
        card = (folder / "README.md").read_text()
        assert f"--similarity_threshold {read_calibration(folder).threshold:g}" in card
        assert not any(row["premise"] in card or row["hypothesis"] in card for row in pair_rows())
        assert "fold 2 of 2" in capsys.readouterr().out

        # what was measured is what was saved, and it matches personas
        split = recipe("train_similarity").split_by_premise(
            recipe("train_similarity").load_sentence_pairs(data), 0.4, 42
        )
        saved = recipe("train_similarity").measure("test", pair_cosines(load_encoder(str(folder)), split.test), split)
        assert saved["test_auc_entailment_neutral"] == pytest.approx(metrics["test_auc_entailment_neutral"])
        [match] = PersonaMatcher(str(folder)).match([["I have a dog."]], [["I have a dog."]])
        assert match.consistent == [0]

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"held_out_fraction": 1}, "held_out_fraction: expected a number"),
            ({"folds": 1}, "folds: expected 0, or 2 or more, found 1"),
            ({"data": "nowhere.jsonl"}, r"nowhere\.jsonl: expected a \.jsonl or \.json file of sentence pairs"),
        ],
    )
    def test_slips_are_refused(self, tmp_path, start, data, more, message):
        with pytest.raises(PessError, match=message):
            recipe("train_similarity").main(self.settings(start, data, tmp_path / "run", **more))

    def test_the_shipped_settings_parse(self):
        module = recipe("train_similarity")
        kinds = [module.SimilarityDataArguments, SimilarityLossArguments, SentenceTransformerTrainingArguments]
        for path in sorted((RECIPES / "configs" / "similarity").glob("*.yaml")):
            parsed = parse_recipe_args(kinds, ["--config", str(path)])
            assert parsed[0].data
