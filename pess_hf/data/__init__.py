"""Readers of the public file formats, and the embedded corpus.

Importing this package imports neither torch, transformers nor datasets; the loaders import `datasets` when called.
"""

from pess_hf.data.groups import group_of, row_groups
from pess_hf.data.loading import iter_persona_rows, load_persona_dataset, load_support_dataset
from pess_hf.data.strategies import STRATEGIES, normalise_strategy

__all__ = [
    "STRATEGIES",
    "group_of",
    "iter_persona_rows",
    "load_persona_dataset",
    "load_support_dataset",
    "normalise_strategy",
    "row_groups",
]
