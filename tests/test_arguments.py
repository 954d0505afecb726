import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import pytest
from transformers import Seq2SeqTrainingArguments

from pess_hf.arguments import given_settings, parse_recipe_args
from pess_hf.errors import PessError
from pess_hf.settings_file import read_settings
from pess_hf.training_args import PessTrainingArguments
from pess_hf.training_fields import PESS_TRAINING, PessTrainingFields


@dataclass
class Data:
    data: str = field(metadata={"help": "Keeps 50% of the rows, 100%% sure (default: %(default)s)."})
    max_length: int = 512
    rate: float = 0.1
    shuffle: bool = True
    note: str | None = "none yet"
    names: list[str] = field(default_factory=list)
    sizes: list[int] | None = None
    targets: None | str | list[str] = None  # noqa: RUF036 - HfArgumentParser takes the second of three
    options: dict | str | None = None
    mode: Literal["fast", "slow"] = "fast"


@dataclass
class Checked:
    low: int = 1

    def __post_init__(self):
        if self.low < 0:
            raise ValueError("low must not be\n  negative")


def write(folder: Path, text: str, name: str = "run.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def parse(folder: Path, text: str, *args: str) -> Data:
    (parsed,) = parse_recipe_args(Data, ["--config", write(folder, text), *args])
    return parsed


def refused(folder: Path, text: str, *args: str) -> str:
    """The one line with which a file is refused, without the folder."""
    with pytest.raises(PessError) as info:
        parse(folder, text, *args)
    message = str(info.value)
    assert "\n" not in message
    assert "run.yaml" in message
    return message.replace(str(folder) + "/", "")


def usage_error(capsys, *args: str, types=Data) -> str:
    """The one line with which a command line is refused."""
    with pytest.raises(SystemExit) as info:
        parse_recipe_args(types, list(args))
    assert info.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


# --- values ---------------------------------------------------------------------------------------------------------


def test_command_line_alone():
    data, checked = parse_recipe_args([Data, Checked], ["--data", "x", "--max-length", "3", "--no_shuffle"])
    assert (data.data, data.max_length, data.shuffle, checked.low) == ("x", 3, False, 1)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("max_length: 3", "max_length", 3),
        ("max_length: '3'", "max_length", 3),
        ("rate: 1e-5", "rate", 1e-5),
        ("rate: 1", "rate", 1.0),
        ("rate: -2.5E+3", "rate", -2500.0),
        ("shuffle: false", "shuffle", False),
        ("shuffle: off", "shuffle", False),
        ("shuffle: Yes", "shuffle", True),
        ("note: null", "note", None),
        ("note: ~", "note", None),
        ("note:", "note", None),
        ("note: ''", "note", ""),
        ("note: 'null'", "note", "null"),
        ("note: 2024-01-31", "note", "2024-01-31"),
        ("note: 12:30", "note", "12:30"),
        ("note: no", "note", "no"),
        ("note: -x --data y", "note", "-x --data y"),
        ("note: naïve ☕ 50%", "note", "naïve ☕ 50%"),
        ("names: [a, -b, 3]", "names", ["a", "-b", "3"]),
        ("names: []", "names", []),
        ("names: alone", "names", ["alone"]),
        ("sizes: [1, -2]", "sizes", [1, -2]),
        ("sizes: null", "sizes", None),
        ("targets: [q, v]", "targets", ["q", "v"]),
        ("targets: all", "targets", "all"),
        ("options: {a: 1e-5, b: [1, true, null], c: {d: 2024-01-31}}", "options", None),
        ("mode: slow", "mode", "slow"),
    ],
)
def test_yaml_values(tmp_path, line, key, value):
    if key == "options":
        value = {"a": 1e-5, "b": [1, True, None], "c": {"d": "2024-01-31"}}
    got = getattr(parse(tmp_path, f"data: x\n{line}\n"), key)
    assert got == value
    assert type(got) is type(value)


