"""The experiments that measure trained models: stated or implied, contradictions, other domains."""

import json

import numpy as np
import pytest
from fake_encoder import FakeEncoder
from recipe_runs import RECIPES, flags, recipe, save_model, train_flags, write_rows

from pess_hf import PessError, experiment, similarity
from pess_hf.arguments import parse_recipe_args
from pess_hf.domains import Domain, Extraction, measure_domain
from pess_hf.evidence import ContentWords, evidence_overlap, evidence_similarity
from pess_hf.similarity import PersonaMatcher

#: Vectors chosen so that cosines are known.
VECTORS = {
    "I have two dogs.": [1, 0, 0],
    "My two dogs bark.": [0.8, 0.6, 0],
    "I own dogs.": [0.9, 0.1, 0],
    "I have no dogs.": [0.95, 0.05, 0],
    "I am shy.": [0, 0, 1],
    "Sunny today.": [0, 1, 0],
}
#: A scorer that tells "no dogs" from "two dogs".
TRAINED = {**VECTORS, "I have no dogs.": [-1, 0, 0]}


class FakeNli:
    """Entails nothing; "no dogs" excludes "two dogs" with 0.9, everything else is neutral."""

    def similarity_matrices(self, reference, generated):
        return [np.zeros((len(r), len(g))) for r, g in zip(reference, generated, strict=True)]

    def contradiction_matrices(self, reference, generated):
        excluded = {"i have no dogs.": "I have two dogs."}
        return [
            np.array([[0.9 * (excluded.get(" ".join(g.lower().split())) == r) for g in written] for r in wanted])
            for wanted, written in zip(reference, generated, strict=True)
        ]


@pytest.fixture(autouse=True)
def _known_vectors(monkeypatch):
    encoders = {"trained": FakeEncoder(TRAINED), "nli": FakeNli()}
    monkeypatch.setattr(similarity, "load_scorer", lambda name, **__: encoders.get(name, FakeEncoder(VECTORS)))


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


class TestEvidence:
    def test_similarity_is_that_of_the_nearest_sentence_said(self):
        matcher = PersonaMatcher(FakeEncoder(VECTORS))
        personas = [["I have two dogs.", "I am shy."], [], ["I am shy."]]
        said = [["Sunny today. My two dogs bark."], ["Sunny today."], ["Sunny today."]]
        found = evidence_similarity(personas, said, matcher)
        assert [one.tolist() for one in found] == [pytest.approx([0.8, 0.0]), [], [0.0]]

    def test_overlap_counts_stems_of_content_words_in_one_sentence(self):
        found = evidence_overlap(
            [["I have two dogs.", "I like jumping horses.", "It is what it is."], ["I sing."]],
            [["A dog barks. I have two cats.", "Horses jumped!"], []],
        )
        assert [one.tolist() for one in found] == [pytest.approx([0.5, 2 / 3, 0.0]), [0.0]]
        assert ContentWords()("I do not have any.") == set()


