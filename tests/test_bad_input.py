"""What a user gets wrong: one line that begins `error: `, status 1 or 2, and nothing half-written."""

import datetime
import json

import datasets
import pytest
from fake_encoder import FakeEncoder
from recipe_runs import flags, launch, recipe, save_model, train_flags, write_rows

from pess_hf import similarity
from pess_hf.cli import run_recipe

PARLAI = "1 your persona: i sing.\n2 partner's persona: i ski.\n3 hi there\thello\n4 i sing a lot\ti ski\n"
# name: (file name, its text or None for no file, what the error says besides the file's name)
FILES = {
    "missing": ("gone.jsonl", None, "expected a file"),
    "unknown extension": ("rows.xlsx", "x", "expected one of the extensions"),
    "not JSON": ("rows.jsonl", '{"utterances": ["a"], "persona": []}\n{"utterances": [\n', "line 2"),
    "no utterances": ("rows.jsonl", '{"persona": ["I sing."]}\n', "line 1, column 'utterances'"),
    "empty utterances": ("rows.jsonl", '{"utterances": [], "persona": []}\n', "line 1, column 'utterances'"),
    "wrong type": ("rows.jsonl", '{"utterances": "Hi.", "persona": []}\n', "line 1, column 'utterances'"),
    "number as a sentence": ("rows.jsonl", '{"utterances": ["Hi.", 3], "persona": []}\n', "column 'utterances[1]'"),
    "list as a row": ("rows.jsonl", "[1]\n", "line 1"),
    "cut ParlAI": ("chat.txt", PARLAI + "1 your persona: i ski.\n2 partner's per", "chat.txt, line"),
    "ParlAI without a line": ("chat.txt", PARLAI.replace("2 partner's persona: i ski.\n", ""), "line 2"),
    "empty": ("rows.jsonl", "", "found an empty file"),
}
SETTINGS = {
    "threshold above 1": (
        {"similarity_threshold": 1.5},
        "similarity_threshold: expected a number in [-1, 1], found 1.5",
    ),
    "threshold below -1": ({"similarity_threshold": -1.01}, "similarity_threshold: expected a number in [-1, 1]"),
    "negative weight": ({"completeness_weight": -0.5}, "completeness_weight: expected a number 0 or more, found -0.5"),
    "other negative weight": ({"consistency_weight": -1}, "consistency_weight: expected a number 0 or more"),
    "endless weight": ({"consistency_weight": "inf"}, "consistency_weight: expected a number 0 or more, found inf"),
    "no learning rate": ({"learning_rate": "nan"}, "learning_rate: expected a number 0 or more, found nan"),
    "no batch": ({"per_device_train_batch_size": 0}, "per_device_train_batch_size: expected a number 1 or more"),
    "no test batch": ({"per_device_eval_batch_size": -3}, "per_device_eval_batch_size: expected a number 1 or more"),
    "no beams": ({"generation_num_beams": 0}, "generation_num_beams: expected a number 1 or more, found 0"),
    "blank separator": ({"persona_separator": "  "}, "persona_separator: expected a mark such as ' | '"),
    "unknown dtype": ({"dtype": "float31"}, "dtype: expected one of float32, bfloat16"),
    "all held out": ({"held_out_fraction": 1.0}, "held_out_fraction: expected a number in [0, 1), found 1.0"),
    "too little held out": ({"held_out_fraction": 0.01}, "expected rows on both sides"),
    "cache without freezing": ({"encoder_cache_rows": 9}, "expected freeze_encoder: true with it"),
    "BART told to be BERT": ({"decoder_layers": 1}, "expected a checkpoint of type bert"),
    "no such checkpoint": ({"resume_from_checkpoint": "nowhere"}, "expected true or a checkpoint's folder"),
}

#: What each recipe writes.
OUTPUTS = {"extract": "out.jsonl", "evaluate_extractor": "out.json"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path):
    return write_rows(tmp_path / "good.jsonl")