def test_command_line_wins_over_yaml(tmp_path):
    text = "data: x\nmax_length: 3\nshuffle: false\nnames: [a]\nnote: n\n"
    data = parse(tmp_path, text, "--max_length=4", "--shuffle", "--names", "b", "c")
    assert data == Data(data="x", max_length=4, shuffle=True, names=["b", "c"], note="n")
    assert parse(tmp_path, "data: x\nshuffle: true\n", "--no-shuffle").shuffle is False


def test_overlay_on_a_base(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path, "data: x\nmax_length: 3\noptions: {a: 1}\n", "base.yaml")
    overlay = write(tmp_path / "sub", "base: ../base.yaml\nmax_length: 5\noptions: {b: 2}\n")
    (data,) = parse_recipe_args(Data, ["--config", overlay, "--rate", "0.5"])
    assert data == Data(data="x", max_length=5, options={"b": 2}, rate=0.5)


def test_overlays_stack_and_the_command_line_wins(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path, "data: x\nmax_length: 3\nrate: 1\n", "sub/full.yaml")
    write(tmp_path, "base: full.yaml\nmax_length: 4\nrate: 2\n", "sub/middle.yaml")
    overlay = "base: sub/middle.yaml\nmax_length: 5\n"
    data = parse(tmp_path, overlay)
    assert (data.data, data.max_length, data.rate) == ("x", 5, 2)
    assert parse(tmp_path, overlay, "--max_length", "6").max_length == 6


def test_a_circle_of_bases_is_one_line(tmp_path):
    (tmp_path / "sub").mkdir()
    write(tmp_path, "# two\nbase: ../run.yaml\n", "sub/two.yaml")
    message = refused(tmp_path, "base: sub/two.yaml\ndata: x\n")
    assert message.startswith("sub/two.yaml, line 2: 'base' expected another file, found ../run.yaml")


def test_error_in_a_base_names_the_base(tmp_path):
    write(tmp_path, "data: x\nmax_length: three\n", "base.yaml")
    with pytest.raises(PessError, match=r"base\.yaml, line 2: 'max_length' expected a whole number, found 'three'"):
        parse(tmp_path, "base: base.yaml\n")


# --- mistakes in a file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: x\nmax_lenght: 3\n", "run.yaml, line 2: unknown key 'max_lenght'; did you mean 'max_length'?"),
        ("data: x\nqqqqqqq: 3\n", "run.yaml, line 2: unknown key 'qqqqqqq'; see --help for the known keys"),
        ("data: x\nconfig: y\n", "unknown key 'config'"),
        ("<<: {data: x}\n", "unknown key '<<'"),
        ("max_length: abc", "run.yaml, line 1: 'max_length' expected a whole number, found 'abc'"),
        ("max_length: 1.5", "expected a whole number, found '1.5'"),
        ("max_length: true", "expected a whole number, found 'true'"),
        ("max_length: null", "expected a whole number, found null"),
        ("max_length: [1]", "expected a whole number, found a list"),
        ("rate: {a: 1}", "expected a number, found a mapping"),
        ("rate: |\n  one\n  two\n", "expected a number, found 'one two'"),
        ("shuffle: maybe", "expected true or false, found 'maybe'"),
        ("sizes: [1, x]", "expected a list, each item a whole number, found 'x'"),
        ("names: [[a]]", "expected a list, each item text, found a list"),
        ("names: [null]", "expected a list, each item text, found null"),
        ("targets: {a: 1}", "expected text or a list, found a mapping"),
        ("options: [1]", "expected text or a mapping, found a list"),
        ("mode: quick", "'mode' expected one of fast, slow, found 'quick'"),
        ("max_length: !!int abc", "line 1: 'max_length': invalid literal"),
        ("data: !!python/name:os.system x", "could not determine a constructor"),
        ("data: x\ndata: y\n", "run.yaml, line 2, column 1: key 'data' is given twice"),
        ("data: x\noptions:\n  a: 1\n  a: 2\n", "line 4, column 3: key 'a' is given twice"),
        ("data: [x\nrate: 1\n", "run.yaml, line 2, column "),
        ("data: x\n\trate: 1\n", "run.yaml, line 2, column 1: "),
        ("data: x\n---\ndata: y\n", "but found another document"),
        ("data: \x07\n", "run.yaml: "),
        ("? [a]\n: 1\n", "expected a name before the colon, found a list"),
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("- data\n", "run.yaml, line 1: expected lines of the form 'key: value', found a list"),
        ("data", "found 'data'"),
        ("base: 3\n", "'base' expected a file name, found '3'"),
        (
            "base: run.yaml\n",
            "run.yaml, line 1: 'base' expected another file, found run.yaml, which has this one as its base",
        ),
    ],
)
def test_file_is_refused_in_one_line(tmp_path, text, message):
    assert message in refused(tmp_path, text)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("note: caf\xe9".encode("latin-1"))
    for name, message in [
        ("gone.yaml", "gone.yaml: no such file or directory; check the path"),
        (".", "is a directory; name a file"),
        ("latin.yaml", "latin.yaml: not UTF-8 text"),
    ]:
        with pytest.raises(PessError, match=message):
            parse_recipe_args(Data, ["--config", str(tmp_path / name)])
    with pytest.raises(
        PessError, match=r"run\.yaml, line 1: 'base' expected a settings file, found none at .*gone\.yaml"
    ):
        parse(tmp_path, "base: gone.yaml\n")


