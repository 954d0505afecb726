"""The extractor recipes, end to end on a tiny model: what they write, how they resume, what they refuse."""

import json
import os
import re
import shutil
import subprocess
import sys

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from fake_encoder import FakeEncoder
from recipe_runs import RECIPES, flags, launch, recipe, save_model, train_flags, write_rows

from pess_hf import AutoPessExtractor, PersonaMatcher, PessError, PessExtractor, similarity
from pess_hf.arguments import parse_recipe_args
from pess_hf.cli import run_recipe
from pess_hf.data import group_of
from pess_hf.extractor_args import ExtractorArguments, PersonaDataArguments, load_splits
from pess_hf.lora_args import LoraArguments
from pess_hf.settings_file import read_settings
from pess_hf.training_args import PessTrainingArguments

TRAINING = [ExtractorArguments, PersonaDataArguments, LoraArguments, PessTrainingArguments]
CONFIGS = sorted((RECIPES / "configs" / "extractor").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _sentences_cost_nothing(monkeypatch):
    monkeypatch.setattr(similarity, "load_encoder", lambda *_, **__: FakeEncoder())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path):
    return write_rows(tmp_path / "rows.jsonl")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestTrain:
    def train(self, *arguments, **settings):
        recipe("train_extractor").main(train_flags(*arguments, **settings))

    def test_end_to_end(self, tmp_path, model, data, capsys):
        folder = tmp_path / "run"
        self.train(model, data, folder, test_data=data, evaluate_before_pess=True)
        metrics = json.loads((folder / "metrics.json").read_text())
        assert all(type(value) in (int, float) for value in metrics.values())
        expected = {f"{when}_persona_{score}" for when in ("test", "before_pess") for score in ("precision", "f1")}
        assert expected | {"test_nll", "test_completeness", "test_consistency", "train_loss"} <= set(metrics)
        predictions = lines(folder / "predictions.jsonl")
        source = lines(tmp_path / "rows.jsonl")
        assert [row["dialogue_id"] for row in predictions] == [row["dialogue_id"] for row in source]
        assert [row["reference"] for row in predictions] == [row["persona"] for row in source]
        assert all(isinstance(row["generated"], list) for row in predictions)
        record = json.loads((folder / "run.json").read_text())
        assert record["train_rows"] == 8 and record["arguments"]["max_steps"] == 2
        assert record["versions"]["torch"] == torch.__version__.split("+")[0] or record["versions"]["torch"]
        card = (folder / "README.md").read_text()
        assert card.startswith("---\n") and "pess_hf" in card
        out = capsys.readouterr().out
        assert "before the PESS terms" in out and source[0]["utterances"][0] in out

        trained, untrained = AutoPessExtractor.from_pretrained(folder), AutoPessExtractor.from_pretrained(model)
        assert type(trained) is PessExtractor
        moved = [not torch.equal(a, b) for a, b in zip(trained.parameters(), untrained.parameters(), strict=True)]
        assert any(moved)
        tokenizer = recipe("train_extractor").load_tokenizer(ExtractorArguments(str(folder)))
        personas = trained.extract([row["utterances"] for row in source], tokenizer, disable_tqdm=True,
                                   max_source_length=96)  # fmt: skip
        assert personas == [row["generated"] for row in predictions]

    def test_without_test_rows_nothing_is_predicted(self, tmp_path, model, data):
        self.train(model, data, tmp_path / "run")
        assert not (tmp_path / "run" / "predictions.jsonl").exists()
        assert not any(name.startswith("test") for name in json.loads((tmp_path / "run/metrics.json").read_text()))

    def test_resuming_goes_on_and_a_folder_with_checkpoints_is_refused(self, tmp_path, model, data):
        folder = tmp_path / "run"
        saving = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "learning_rate": 1e-2}
        self.train(model, data, folder, **saving)
        final = AutoPessExtractor.from_pretrained(folder).state_dict()
        with pytest.raises(PessError, match="expected a folder without checkpoints, found checkpoint-4"):
            self.train(model, data, folder, **saving)
        again = tmp_path / "again"
        with pytest.raises(PessError, match="expected a checkpoint to resume from, found none"):
            self.train(model, data, again, resume_from_checkpoint=True)
        with pytest.raises(PessError, match=r"resume_from_checkpoint: expected true or .* trainer_state.json"):
            self.train(model, data, again, resume_from_checkpoint=tmp_path)
        self.train(model, data, again, resume_from_checkpoint=folder / "checkpoint-2", **saving)
        for name, weight in AutoPessExtractor.from_pretrained(again).state_dict().items():
            assert torch.allclose(weight, final[name], atol=1e-6), name

    def test_numbers_that_are_not_finite_end_the_recipe_with_one_line(self, tmp_path, model, data, capsys):
        settings = {"learning_rate": 1e30, "lr_scheduler_type": "constant", "max_steps": 3, "pess_start": 1.0}
        with pytest.raises(SystemExit) as left:
            run_recipe(lambda: self.train(model, data, tmp_path / "run", **settings))
        assert left.value.code == 1
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        found = re.match(r"error: step 2: expected finite numbers, found nan or infinity in nll of ([^;.]+)[;.]", line)
        assert found and set(found[1].split(", ")) < {row["dialogue_id"] for row in lines(tmp_path / "rows.jsonl")}
        assert not list((tmp_path / "run").rglob("*.safetensors"))

    def test_rows_of_like_length_share_a_batch_if_asked_for(self, tmp_path, model, data):
        rows = load_splits(PersonaDataArguments(train_data=[data])).train
        lengths = recipe("train_extractor").with_lengths(rows)["length"]
        assert lengths[0] == sum(map(len, rows[0]["utterances"])) + 3 * sum(map(len, rows[0]["persona"]))
        settings = {"train_sampling_strategy": "group_by_length", "per_device_eval_batch_size": 2}
        self.train(model, data, tmp_path / "run", test_data=data, **settings)
        predictions = lines(tmp_path / "run" / "predictions.jsonl")
        assert [row["dialogue_id"] for row in predictions] == rows["dialogue_id"]
        trained = AutoPessExtractor.from_pretrained(tmp_path / "run")
        tokenizer = recipe("train_extractor").load_tokenizer(ExtractorArguments(str(tmp_path / "run")))
        personas = trained.extract(rows["utterances"], tokenizer, disable_tqdm=True, max_source_length=96)
        assert [row["generated"] for row in predictions] == personas  # measuring keeps the rows' order

    def test_held_out_groups_are_on_one_side_and_those_that_evaluation_reads(self, tmp_path, model, data):
        self.train(model, data, tmp_path / "run", held_out_fraction=0.25, seed=7)
        aside = [row["dialogue_id"] for row in lines(tmp_path / "run" / "predictions.jsonl")]
        splits = load_splits(PersonaDataArguments(train_data=[data], held_out_fraction=0.25), seed=7)
        kept = set(map(group_of, splits.train["dialogue_id"]))
        assert len(aside) == 2 and len(kept) == 3
        assert aside == list(splits.test["dialogue_id"]) and not kept & set(map(group_of, aside))
        arguments = recipe("evaluate_extractor").EvaluationArguments(
            "first-person", [data], "x.json", held_out_fraction=0.25, seed=7
        )
        assert list(recipe("evaluate_extractor").load_rows(arguments)["dialogue_id"]) == aside


