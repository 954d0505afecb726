"""The three terms of the PESS objective, as functions over tensors and lists, never over a model.

`token_nll` and `dialogue_mean` serve the likelihood terms, `completeness_target` builds the second target,
`consistency_loss` contrasts sentence representations.
"""

from pess_hf.losses.completeness import completeness_target, dialogue_mean
from pess_hf.losses.consistency import consistency_loss, sentence_representations
from pess_hf.losses.nll import token_nll

__all__ = ["completeness_target", "consistency_loss", "dialogue_mean", "sentence_representations", "token_nll"]
