"""The metric `support_reply`."""
