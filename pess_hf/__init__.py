"""Train, measure and publish persona extractors (PESS) with the Hugging Face Trainer.

Names are imported when they are first used, so that reading data or asking a recipe for help loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pess_hf.data import load_persona_dataset, load_support_dataset
    from pess_hf.data.collator import PersonaCollator
    from pess_hf.errors import PessError
    from pess_hf.losses import completeness_target, consistency_loss
    from pess_hf.metrics import PersonaMatchMetric
    from pess_hf.model_card import PessModelCardData, render_model_card
    from pess_hf.modeling_extractor import (
        AutoPessExtractor,
        PersonaExtractionMixin,
        PessEncoderDecoderExtractor,
        PessExtractor,
        PessT5Extractor,
    )
    from pess_hf.similarity import PersonaMatch, PersonaMatcher, persona_scores
    from pess_hf.trainer import PessTrainer
    from pess_hf.training_args import PessTrainingArguments

__version__ = "0.1.0"

_HOMES = {
    "AutoPessExtractor": "modeling_extractor",
    "PersonaCollator": "data.collator",
    "PersonaExtractionMixin": "modeling_extractor",
    "PersonaMatch": "similarity",
    "PersonaMatchMetric": "metrics",
    "PersonaMatcher": "similarity",
    "PessEncoderDecoderExtractor": "modeling_extractor",
    "PessError": "errors",
    "PessExtractor": "modeling_extractor",
    "PessModelCardData": "model_card",
    "PessT5Extractor": "modeling_extractor",
    "PessTrainer": "trainer",
    "PessTrainingArguments": "training_args",
    "completeness_target": "losses",
    "consistency_loss": "losses",
    "load_persona_dataset": "data",
    "load_support_dataset": "data",
    "persona_scores": "similarity",
    "render_model_card": "model_card",
}

__all__ = [
    "AutoPessExtractor",
    "PersonaCollator",
    "PersonaExtractionMixin",
    "PersonaMatch",
    "PersonaMatchMetric",
    "PersonaMatcher",
    "PessEncoderDecoderExtractor",
    "PessError",
    "PessExtractor",
    "PessModelCardData",
    "PessT5Extractor",
    "PessTrainer",
    "PessTrainingArguments",
    "__version__",
    "completeness_target",
    "consistency_loss",
    "load_persona_dataset",
    "load_support_dataset",
    "persona_scores",
    "render_model_card",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pess_hf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pess_hf.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
