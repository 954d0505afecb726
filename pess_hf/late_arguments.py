"""Dataclasses of arguments that are slow to import: help describes them without, `parse_recipe_args` loads them."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class LateArguments:
    """Stands for a dataclass of arguments until its fields are needed.

    Args:
        path: Where it is, ``module:Class``.
        upstream: Whose arguments it takes beside `own`, as help names it.
        own: A dataclass, quick to import, with those of the arguments that help shows; None for none.

    Example:
        >>> late = LateArguments("transformers:Seq2SeqTrainingArguments", "transformers' Seq2SeqTrainingArguments")
        >>> late.load().__name__
        'Seq2SeqTrainingArguments'
    """

    path: str
    upstream: str
    own: type | None = None

    def load(self) -> type:
        """Import the dataclass.

        Raises:
            ImportError: If its module, or a module that this one needs, is not installed.
        """
        loaded: type = pkgutil.resolve_name(self.path)
        return loaded


def help_note(late: Iterable[LateArguments]) -> str:
    """The last lines of a help that leaves arguments out.

    Example:
        >>> help_note([LateArguments("transformers:TrainingArguments", "transformers' TrainingArguments")])
        "Every argument of transformers' TrainingArguments is taken too: --help_all lists them."
    """
    names = " and ".join(one.upstream for one in late)
    return f"Every argument of {names} is taken too: --help_all lists them."
