"""Train, measure and publish persona extractors (PESS) with the Hugging Face Trainer.

Names are imported when they are first used, so that reading data or asking a recipe for help loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pess_hf.auto_classes import register, register_when_loaded

if TYPE_CHECKING:
    from pess_hf.configuration_generator import PessGeneratorConfig
    from pess_hf.consensus import Consensus
    from pess_hf.data import load_persona_dataset, load_support_dataset
    from pess_hf.data.collator import PersonaCollator
    from pess_hf.data.support_collator import SupportCollator
    from pess_hf.data.support_examples import build_support_examples
    from pess_hf.errors import PessError
    from pess_hf.inference import PersonaFilter, PersonaTracker, infer_personas
    from pess_hf.losses import completeness_target, consistency_loss
    from pess_hf.metrics import PersonaMatchMetric, SupportReplyMetric
    from pess_hf.model_card import PessModelCardData, render_model_card
    from pess_hf.modeling_extractor import (
        AutoPessExtractor,
        PersonaExtractionMixin,
        PessEncoderDecoderExtractor,
        PessExtractor,
        PessT5Extractor,
    )
    from pess_hf.modeling_generator import PessGenerator
    from pess_hf.persona_fusion import PersonaFusion
    from pess_hf.pipeline import SupportPipeline
    from pess_hf.safety import default_safety_check
    from pess_hf.similarity import PersonaMatch, PersonaMatcher, persona_scores
    from pess_hf.strategies import add_strategy_tokens
    from pess_hf.trainer import PessTrainer
    from pess_hf.training_args import PessTrainingArguments

__version__ = "0.1.0"

_HOMES = {
    "AutoPessExtractor": "modeling_extractor",
    "Consensus": "consensus",
    "PersonaCollator": "data.collator",
    "PersonaExtractionMixin": "modeling_extractor",
    "PersonaFilter": "inference",
    "PersonaFusion": "persona_fusion",
    "PersonaMatch": "similarity",
    "PersonaMatchMetric": "metrics",
    "PersonaMatcher": "similarity",
    "PersonaTracker": "inference",
    "PessEncoderDecoderExtractor": "modeling_extractor",
    "PessError": "errors",
    "PessExtractor": "modeling_extractor",
    "PessGenerator": "modeling_generator",
    "PessGeneratorConfig": "configuration_generator",
    "PessModelCardData": "model_card",
    "PessT5Extractor": "modeling_extractor",
    "PessTrainer": "trainer",
    "PessTrainingArguments": "training_args",
    "SupportCollator": "data.support_collator",
    "SupportPipeline": "pipeline",
    "SupportReplyMetric": "metrics",
    "add_strategy_tokens": "strategies",
    "build_support_examples": "data.support_examples",
    "completeness_target": "losses",
    "consistency_loss": "losses",
    "default_safety_check": "safety",
    "infer_personas": "inference",
    "load_persona_dataset": "data",
    "load_support_dataset": "data",
    "persona_scores": "similarity",
    "render_model_card": "model_card",
}

__all__ = [
    "AutoPessExtractor",
    "Consensus",
    "PersonaCollator",
    "PersonaExtractionMixin",
    "PersonaFilter",
    "PersonaFusion",
    "PersonaMatch",
    "PersonaMatchMetric",
    "PersonaMatcher",
    "PersonaTracker",
    "PessEncoderDecoderExtractor",
    "PessError",
    "PessExtractor",
    "PessGenerator",
    "PessGeneratorConfig",
    "PessModelCardData",
    "PessT5Extractor",
    "PessTrainer",
    "PessTrainingArguments",
    "SupportCollator",
    "SupportPipeline",
    "SupportReplyMetric",
    "__version__",
    "add_strategy_tokens",
    "build_support_examples",
    "completeness_target",
    "consistency_loss",
    "default_safety_check",
    "infer_personas",
    "load_persona_dataset",
    "load_support_dataset",
    "persona_scores",
    "register",
    "render_model_card",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pess_hf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pess_hf.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


register_when_loaded()
