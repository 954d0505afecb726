"""Which data sources a training recipe reads: the fields that extractor and generator share."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DataSourceArguments:
    """Sources and splits to train, evaluate and measure on.

    Example:
        >>> DataSourceArguments(train_data=["sample"]).test_data is None
        True
    """

    train_data: list[str] = field(metadata={"help": "Training sources: 'sample', files, folders or Hub ids."})
    train_split: str | None = field(default=None, metadata={"help": "Split of the training sources that have splits."})
    validation_data: list[str] | None = field(default=None, metadata={"help": "Sources evaluated during training."})
    validation_split: str | None = field(default=None, metadata={"help": "Split of the validation sources."})
    test_data: list[str] | None = field(default=None, metadata={"help": "Sources measured at the end."})
    test_split: str | None = field(default=None, metadata={"help": "Split of the test sources."})