class TestImplicit:
    @pytest.fixture
    def files(self, tmp_path):
        reference = ["I have two dogs.", "I am shy."]
        data = write_lines(
            tmp_path / "rows.jsonl",
            [
                {"dialogue_id": f"row-{n}", "utterances": ["Sunny today.", "My two dogs bark."], "persona": reference}
                for n in range(6)
            ],
        )
        for name, generated in {
            "plain": ["I own dogs.", "I have no dogs."],
            "full": ["I own dogs.", "I am shy."],
        }.items():
            rows = [{"dialogue_id": f"row-{n}", "reference": reference, "generated": generated} for n in range(6)]
            write_lines(tmp_path / name / "predictions.jsonl", rows)
        return tmp_path, data

    def run(self, files, **settings):
        folder, data = files
        runs = [f"plain={folder / 'plain'}", f"full={folder / 'full'}"]
        common = {"runs": runs, "data": data, "output_dir": folder / "out", "resamples": 100}
        recipe("experiments/implicit").main(flags(**common | settings))
        tables = json.loads((folder / "out" / "implicit.json").read_text())["tables"]
        return {table["table"]: (table["sentences"], table["settings"]) for table in tables}

    def test_recall_of_what_is_stated_and_of_what_is_implied(self, files):
        tables = self.run(files)
        sentences, (plain, full) = tables["recall, stated"]
        assert sentences == 6 and plain["share"] == full["share"] == 1
        assert full["against_first"]["difference"] == 0
        sentences, (plain, full) = tables["recall, implied"]
        assert sentences == 6 and plain["share"] == 0 and full["share"] == 1
        assert full["against_first"]["difference"] == 1 and full["against_first"]["p_value"] < 0.05
        assert sum(tables[name][0] for name in tables if name.startswith("recall, cosine")) == 12
        assert tables["recall, cosine 0.3 to 0.4"][1][0]["share"] is None
        assert (files[0] / "out" / "implicit.png").is_file()
        assert "| recall, implied | 6 | full | 1.000 |" in (files[0] / "out" / "implicit.md").read_text()

    def test_the_lines_can_be_drawn_elsewhere(self, files):
        assert self.run(files, stated_similarity=0.9, stated_overlap=1.0)["recall, stated"][0] == 6  # by words
        (files[0] / "out" / "implicit.json").unlink()
        assert self.run(files, stated_similarity=-1)["recall, implied"][0] == 0

    def test_contradictions_by_a_trained_scorer(self, files):
        assert "generated that contradict" not in self.run(files)
        sentences, (plain, full) = self.run(files, scorer="trained")["generated that contradict"]
        assert sentences == 24 and plain["share"] == 0.5 and full["share"] == 0
        assert full["against_first"]["difference"] == -0.5
        assert self.run(files, scorer="other")["generated that contradict"][1][0]["share"] == 0

    def test_an_nli_model_does_not_count_what_is_neutral(self, files):
        """ "I own dogs." looks like "I have two dogs." and is not entailed by it: neutral, no contradiction."""
        sentences, (plain, full) = self.run(files, scorer="nli")["generated that contradict"]
        assert sentences == 24 and plain["share"] == 0.5 and full["share"] == 0
        assert self.run(files, scorer="nli", scorer_threshold=0.95)["generated that contradict"][1][0]["share"] == 0

    def test_a_repeated_sentence_counts_once(self, files):
        rows = [json.loads(line) for line in (files[0] / "plain" / "predictions.jsonl").open()]
        for row in rows:
            row["generated"].append("I have  no DOGS.")
        write_lines(files[0] / "plain" / "predictions.jsonl", rows)
        assert self.run(files, scorer="nli")["generated that contradict"][1][0]["share"] == 0.5

    def test_other_rows_than_the_runs_are_refused(self, files):
        folder, _ = files
        other = write_lines(folder / "o.jsonl", [{"dialogue_id": "x", "utterances": ["Hi."], "persona": []}])
        with pytest.raises(PessError, match=r"data: expected the test rows of .*plain, found no dialogue_id 'row-0'"):
            self.run(files, data=other)
        other = write_lines(folder / "o.jsonl", [{"dialogue_id": "row-0", "utterances": ["Hi."], "persona": []}])
        with pytest.raises(PessError, match="'row-0' has another persona than in"):
            self.run(files, data=other)
        with pytest.raises(PessError, match=r"scorer_threshold: expected a cosine in \[-1, 1\] for trained, found 2"):
            self.run(files, scorer="trained", scorer_threshold=2)


class TestMeasureDomain:
    def test_figures_by_hand(self):
        domain = Domain(
            "d", ["a", "b"], [["My two dogs bark."], ["Sunny today."]], [["I have two dogs."], ["I am shy."]]
        )
        written = Extraction(
            whole=[["I own dogs.", "I am shy."], ["Sunny today."]], half=[["I own dogs."], ["I am shy."]]
        )
        found = measure_domain(domain, [written], PersonaMatcher(FakeEncoder(VECTORS), 0.6), resamples=50)
        assert found["sentences"] == 1.5 and found["dialogues"] == 2
        assert found["grounded"] == pytest.approx(2 / 3)  # the dogs and the sun, not the shyness
        assert found["stable"] == 0.5
        assert found["precision"] == 0.25 and found["recall"] == 0.5
        cosines = np.array([[0.9, 0.1]]) / np.hypot(0.9, 0.1) @ np.array([[0.8, 0.0], [0.6, 1.0]])
        assert found["grounding"] == pytest.approx((cosines[0, 0] + 0 + 1) / 3)
        assert found["grounding_by_chance"] == pytest.approx((cosines[0, 1] + 0 + 0.6) / 3)

    def test_without_a_reference_and_without_a_sentence(self):
        domain = Domain("d", ["a"], [["Sunny today."]], None)
        found = measure_domain(domain, [Extraction([[]], [[]])], PersonaMatcher(FakeEncoder(VECTORS), 0.6), 50)
        assert found["grounded"] is None and found["grounding"] is None and "f1" not in found