class TestExtract:
    def settings(self, tmp_path, model, data, **more):
        common = {"max_new_tokens": 8, "max_source_length": 96, "chunk_rows": 3, "shard_rows": 3, "disable_tqdm": True}
        more = common | more
        return flags(model=model, input=data, output=tmp_path / "out.jsonl", **more)

    @pytest.fixture
    def source(self, tmp_path):
        return write_rows(tmp_path / "in.jsonl", number=7, score=0.5, note={"by": "me | you"})

    def test_the_same_rows_come_back_with_personas(self, tmp_path, model, source):
        recipe("extract").main(self.settings(tmp_path, model, source))
        before, after = lines(tmp_path / "in.jsonl"), lines(tmp_path / "out.jsonl")
        assert [{**row, "persona": None} for row in after] == [{**row, "persona": None} for row in before]
        tokenizer = recipe("train_extractor").load_tokenizer(ExtractorArguments(model))
        expected = AutoPessExtractor.from_pretrained(model).extract(
            [row["utterances"] for row in before], tokenizer, disable_tqdm=True, max_new_tokens=8, max_source_length=96
        )
        assert [row["persona"] for row in after] == expected
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]

    @pytest.mark.parametrize("lost", [[], [0], [1, 2], [0, 1, 2]])
    def test_a_restart_neither_loses_nor_doubles_a_row(self, tmp_path, model, source, lost, monkeypatch):
        module, output = recipe("extract"), tmp_path / "out.jsonl"
        arguments = self.settings(tmp_path, model, source)
        module.main(arguments)
        expected = output.read_bytes()
        output.unlink()
        partial = self.stopped_before_the_end(tmp_path, module, arguments, monkeypatch)
        assert not output.exists()
        assert b"".join((partial / f"shard-0000{n}.jsonl").read_bytes() for n in range(3)) == expected
        for n in lost:
            (partial / f"shard-0000{n}.jsonl").rename(partial / f".shard-0000{n}.jsonl.0123456789abcdef.tmp")
        fresh = []
        extract = module.Extractor.extract
        monkeypatch.setattr(module.Extractor, "extract", lambda s, rows: (fresh.extend(rows), extract(s, rows))[1])
        module.main(arguments)
        assert output.read_bytes() == expected
        assert len(fresh) == sum([3, 3, 1][n] for n in lost)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]

    def stopped_before_the_end(self, tmp_path, module, arguments, monkeypatch):
        def stop(self, plan):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module.ShardedOutput, "finish", stop)
            module.main(arguments)
        return tmp_path / "out.jsonl.partial"

    def test_another_model_input_or_setting_is_refused_and_the_partial_stays(
        self, tmp_path, model, source, monkeypatch
    ):
        module = recipe("extract")
        arguments = self.settings(tmp_path, model, source)
        partial = self.stopped_before_the_end(tmp_path, module, arguments, monkeypatch)
        before = {path.name: path.read_bytes() for path in partial.iterdir()}
        with pytest.raises(PessError, match=r"found another run's \(they differ in max_new_tokens\)"):
            module.main(self.settings(tmp_path, model, source, max_new_tokens=9))
        other = AutoPessExtractor.from_pretrained(model)
        other.get_output_embeddings().weight.data += 0.01
        shutil.copytree(model, tmp_path / "other")
        other.save_pretrained(tmp_path / "other")
        with pytest.raises(PessError, match=r"they differ in model_crc32"):
            module.main(self.settings(tmp_path, tmp_path / "other", source))
        write_rows(tmp_path / "in.jsonl", number=8)
        with pytest.raises(PessError, match=r"they differ in rows, rows_crc32"):
            module.main(arguments)
        assert {path.name: path.read_bytes() for path in partial.iterdir()} == before

    def test_the_speed_is_printed(self, tmp_path, model, source, capsys):
        recipe("extract").main(self.settings(tmp_path, model, source))
        [line] = capsys.readouterr().out.splitlines()
        found = re.fullmatch(
            r"7 rows: .*out.jsonl \(7 written in ([\d.]+) s by 1 process: ([\d.]+) rows per second\)", line
        )
        assert found and float(found[2]) > 0

    def test_parquet_in_and_out(self, tmp_path, model, source):
        recipe("extract").main(self.settings(tmp_path, model, source))
        settings = {"chunk_rows": 3, "shard_rows": 4, "max_new_tokens": 8, "max_source_length": 96}
        datasets.Dataset.from_list(lines(tmp_path / "in.jsonl")).to_parquet(tmp_path / "in.parquet")
        out = tmp_path / "out.parquet"
        recipe("extract").main(flags(model=model, input=tmp_path / "in.parquet", output=out, **settings))
        assert pq.read_table(out).to_pylist() == lines(tmp_path / "out.jsonl")

    def test_two_processes_write_each_row_once_and_in_order(self, tmp_path, model, source):
        recipe("extract").main(self.settings(tmp_path, model, source))
        expected = (tmp_path / "out.jsonl").read_bytes()
        done = launch(
            "extract",
            self.settings(tmp_path, model, source, overwrite=True, chunk_rows=2, shard_rows=2),
            tmp_path,
            processes=2,
        )
        assert done.returncode == 0, done.stderr
        assert "by 2 processes" in done.stdout and done.stdout.count("7 rows: ") == 1
        assert (tmp_path / "out.jsonl").read_bytes() == expected
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]

    def test_a_second_run_into_the_same_output_is_refused_and_harms_nothing(
        self, tmp_path, model, source, monkeypatch
    ):
        module, arguments = recipe("extract"), self.settings(tmp_path, model, source)
        module.main(arguments)
        expected = (tmp_path / "out.jsonl").read_bytes()
        refused, extract = [], module.Extractor.extract

        def meanwhile(self, rows):
            with pytest.raises(PessError, match="expected no other run that writes it, found one at work") as error:
                module.main([*arguments, "--overwrite", "true", "--max_new_tokens", "2"])
            refused.append(str(error.value))
            return extract(self, rows)

        monkeypatch.setattr(module.Extractor, "extract", meanwhile)
        module.main([*arguments, "--overwrite", "true"])
        assert len(refused) == 3 and all("\n" not in line for line in refused)
        assert (tmp_path / "out.jsonl").read_bytes() == expected
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]

    def test_a_lock_of_a_killed_process_locks_nobody_out(self, tmp_path, model, source):
        lock = tmp_path / ".out.jsonl.lock"
        hold = f"import filelock, time; lock = filelock.FileLock({str(lock)!r}); lock.acquire(); "
        wait = "print('held', flush=True); time.sleep(60)"
        with subprocess.Popen([sys.executable, "-c", hold + wait], stdout=subprocess.PIPE) as other:
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(PessError, match="found one at work"):
                recipe("extract").main(self.settings(tmp_path, model, source))
            other.kill()
        assert lock.exists()
        recipe("extract").main(self.settings(tmp_path, model, source))
        assert len(lines(tmp_path / "out.jsonl")) == 7
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]

    def test_an_extension_that_is_not_written_is_one_line_before_anything_slow(self, tmp_path, capsys):
        arguments = flags(model="no/model", input="nowhere.jsonl", output=tmp_path / "new" / "out.csv")
        with pytest.raises(SystemExit) as left:
            run_recipe(lambda: recipe("extract").main(arguments))
        assert left.value.code == 1
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and "ends in .jsonl or .parquet, found .csv" in line
        assert not (tmp_path / "new").exists()

    def test_an_output_that_is_there_is_refused_unless_told(self, tmp_path, model, source):
        (tmp_path / "out.jsonl").write_text("mine\n")
        with pytest.raises(PessError, match="pass --overwrite true"):
            recipe("extract").main(self.settings(tmp_path, model, source))
        assert (tmp_path / "out.jsonl").read_text() == "mine\n"
        recipe("extract").main(self.settings(tmp_path, model, source, overwrite=True))
        assert len(lines(tmp_path / "out.jsonl")) == 7

    def test_rows_without_a_persona_are_welcome(self, tmp_path, model):
        (tmp_path / "in.jsonl").write_text('{"utterances": ["I sing | a lot."], "dialogue_id": "a"}\n')
        recipe("extract").main(self.settings(tmp_path, model, tmp_path / "in.jsonl"))
        [row] = lines(tmp_path / "out.jsonl")
        assert row["utterances"] == ["I sing | a lot."] and isinstance(row["persona"], list)


