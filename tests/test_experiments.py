"""The experiment recipes, end to end on a tiny model; training in this process instead of one of its own."""

import json

import pytest
import yaml
from fake_encoder import FakeEncoder
from recipe_runs import RECIPES, launch_here, recipe, save_model, train_flags, write_rows
from transformers import TrainerState

from pess_hf import AutoPessExtractor, PessError, experiment, similarity
from pess_hf.arguments import parse_recipe_args
from pess_hf.experiment import FINISHED, LOG, SETTINGS, Variant, plan_runs, run_grid
from pess_hf.experiment_args import ExperimentArguments, read_experiment
from pess_hf.extractor_args import ExtractorArguments, PersonaDataArguments
from pess_hf.training_args import PessTrainingArguments

START_PROCESS = experiment._start_process  # as it is without the fixtures below
TRAINING = [ExtractorArguments, PersonaDataArguments, PessTrainingArguments]


@pytest.fixture(scope="module", autouse=True)
def _sentences_cost_nothing():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "load_encoder", lambda *_, **__: FakeEncoder())
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl")


@pytest.fixture(scope="module", autouse=True)
def all_trained():
    """The settings of every training, which happens in this process."""
    settings = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "_start_process", lambda *_: launch_here("train_extractor", settings))
        yield settings


@pytest.fixture
def trained(all_trained):
    all_trained.clear()
    return all_trained


@pytest.fixture(scope="module")
def ablation(tmp_path_factory, model, data, all_trained):
    """The folder of a finished ablation, and how its runs were started."""
    folder = tmp_path_factory.mktemp("ablation")
    recipe("experiments/ablation").main(words(model, data, folder))
    return folder, list(all_trained)


def words(model, data, folder, **settings):
    common = {"test_data": data, "max_steps": 4, "learning_rate": 1e-2, "resamples": 50, "seeds": [1, 2]}
    return train_flags(model, data, folder, **common | settings)


def weights(folder):
    return {name: value.clone() for name, value in AutoPessExtractor.from_pretrained(folder).state_dict().items()}


def are_same(one, other):
    return all(value.equal(other[name]) for name, value in one.items())


class TestAblation:
    def test_others_go_on_from_the_first_variant_of_their_seed(self, ablation):
        folder, trained = ablation
        names = ["baseline", "no-completeness", "no-consistency", "full"]
        runs = [(name, seed) for name in names for seed in (1, 2)]
        assert [run["output_dir"] for run in trained] == [str(folder / name / f"seed-{seed}") for name, seed in runs]
        starts = [run.get("resume_from_checkpoint") for run in trained]
        assert starts[:2] == [None, None]
        assert starts[2:] == [str(folder / "baseline" / f"seed-{seed}" / "checkpoint-2") for _, seed in runs[2:]]
        assert trained[2]["completeness_weight"] == 0 and "consistency_weight" not in trained[2]
        assert "persona scores on 8 test rows" in (folder / "full" / "seed-1" / LOG).read_text()

    def test_table_and_plot(self, ablation):
        folder, _ = ablation
        [report] = json.loads((folder / "results.json").read_text())["reports"]
        assert len(report["settings"]) == 4
        for number, entry in enumerate(report["settings"]):
            assert entry["dialogues"] == 8 and entry["seeds"] == 2
            low, high = entry["intervals"]["f1"]
            assert low <= entry["f1"] <= high
            assert ("against_first" in entry) == (number > 0)
        assert (folder / "f1.png").read_bytes().startswith(b"\x89PNG")
        text = (folder / "results.md").read_text()
        assert "| full |" in text and "8 dialogues, 2 seeds" in text

    def test_the_shared_first_phase_changes_no_weight(self, ablation, tmp_path, model, data):
        folder, _ = ablation
        alone = train_flags(model, data, tmp_path / "alone", test_data=data, max_steps=4, learning_rate=1e-2, seed=1)
        recipe("train_extractor").main(alone)
        full, baseline = (weights(folder / name / "seed-1") for name in ("full", "baseline"))
        assert are_same(full, weights(tmp_path / "alone"))
        assert not are_same(full, baseline)

    def test_what_is_finished_is_not_trained_again(self, ablation, model, data, trained, capsys):
        folder, _ = ablation
        (folder / "full" / "seed-1" / FINISHED).unlink()
        recipe("experiments/ablation").main(words(model, data, folder))
        assert [run["output_dir"] for run in trained] == [str(folder / "full" / "seed-1")]
        out = capsys.readouterr().out
        assert out.count("was finished before") == 7 and (folder / "results.md").read_text() in out
        with pytest.raises(PessError, match=r"settings.yaml: expected the settings of this experiment, found others"):
            recipe("experiments/ablation").main(words(model, data, folder, learning_rate=1e-3))


