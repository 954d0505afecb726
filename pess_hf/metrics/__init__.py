"""Metrics as `evaluate` modules, one folder each, that work without a network."""

from pess_hf.metrics.persona_match.persona_match import PersonaMatchMetric
from pess_hf.metrics.support_reply.support_reply import SupportReplyMetric

__all__ = ["PersonaMatchMetric", "SupportReplyMetric"]