@pytest.fixture
def refused(tmp_path, capsys, monkeypatch):
    """Run a recipe that must fail in one line and leave no file behind; gives the line."""
    monkeypatch.setattr(similarity, "load_encoder", lambda *_, **__: FakeEncoder())

    def run(name, arguments, status=1):
        before = files(tmp_path)
        with pytest.raises(SystemExit) as caught:
            run_recipe(lambda: recipe(name).main(arguments))
        assert caught.value.code == status
        assert files(tmp_path) == before
        return error_line(capsys.readouterr().err)

    return run


def files(folder):
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def error_line(stderr):
    found = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(found) == 1, stderr
    assert "Traceback" not in stderr
    assert stderr.rstrip().splitlines()[-1] == found[0]
    return found[0]


def bad_file(tmp_path, case):
    name, text, said = FILES[case]
    if text is not None:
        (tmp_path / name).write_text(text)
    return tmp_path / name, said


@pytest.mark.parametrize("case", sorted(FILES))
def test_a_bad_file_stops_the_training(tmp_path, model, refused, case):
    path, said = bad_file(tmp_path, case)
    line = refused("train_extractor", train_flags(model, path, tmp_path / "run"))
    assert str(path) in line and said in line


@pytest.mark.parametrize("case", sorted(FILES))
@pytest.mark.parametrize("name", ["extract", "evaluate_extractor"])
def test_a_bad_file_stops_the_other_recipes(tmp_path, model, refused, case, name):
    path, said = bad_file(tmp_path, case)
    source = {"input": path} if name == "extract" else {"data": path}
    line = refused(name, flags(model=model, output=tmp_path / OUTPUTS[name], **source))
    assert str(path) in line and said in line


@pytest.mark.parametrize("case", sorted(SETTINGS))
def test_a_bad_setting_stops_the_training(tmp_path, model, data, refused, case):
    settings, said = SETTINGS[case]
    assert said in refused("train_extractor", train_flags(model, data, tmp_path / "run", **settings))


def test_a_bad_row_after_good_chunks_leaves_nothing(tmp_path, model, data, refused):
    with open(data, "a") as file:
        file.write("{\n")
    line = refused("extract", flags(model=model, input=data, output=tmp_path / "out.jsonl", chunk_rows=2))
    assert f"{data}, line 9" in line


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 0}, "batch_size: expected 1 or more, found 0"),
        ({"num_beams": 0}, "num_beams: expected 1 or more"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected 1 or more"),
        ({"max_source_length": 1}, "max_source_length: expected 3 or more, found 1"),
    ],
)
@pytest.mark.parametrize("name", ["extract", "evaluate_extractor"])
def test_bad_counts_stop_the_other_recipes(tmp_path, model, data, refused, name, settings, said):
    source = {"input": data} if name == "extract" else {"data": data}
    assert said in refused(name, flags(model=model, output=tmp_path / OUTPUTS[name], **source, **settings))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"plot": "row.png", "plot_row": 8}, "plot_row: expected a row from 0 to 7, found 8"),
        ({"plot": "row.png", "plot_row": -1}, "plot_row: expected a row from 0 to 7, found -1"),
        ({"plot": "row.nothing"}, "row.nothing: expected an extension such as .png"),
        ({"similarity_threshold": -2}, "similarity_threshold: expected a number in [-1, 1], found -2"),
        ({"max_rows": 0}, "max_rows: expected 1 or more"),
    ],
)
def test_bad_settings_stop_the_evaluation(tmp_path, data, refused, monkeypatch, settings, said):
    monkeypatch.chdir(tmp_path)
    line = refused("evaluate_extractor", flags(model="first-person", data=data, output="f.json", **settings))
    assert said in line


