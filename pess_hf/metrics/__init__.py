"""Metrics as `evaluate` modules, one folder each, that work without a network."""

from pess_hf.metrics.persona_match.persona_match import PersonaMatchMetric

__all__ = ["PersonaMatchMetric"]