class TestSweeps:
    def test_thresholds(self, tmp_path, model, data, trained):
        arguments = words(
            model, data, tmp_path, seeds=[1], thresholds=[0.7], baseline=False, report_thresholds=[0.5, 0.6]
        )
        recipe("experiments/threshold").main(arguments)
        assert [run["similarity_threshold"] for run in trained] == [0.7, -1]
        assert trained[1]["resume_from_checkpoint"].endswith("threshold-0.7/seed-1/checkpoint-2")
        reports = json.loads((tmp_path / "results.json").read_text())["reports"]
        assert [report["threshold"] for report in reports] == [0.5, 0.6]
        assert [entry["name"] for entry in reports[0]["settings"]] == ["threshold-0.7", "no-threshold"]
        low, high = (report["settings"][0]["recall"] for report in reports)
        assert low >= high

    def test_windows(self, tmp_path, model, data, trained):
        recipe("experiments/staleness").main(words(model, data, tmp_path, seeds=[1], windows=[1, 2]))
        assert [run["rollout_steps"] for run in trained] == [1, 2]
        assert trained[1]["resume_from_checkpoint"].endswith("rollout-steps-1/seed-1/checkpoint-2")
        assert (tmp_path / "f1.png").is_file()

    @pytest.mark.parametrize(
        ("name", "setting", "message"),
        [
            ("threshold", {"thresholds": [1.5]}, r"thresholds: expected numbers in \[-1, 1\], found 1.5"),
            ("threshold", {"thresholds": [0.5, 0.5]}, "variants: expected one or more, each once"),
            ("staleness", {"windows": [0]}, "windows: expected 1 or more each, found 0"),
        ],
    )
    def test_values_out_of_range(self, tmp_path, name, setting, message):
        with pytest.raises(PessError, match=message):
            recipe(f"experiments/{name}").main(words("m", "rows.jsonl", tmp_path, **setting))


class TestGrid:
    def test_an_interrupted_first_run_goes_on_from_its_own_checkpoint(self, tmp_path):
        runs = plan_runs([Variant("a"), Variant("b")], [7], {}, tmp_path)
        for name, whole in (("checkpoint-2", True), ("checkpoint-4", False)):
            (runs[0].folder / name).mkdir(parents=True)
            if whole:
                TrainerState().save_to_json(str(runs[0].folder / name / "trainer_state.json"))
        seen = []
        run_grid(runs, lambda path, log: seen.append(yaml.safe_load(path.read_text())) or 0)
        shared = str(runs[0].folder / "checkpoint-2")
        assert [run["resume_from_checkpoint"] for run in seen] == [shared, shared]
        assert not (runs[0].folder / "checkpoint-4").exists()  # was cut short

    def test_another_learning_rate_shares_nothing(self, tmp_path):
        runs = plan_runs([Variant("a"), Variant("b", {"learning_rate": 0.1})], [7], {}, tmp_path)
        seen = []

        def launch(path, log):
            seen.append(yaml.safe_load(path.read_text()))
            (runs[0].folder / "checkpoint-2").mkdir(exist_ok=True)
            (runs[0].folder / "checkpoint-2" / "trainer_state.json").write_text("{}")
            return 0

        run_grid(runs, launch)
        assert [run.get("resume_from_checkpoint") for run in seen] == [None, None]

    def test_a_failure_names_the_run_and_its_last_words(self, tmp_path):
        runs = plan_runs([Variant("a")], [1, 2, 3], {}, tmp_path)
        started = []

        def launch(path, log):
            started.append(path)
            log.write_text("much\nerror: no such file\n\n")
            return 1

        with pytest.raises(PessError, match=r"a, seed 1: the training ended with status 1: error: no such file See"):
            run_grid(runs, launch)
        assert not any((run.folder / FINISHED).exists() for run in runs)
        assert len(started) < 3

    @pytest.mark.parametrize(
        ("variants", "seeds", "common", "message"),
        [
            (["a", "a"], [1], {}, "variants: expected one or more, each once"),
            (["a"], [1, 1], {}, "seeds: expected one or more, each once, found 1, 1"),
            (["a"], [], {}, "seeds: expected one or more"),
            (["a"], [1], {"output_dir": "x"}, "output_dir: expected no such setting"),
        ],
    )
    def test_a_grid_that_makes_no_sense(self, tmp_path, variants, seeds, common, message):
        with pytest.raises(PessError, match=message):
            plan_runs([Variant(name) for name in variants], seeds, common, tmp_path)

    def test_a_process_of_its_own(self, tmp_path):
        script = tmp_path / "recipe.py"
        script.write_text("import os, sys; print(sys.argv[1:], os.environ['OMP_NUM_THREADS']); sys.exit(3)")
        assert START_PROCESS(script, "2")(tmp_path / SETTINGS, tmp_path / LOG) == 3
        assert (tmp_path / LOG).read_text().startswith(f"['--config', '{tmp_path / SETTINGS}'] ")