@pytest.mark.parametrize("broken", ["unknown", "no weights", "cut weights", "no tokenizer", "empty"])
@pytest.mark.parametrize("name", ["train_extractor", "extract", "evaluate_extractor"])
def test_a_bad_model_folder(tmp_path, data, refused, name, broken):
    folder = tmp_path / "model"
    if broken not in ("unknown", "empty"):
        save_model(folder)
    if broken == "empty":
        folder.mkdir()
    weights = folder / "model.safetensors"
    if broken == "no weights":
        weights.unlink()
    if broken == "cut weights":
        weights.write_bytes(weights.read_bytes()[:5000])
    if broken == "no tokenizer":
        for path in folder.glob("*token*.json"):
            path.unlink()
    output = tmp_path / "out.jsonl"
    arguments = {
        "train_extractor": train_flags(folder, data, tmp_path / "run"),
        "extract": flags(model=folder, input=data, output=output, disable_tqdm=True),
        "evaluate_extractor": flags(model=folder, data=data, output=output),
    }
    assert str(folder) in refused(name, arguments[name])


@pytest.mark.parametrize("name", ["train_extractor", "extract", "evaluate_extractor"])
def test_an_output_below_a_file(tmp_path, model, data, refused, name):
    below = f"{data}/run/{OUTPUTS.get(name, 'out')}"
    arguments = {
        "train_extractor": train_flags(model, data, below),
        "extract": flags(model=model, input=data, output=below),
        "evaluate_extractor": flags(model="first-person", data=data, output=below),
    }
    line = refused(name, arguments[name])
    assert "cannot write to the output folder" in line and data in line


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_as_output_file(tmp_path, model, data, refused, overwrite):
    (tmp_path / "taken").mkdir()
    out = tmp_path / "taken"
    line = refused("extract", flags(model=model, input=data, output=out, overwrite=overwrite))
    assert f"{out}: expected a file to write, found a folder" in line
    line = refused("evaluate_extractor", flags(model="first-person", data=data, output=out))
    assert f"{out}: expected a file to write, found a folder" in line


def test_in_a_process_a_missing_file(tmp_path, model):
    done = launch("train_extractor", train_flags(model, tmp_path / "gone.jsonl", tmp_path / "run"), tmp_path)
    assert done.returncode == 1
    assert "gone.jsonl" in error_line(done.stderr)
    assert files(tmp_path) == []


def test_in_a_process_a_row_that_is_not_json(tmp_path, model, data):
    with open(data, "a") as file:
        file.write("not json\n")
    done = launch("extract", flags(model=model, input=data, output="out.jsonl"), tmp_path)
    assert done.returncode == 1
    assert "good.jsonl, line 9" in error_line(done.stderr)
    assert files(tmp_path) == [data]


def test_in_a_process_an_unknown_key_in_the_settings_file(tmp_path, data):
    config = tmp_path / "run.yaml"
    config.write_text(f"model: first-person\ndata: {json.dumps(data)}\noutput: f.json\nbatchsize: 3\n")
    done = launch("evaluate_extractor", flags(config=config), tmp_path)
    assert done.returncode == 1
    line = error_line(done.stderr)
    assert f"{config}, line 4: unknown key 'batchsize'; did you mean 'batch_size'?" in line
    assert files(tmp_path) == sorted([data, str(config)])


def test_in_a_process_an_unknown_option(tmp_path, model, data):
    arguments = [*flags(model=model, input=data, output="out.jsonl"), "--num_beam", "3"]
    done = launch("extract", arguments, tmp_path)
    assert done.returncode == 2
    assert "unknown argument --num_beam; did you mean --num_beams?" in error_line(done.stderr)


def test_a_column_that_json_cannot_hold_stops_extraction_before_it_starts(tmp_path, model, refused):
    when = datetime.datetime(2026, 1, 1)
    table = {"utterances": [["Hello."], ["Hello again."]], "said": [when, when]}
    datasets.Dataset.from_dict(table).to_parquet(tmp_path / "dated.parquet")
    line = refused("extract", flags(model=model, input=tmp_path / "dated.parquet", output=tmp_path / "out.jsonl"))
    assert "column 'said': expected what JSON can hold, found datetime" in line
