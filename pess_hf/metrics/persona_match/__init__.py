"""The metric `persona_match`."""