class TestEvaluate:
    def figures(self, tmp_path, model, data, **more):
        settings = {"max_new_tokens": 8, "max_source_length": 96} | more
        recipe("evaluate_extractor").main(flags(model=model, data=data, output=tmp_path / "f.json", **settings))
        return json.loads((tmp_path / "f.json").read_text())

    def test_figures_are_those_of_the_texts(self, tmp_path, model, data):
        figures = self.figures(tmp_path, model, data)
        assert all(type(value) in (int, float) for value in figures.values())
        assert figures["rows"] == 8
        rows = lines(tmp_path / "rows.jsonl")
        tokenizer = recipe("train_extractor").load_tokenizer(ExtractorArguments(model))
        personas = AutoPessExtractor.from_pretrained(model).extract(
            [row["utterances"] for row in rows], tokenizer, disable_tqdm=True, max_new_tokens=8, max_source_length=96
        )
        matches = PersonaMatcher(FakeEncoder(), 0.6).match(personas, [row["persona"] for row in rows])
        assert figures["persona_recall"] == pytest.approx(sum(match.recall for match in matches) / 8)
        assert {"persona_precision", "persona_f1"} <= set(figures)
        assert any("rouge" in name for name in figures) and any("bleu" in name for name in figures)

    def test_the_floor_copies_first_person_sentences(self, tmp_path, data):
        figures = self.figures(tmp_path, "first-person", data)
        wrong = write_rows(tmp_path / "wrong.jsonl", utterances=["Nice weather today."])
        assert figures["persona_recall"] > self.figures(tmp_path, "first-person", wrong)["persona_recall"] == 0

    @pytest.mark.parametrize("first", ["output", "predictions", "plot"])
    @pytest.mark.parametrize("second", ["data", "output", "predictions"])
    def test_no_result_replaces_another_or_what_is_read(self, tmp_path, data, first, second, monkeypatch):
        if first == second:
            return
        monkeypatch.chdir(tmp_path)
        before = (tmp_path / "rows.jsonl").read_text()
        settings = {"model": "first-person", "data": data, "output": tmp_path / "f.json"}
        shared = settings.get(second, tmp_path / "other.png")
        settings |= {second: shared, first: os.path.relpath(shared)}
        with pytest.raises(
            PessError, match=r": expected a file of its own, found .*, which is \w+ too\. Name another\."
        ):
            recipe("evaluate_extractor").main(flags(**settings))
        assert (tmp_path / "rows.jsonl").read_text() == before

    def test_an_empty_name_is_no_file(self, tmp_path, data):
        with pytest.raises(PessError, match="expected a file to write, found an empty name"):
            self.figures(tmp_path, "first-person", data, predictions="")

    def test_a_plot_is_written_into_a_new_folder(self, tmp_path, data):
        self.figures(tmp_path, "first-person", data, plot=tmp_path / "new" / "row.png", plot_row=7)
        assert (tmp_path / "new" / "row.png").read_bytes().startswith(b"\x89PNG")

    def test_rows_are_limited_and_held_out(self, tmp_path, data):
        assert self.figures(tmp_path, "first-person", data, max_rows=3)["rows"] == 3
        assert self.figures(tmp_path, "first-person", data, held_out_fraction=0.25)["rows"] == 2


