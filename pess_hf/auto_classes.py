"""Makes the Auto classes and `pipeline` of transformers know this library, whichever of the two is imported first.

Registering needs classes, and classes need torch, which `import pess_hf` must not load: a recipe's `--help` and its
first error message would wait for it. So registration happens right after transformers has loaded its own tables.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
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
    _register_config()
    _register_models()
    _register_pipeline()


def _register_config() -> None:
    from transformers import AutoConfig

    from pess_hf.configuration_generator import BEFORE_FIRST_CONFIG, PessGeneratorConfig

    AutoConfig.register(PessGeneratorConfig.model_type, PessGeneratorConfig, exist_ok=True)
    # Not now: transformers may be half imported. Whoever looks for a model has built its config before.
    if _register_models not in BEFORE_FIRST_CONFIG:
        BEFORE_FIRST_CONFIG.append(_register_models)


def _register_models() -> None:
    from pess_hf.modeling_generator import register as register_models

    register_models()


def _register_pipeline() -> None:
    # Imported in the middle of its own import, the module registers itself at its end.
    importlib.import_module("pess_hf.pipeline")


#: Module of transformers -> what to do once it is loaded.
_ACTIONS: dict[str, Callable[[], None]] = {
    "transformers.models.auto.configuration_auto": _register_config,
    "transformers.pipelines": _register_pipeline,
}


class _Loader(SourceFileLoader):
    """Loads a module as ever, then runs its action."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _ACTIONS[module.__name__]()


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
    for name, action in _ACTIONS.items():
        if name in sys.modules:
            action()