class TestArguments:
    def read(self, tmp_path, *more, **settings):
        return read_experiment(ExperimentArguments, [*words("m", "rows.jsonl", tmp_path / "x", **settings), *more])

    def test_only_what_was_given_is_passed_on(self, tmp_path):
        found = self.read(tmp_path)
        assert found.own.seeds == [1, 2] and found.folder == tmp_path / "x"
        assert found.settings["learning_rate"] == 0.01 and found.settings["test_data"] == ["rows.jsonl"]
        assert not {"seeds", "seed", "output_dir", "save_strategy", "weight_decay"} & set(found.settings)

    def test_a_base_file_is_read_and_the_command_line_wins(self, tmp_path):
        (tmp_path / "base.yaml").write_text("train_data: sample\nmax_steps: 7\nseed: 3\nweight_decay: 1e-2\n")
        (tmp_path / "own.yaml").write_text("base: base.yaml\nseeds: [5]\n")
        line = ["--config", str(tmp_path / "own.yaml"), "--model_name_or_path", "m", "--max_steps", "9"]
        found = read_experiment(
            ExperimentArguments, [*line, "--held_out_fraction", "0.5", "--output_dir", str(tmp_path)]
        )
        assert found.own.seeds == [5]
        assert found.settings == {
            "train_data": ["sample"], "max_steps": 9, "weight_decay": 0.01, "model_name_or_path": "m",
            "held_out_fraction": 0.5, "held_out_seed": 42,
        }  # fmt: skip

    def test_another_start_drops_the_warm_start(self, tmp_path):
        found = self.read(tmp_path, start_from="runs/a", decoder_layers=2)
        assert found.settings["model_name_or_path"] == "runs/a" and found.settings["decoder_layers"] is None

    def test_what_an_experiment_decides_itself_is_refused(self, tmp_path):
        with pytest.raises(PessError, match="push_to_hub: expected no such setting"):
            self.read(tmp_path, push_to_hub=True)
        with pytest.raises(PessError, match="resume_from_checkpoint: expected no such setting"):
            self.read(tmp_path, resume_from_checkpoint="x")

    def test_nothing_to_measure_on(self, tmp_path):
        line = train_flags("m", "rows.jsonl", tmp_path)
        with pytest.raises(PessError, match="test_data: expected it or held_out_fraction, found neither"):
            read_experiment(ExperimentArguments, line)

    def test_unknown_keys_and_wrong_values(self, tmp_path, capsys):
        with pytest.raises(SystemExit) as caught:
            self.read(tmp_path, "--report_treshold", "0.5")
        assert caught.value.code == 2 and "did you mean --report_thresholds?" in capsys.readouterr().err
        with pytest.raises(PessError, match=r"report_thresholds: expected numbers in \[-1, 1\], found 2.0"):
            self.read(tmp_path, report_thresholds=[2])
        with pytest.raises(PessError, match="jobs: expected 1 or more, found 0"):
            self.read(tmp_path, jobs=0)


@pytest.mark.parametrize("name", ["ablation", "threshold", "staleness", "domain_shift"])
def test_every_experiment_has_a_strict_settings_file(name):
    module = recipe(f"experiments/{name}")
    own = getattr(module, f"{name.title().replace('_', '')}Arguments")
    path = RECIPES / "configs" / "experiments" / f"{name}.yaml"
    own_args, *_ = parse_recipe_args([own, *TRAINING], ["--config", str(path)])
    assert len(own_args.seeds) >= 3


@pytest.mark.parametrize("name", sorted(path.stem for path in (RECIPES / "experiments").glob("*.py")))
def test_help_exits_with_0(name, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", [name])
    with pytest.raises(SystemExit) as caught:
        recipe(f"experiments/{name}").main(["--help"])
    assert caught.value.code == 0 and "--config" in capsys.readouterr().out


def test_some_variants_of_the_ablation_can_be_chosen():
    ablation = recipe("experiments/ablation")
    assert [one.name for one in ablation.AblationArguments().chosen] == [one.name for one in ablation.VARIANTS]
    chosen = ablation.AblationArguments(variants=["full", "baseline"]).chosen
    assert [one.name for one in chosen] == ["full", "baseline"]
    with pytest.raises(PessError, match=r"variants: expected some of baseline, .*, found fulll"):
        ablation.AblationArguments(variants=["baseline", "fulll"])
