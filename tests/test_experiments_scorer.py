"""The experiments on matching: calibration against labelled pairs, robustness to perturbations."""

import itertools
import json

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from matplotlib.image import imread
from recipe_runs import RECIPES, flags, recipe, save_model
from tiny_encoder import pair_rows, tiny_cross_encoder, tiny_encoder

from pess_hf import PersonaMatcher, PessError
from pess_hf.paraphraser import write_paraphrases


def experiment(name):
    assert (RECIPES / "experiments" / f"{name}.py").is_file()
    return recipe(f"experiments/{name}")


def is_picture(path):
    return imread(path)[..., :3].std() > 0


class TestCalibrate:
    @pytest.fixture
    def data(self, tmp_path):
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in pair_rows(8)))
        return path

    def test_encoders_and_cross_encoders_side_by_side(self, tmp_path, data, capsys):
        tiny_encoder(tmp_path)
        models = [str(tmp_path / "encoder"), tiny_cross_encoder(tmp_path / "nli")]
        folder = tmp_path / "out"
        module = experiment("calibrate")
        module.main(flags(data=data, output_dir=folder, similarity_models=models, thresholds=3, persona_size=2))
        results = json.loads((folder / "calibration.json").read_text())
        assert results["pairs"] == 24
        for name in models:
            sweep = results[name]["sweep"]
            assert [row["threshold"] for row in sweep] == pytest.approx([0.05, 0.5, 0.95])
            assert all(a["recall"] >= b["recall"] for a, b in itertools.pairwise(sweep))
            assert all(
                row["unrelated_matched"] == pytest.approx(1 - (1 - row["neutral_passed"]) ** 2) for row in sweep
            )
            assert results[name]["calibration"]["reason"]
        assert (folder / "table.md").read_text().count("| 0.950 |") >= 2
        assert is_picture(folder / "sweep.png") and is_picture(folder / "scores.png")
        printed = capsys.readouterr().out
        assert all(f"{name}: threshold" in printed for name in models)

    def test_the_scores_are_those_of_matching(self, tmp_path):
        encoder = tiny_encoder(tmp_path)
        scores = experiment("calibrate").pair_scores(str(tmp_path / "encoder"), ["I sing.", "I ski."], ["No.", "Yes."])
        left, right = (
            encoder.encode(texts, normalize_embeddings=True) for texts in (["I sing.", "I ski."], ["No.", "Yes."])
        )
        np.testing.assert_allclose(scores, (left * right).sum(axis=1), atol=1e-5)

    def test_a_fraction_out_of_range_is_refused(self, tmp_path, data):
        with pytest.raises(PessError, match="held_out_fraction: expected a number"):
            experiment("calibrate").main(flags(data=data, output_dir=tmp_path, held_out_fraction=1))


class TestRobustness:
    def test_from_rows_to_table_and_plot(self, tmp_path):
        folder = tmp_path / "out"
        tiny_encoder(tmp_path)
        experiment("robustness").main(
            flags(data="sample", split="test", output_dir=folder, max_rows=4, similarity_model=tmp_path / "encoder")
        )
        results = json.loads((folder / "robustness.json").read_text())
        assert set(results["matching"]) == set(results["extraction"]) == {"paraphrase", "negation", "entity_swap"}
        assert 0 < results["matching"]["negation"]["changed"] <= 1
        assert results["drift"]["0"]["f1_persona"] == results["drift"]["0"]["f1_before_after"] == 1
        assert (folder / "table.md").read_text().count("\n| negation |") == 1
        assert is_picture(folder / "drift.png")

    def test_only_changed_sentences_count(self):
        encoder = FakeEncoder({"I sing.": (1, 0), "I do not sing.": (0, 1), "Oh!": (1, 0)})
        rule = {"I sing.": "I do not sing.", "Oh!": None}.get
        shift = experiment("robustness").sentence_shift(
            PersonaMatcher(encoder), [["I sing.", "Oh!"], ["I sing."]], lambda sentences: [rule(s) for s in sentences]
        )
        assert shift == {"sentences": 2, "changed": 0.5, "similarity": 0.0, "matched": 0.0}

    def test_extraction_is_compared_with_itself_and_with_the_reference(self):
        encoder = FakeEncoder({"a": (1, 0), "b": (0, 1)})
        shift = experiment("robustness").extraction_shift(PersonaMatcher(encoder), [["a"]], [["b"]], [["a"]])
        assert shift == {"f1_before_after": 0, "f1_before": 1, "f1_after": 0}


def test_a_model_paraphrases_and_what_it_repeats_does_not_count(tmp_path):
    model = save_model(tmp_path / "bart")
    written = write_paraphrases(["I sing.", "I ski."], model, batch_size=1)
    assert len(written) == 2 and all(text is None or text.strip() for text in written)
    assert written == write_paraphrases(["I sing.", "I ski."], model, batch_size=1), "greedy"
