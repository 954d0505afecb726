"""Help: what a recipe says it takes, its own settings first and upstream's on request."""

from dataclasses import fields

import pytest
from test_arguments import Data
from transformers import Seq2SeqTrainingArguments

from pess_hf.arguments import given_settings, parse_recipe_args
from pess_hf.training_args import PessTrainingArguments
from pess_hf.training_fields import PESS_TRAINING, PessTrainingFields


def test_help_survives_percent_signs(capsys):
    with pytest.raises(SystemExit) as info:
        parse_recipe_args(Data, ["--help"], description="Reads 5% of it.")
    assert info.value.code == 0
    out = capsys.readouterr().out
    assert "Keeps 50% of the rows, 100% sure" in out
    assert "Reads 5% of it." in out
    assert "--config FILE.yaml" in out


def test_training_arguments_help(capsys):
    with pytest.raises(SystemExit):
        parse_recipe_args(Seq2SeqTrainingArguments, ["--help"])
    assert "--learning_rate" in capsys.readouterr().out


def shown_help(capsys, *args: str) -> str:
    """The help of a recipe that trains with PESS."""
    for read in (parse_recipe_args, given_settings):
        with pytest.raises(SystemExit) as info:
            read([Data, PESS_TRAINING], args, "Trains.")
        assert not info.value.code
    first, second = capsys.readouterr().out.split("Trains.")[1:]
    assert first.partition("usage:")[0].strip() == second.strip()
    return second


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["--seed", "3", "--help"]])
def test_brief_help_shows_our_own_and_names_the_rest(capsys, args):
    text = shown_help(capsys, *args)
    for one in (*fields(Data), *fields(PessTrainingFields)):
        assert f"--{one.name}" in text
    assert "--learning_rate" not in text
    note = " ".join(text.splitlines()[-2:])
    assert "Seq2SeqTrainingArguments is taken too: --help_all lists them." in note


@pytest.mark.parametrize("args", [["--help_all"], ["--help-all"], ["--help", "--help_all"]])
def test_full_help_shows_everything(capsys, args):
    text = shown_help(capsys, *args)
    for one in (*fields(Data), *fields(PessTrainingArguments)):
        assert f"--{one.name}" in text
    assert "is taken too" not in text