def test_byte_order_mark_is_skipped(tmp_path):
    assert parse(tmp_path, "\ufeffdata: x\n").data == "x"


def test_what_a_dataclass_refuses_is_one_line(tmp_path):
    path = write(tmp_path, "low: -1\n")
    with pytest.raises(PessError, match=r"run\.yaml: low must not be negative$"):
        parse_recipe_args([Checked], ["--config", path])
    with pytest.raises(PessError, match=r"^command line: low must"):
        parse_recipe_args([Checked], ["--low", "-1"])


# --- mistakes on the command line -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data", "x", "--max_lenght", "3"], "unknown argument --max_lenght; did you mean --max_length?"),
        (["--data", "x", "--max_lenght=3"], "unknown argument --max_lenght; did you mean --max_length?"),
        (["--data", "x", "--max", "3"], "unknown argument --max"),
        (["--data", "x", "stray"], "unexpected argument 'stray'"),
        (["--data", "x", "--max_length", "abc"], "argument --max_length: invalid int value: 'abc'"),
        (["--data", "x", "--mode", "quick"], "argument --mode: invalid choice: 'quick'"),
        (["--data"], "argument --data: expected one argument"),
        ([], "the following arguments are required: --data"),
        (["--config"], "argument --config: expected one argument"),
    ],
)
def test_usage_errors(capsys, args, message):
    err = usage_error(capsys, *args)
    assert message in err
    assert "see --help" in err


def test_required_field_missing_from_file_and_command_line(tmp_path, capsys):
    err = usage_error(capsys, "--config", write(tmp_path, "rate: 1\n"))
    assert "required: --data" in err


# --- with the Trainer's own arguments -------------------------------------------------------------------------------

TRAINING = """
output_dir: {out}
learning_rate: 1e-5
num_train_epochs: 2
warmup_steps: 0.1
eval_strategy: no
save_strategy: steps
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {{min_lr: 1e-6}}
activation_checkpointing_kwargs:
  use_reentrant: false
label_names: [labels]
report_to: [none]
seed: 7
use_cpu: true
max_grad_norm: 1
"""


