"""Train, measure and publish persona extractors and persona-conditioned supporters."""
