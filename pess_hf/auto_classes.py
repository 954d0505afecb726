"""Makes the Auto classes and `pipeline` of transformers know this library, whichever of the two is imported first.

Registering needs classes, and classes need torch, which `import pess_hf` must not load: a recipe's `--help` and its
first error message would wait for it. So registration happens right after transformers has loaded its own tables.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType


def register() -> None:
    """Register config, model and pipeline with transformers; calling it twice is harmless.

    `import pess_hf` arranges for this by itself. It is needed where transformers is loaded in an unusual way, from a
    zip file for example.

    Example:
        >>> register()
        >>> from transformers import AutoConfig
        >>> AutoConfig.for_model("pess-generator").model_type
        'pess-generator'
    """
    for name in ("modeling_generator", "pipeline"):
        importlib.import_module(f"pess_hf.{name}").register()


#: Module of transformers -> our module that registers with it when it is imported. The models' module is imported by
#: the first config: transformers may be half imported when its table of configs is there.
_ACTIONS = {
    "transformers.models.auto.configuration_auto": "pess_hf.configuration_generator",
    "transformers.pipelines": "pess_hf.pipeline",
}


class _Loader(SourceFileLoader):
    """Loads a module as ever, then imports ours."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        importlib.import_module(_ACTIONS[module.__name__])


class _Finder(MetaPathFinder):
    """Finds the modules of `_ACTIONS` where they are, and gives them our loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _ACTIONS:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None
        spec.loader = _Loader(fullname, spec.loader.path)
        return spec


def register_when_loaded() -> None:
    """Register with the parts of transformers that are loaded, and with the others as soon as they are.

    Example:
        >>> register_when_loaded()
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    for name, ours in _ACTIONS.items():
        if name in sys.modules:
            importlib.import_module(ours)