class TestDomainShift:
    @pytest.fixture(scope="class")
    def model(self, tmp_path_factory):
        return save_model(tmp_path_factory.mktemp("model"))

    def settings(self, tmp_path, **more):
        common = {"output_dir": tmp_path / "out", "resamples": 20, "max_source_length": 96, "seeds": 1}
        support = {"support": "seekers=sample", "measure_split": "test", "max_measured": 3}
        return flags(**common | support | more)

    def test_trained_models_are_only_measured(self, tmp_path, model, capsys):
        settings = self.settings(tmp_path, models=f"mine={model},{model}", measure="chats=sample")
        recipe("experiments/domain_shift").main(settings)
        found = json.loads((tmp_path / "out" / "domain_shift.json").read_text())
        assert found["models"] == {"mine": [model, model]}
        chats, seekers = found["results"]
        assert chats["domain"] == "chats" and chats["dialogues"] == 3 and chats["seeds"] == 2 and "f1" in chats
        assert seekers["domain"] == "seekers" and "f1" not in seekers and 0 <= seekers["grounded"] <= 1
        assert "| mine | seekers | 3 x 2 |" in capsys.readouterr().out
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "personas").rglob("*.jsonl")}
        assert len(before) == 4
        recipe("experiments/domain_shift").main(settings)
        assert before == {path: path.stat().st_mtime_ns for path in before}  # nothing is extracted twice
        with pytest.raises(PessError, match=r"chats-0.jsonl: expected personas by x, found another model's"):
            recipe("experiments/domain_shift").main(self.settings(tmp_path, models="mine=x", measure="chats=sample"))

    def test_training_never_sees_what_is_measured(self, tmp_path, model, monkeypatch):
        data = write_rows(tmp_path / "rows.jsonl")
        started = []

        def start(path, log):
            log.write_text("")
            recipe("train_extractor").main(["--config", str(path)])
            started.append(path)
            return 0

        monkeypatch.setattr(experiment, "_start_process", lambda *_: start)
        settings = train_flags(model, data, tmp_path / "out", resamples=20, seeds=1, train=f"chats={data}",
                               measure=f"chats={data}", measure_fraction=0.25, max_steps=1)  # fmt: skip
        recipe("experiments/domain_shift").main(settings)
        measured = [json.loads(line) for line in (tmp_path / "out" / "measured" / "chats.jsonl").open()]
        record = json.loads((tmp_path / "out" / "chats" / "seed-1" / "run.json").read_text())
        assert len(started) == 1 and 0 < len(measured) < 8
        assert 0 < record["train_rows"] <= 8 - len(measured)
        assert record["arguments"]["train_data"] == [data]

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"measure": "a=x"}, "train: expected it or models, found neither"),
            ({"models": "a=x", "support": None}, "measure: expected it or support, found neither"),
            ({"models": "a=x", "measure": "seekers=x"}, "expected each name once, found 'seekers' twice"),
            ({"models": "x", "measure": "a=x"}, "models: expected NAME=PATH"),
            ({"models": "a=x", "measure": "a=x", "measure_fraction": 0}, "measure_fraction: expected a number in"),
        ],
    )
    def test_what_makes_no_sense(self, tmp_path, settings, message):
        line = self.settings(tmp_path, **settings)
        if settings.get("support", "") is None:
            at = line.index("--support")
            line = line[:at] + line[at + 2 :]
        with pytest.raises(PessError, match=message):
            recipe("experiments/domain_shift").main(line)


def test_the_settings_file_of_implicit_is_read_strictly():
    own = recipe("experiments/implicit").ImplicitArguments
    (parsed,) = parse_recipe_args(own, ["--config", str(RECIPES / "configs" / "experiments" / "implicit.yaml")])
    assert len(parsed.runs) == 4