class TestConfigs:
    def test_the_promised_ones_are_there(self):
        assert {path.stem for path in CONFIGS} >= {
            "demo",
            "bart-large",
            "t5-small",
            "minilm",
            "bart-base-lora",
            "bart-large-lora",
            "demo-lora",
        }

    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
    def test_every_file_is_read_strictly(self, path):
        parsed = parse_recipe_args(TRAINING, ["--config", str(path)])
        values = {name: value for part in parsed for name, value in vars(part).items()}
        written = {name: setting.value for name, setting in read_settings(path).items()}
        for name, value in written.items():
            value = [value] if name.endswith("_data") and isinstance(value, str) else value
            expected = float(value) if isinstance(values[name], float) else value
            assert values[name] == expected or name == "report_to", name
        assert {"completeness_weight", "consistency_weight", "output_dir", "seed"} <= set(written)

    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
    def test_an_unknown_key_is_named_with_its_file_and_line(self, path, tmp_path):
        shutil.copytree(path.parent, tmp_path, dirs_exist_ok=True)  # overlays find their bases
        copy = tmp_path / path.name
        text = path.read_text().rstrip() + "\n"
        copy.write_text(text + "completness_weight: 1.0\n")
        with pytest.raises(PessError) as caught:
            parse_recipe_args(TRAINING, ["--config", str(copy)])
        line = text.count("\n") + 1
        assert f"{copy}, line {line}: unknown key 'completness_weight'" in str(caught.value)
        assert "did you mean 'completeness_weight'?" in str(caught.value)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.py")))
def test_help_exits_with_0(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(SystemExit) as caught:
        recipe(name).main(["--help"])
    assert caught.value.code == 0
    assert "--config" in capsys.readouterr().out
