"""Every example in a docstring of the library runs and shows what it says."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import pess_hf

MODULES = {"pess_hf", *(module.name for module in pkgutil.walk_packages(pess_hf.__path__, "pess_hf."))}
#: Their examples need a model and a tokenizer, which test_modeling_generator.py::test_docstring_examples gives them.
WITH_A_MODEL = {"pess_hf.guided_decoding", "pess_hf.modeling_generator", "pess_hf.strategies"}


@pytest.mark.parametrize("name", sorted(MODULES - WITH_A_MODEL))
def test_the_examples_of_a_module(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, "the captured output tells which"


def test_no_module_is_forgotten():
    assert len(MODULES) == len(list(Path(pess_hf.__file__).parent.rglob("*.py")))
    assert MODULES >= WITH_A_MODEL