def test_training_arguments_from_yaml(tmp_path):
    path = write(tmp_path, TRAINING.format(out=tmp_path / "out"))
    (args,) = parse_recipe_args(Seq2SeqTrainingArguments, ["--config", path, "--seed", "8"])
    assert args.learning_rate == 1e-5
    assert args.num_train_epochs == 2.0
    assert args.eval_strategy == "no"
    assert args.lr_scheduler_kwargs == {"min_lr": 1e-6}
    assert args.activation_checkpointing_kwargs == {"use_reentrant": False}
    assert args.label_names == ["labels"]
    assert args.report_to in ([], ["none"])
    assert args.seed == 8
    assert isinstance(args.max_grad_norm, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: abc", "line 1: 'seed' expected a whole number, found 'abc'"),
        ("num_train_epochs: [1]", "line 1: 'num_train_epochs' expected a number, found a list"),
        ("evaluation_strategy: steps", "unknown key 'evaluation_strategy'; did you mean 'eval_strategy'?"),
        ("learning_rte: 1", "did you mean 'learning_rate'?"),
        ("optim: adamm", "'optim' expected one of adamw_torch, "),
        ("use_cpu: true\nload_best_model_at_end: true\neval_strategy: epoch\nsave_strategy: steps", "run.yaml: "),
    ],
)
def test_training_arguments_refused(tmp_path, text, message):
    with pytest.raises(PessError) as info:
        parse_recipe_args(Seq2SeqTrainingArguments, ["--config", write(tmp_path, text)])
    assert message in str(info.value)
    assert "\n" not in str(info.value)


def test_json_on_the_command_line_for_a_mapping():
    (args,) = parse_recipe_args(
        Seq2SeqTrainingArguments, ["--use_cpu", "--lr_scheduler_kwargs", json.dumps({"num_cycles": 2})]
    )
    assert args.lr_scheduler_kwargs == {"num_cycles": 2}


# --- dataclasses that are slow to import ----------------------------------------------------------------------------


def test_a_late_dataclass_is_filled_and_refused_like_any_other(tmp_path, capsys):
    path = write(tmp_path, "data: x\nrollout_steps: 4\nlearning_rate: 1e-5\n")
    words = ["--config", path, "--seed", "8", "--use_cpu", "--output_dir", str(tmp_path)]
    data, args = parse_recipe_args([Data, PESS_TRAINING], words)
    assert type(args) is PessTrainingArguments and data.data == "x"
    assert (args.rollout_steps, args.learning_rate, args.seed) == (4, 1e-5, 8)
    assert given_settings(PESS_TRAINING, words[2:4]) == {"seed": 8}
    error = "error: unknown argument --learning_rte; did you mean --learning_rate? (see --help)\n"
    assert usage_error(capsys, "--data", "x", "--learning_rte", "1", types=[Data, PESS_TRAINING]) == error
    with pytest.raises(PessError, match="unknown key 'rollout_step'; did you mean 'rollout_steps'"):
        parse_recipe_args([Data, PESS_TRAINING], ["--config", write(tmp_path, "data: x\nrollout_step: 1\n")])


def test_pess_training_arguments_are_upstream_s_then_ours(tmp_path):
    upstream = [one.name for one in fields(Seq2SeqTrainingArguments)]
    ours = [one.name for one in fields(PessTrainingFields)]
    names = [one.name for one in fields(PessTrainingArguments)]
    assert names == upstream + [name for name in ours if name not in upstream]
    assert {*ours} & {*upstream} == {"hub_strategy", "hub_private_repo"}
    args = PessTrainingArguments(output_dir=str(tmp_path), use_cpu=True, pess_start=0.5)
    assert (args.hub_private_repo, args.similarity_threshold) == (True, 0.6)
    assert pickle.loads(pickle.dumps(args)) == args


# --- the settings file on its own -----------------------------------------------------------------------------------


def test_settings_know_their_place(tmp_path):
    write(tmp_path, "rate: 1\n", "base.yaml")
    settings = read_settings(write(tmp_path, "# heading\nbase: base.yaml\ndata: x\n"))
    assert settings["data"].place.endswith("run.yaml, line 3")
    assert settings["rate"].place.endswith("base.yaml, line 1")
    assert list(settings) == ["rate", "data"]


def test_settings_file_needs_no_heavy_import():
    code = "import sys, pess_hf.settings_file; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
