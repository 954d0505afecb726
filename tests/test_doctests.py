"""Every example in a docstring of the library runs and shows what it says."""

import doctest
import importlib
import os
import pkgutil

import pytest

import pess_hf

MODULES = ["pess_hf", *(module.name for module in pkgutil.walk_packages(pess_hf.__path__, "pess_hf."))]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, "the captured output tells which"


def test_no_module_is_forgotten():
    folder = os.path.dirname(pess_hf.__file__)
    files = [name for _, _, names in os.walk(folder) for name in names if name.endswith(".py")]
    assert len(files) == len(MODULES)
