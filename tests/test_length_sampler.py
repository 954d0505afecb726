"""Rows of like length in one batch, the batches shuffled."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from tiny_extractor import make_trainer, rows

from pess_hf.length_sampler import ShuffledLengthSampler

LENGTHS = [(7 * n) % 101 for n in range(1003)]


def _batches(seed: int) -> list[list[int]]:
    sampler = ShuffledLengthSampler(4, LENGTHS, torch.Generator().manual_seed(seed))
    found = list(sampler)
    return [found[start : start + 4] for start in range(0, len(found), 4)]


def test_every_row_comes_once() -> None:
    assert sorted(row for batch in _batches(0) for row in batch) == list(range(len(LENGTHS)))


def test_rows_of_a_batch_are_of_like_length() -> None:
    spread = [max(LENGTHS[row] for row in batch) - min(LENGTHS[row] for row in batch) for batch in _batches(0)]
    assert sum(spread) / len(spread) < 5


def test_batches_do_not_go_from_long_to_short() -> None:
    longest = [max(LENGTHS[row] for row in batch) for batch in _batches(0)]
    falls = sum(one >= other for one, other in itertools.pairwise(longest))
    assert 0.35 < falls / len(longest) < 0.65
    assert longest[0] == max(LENGTHS)


def test_the_generator_decides_the_order() -> None:
    assert _batches(1) == _batches(1) != _batches(2)


def test_fewer_rows_than_a_batch() -> None:
    assert sorted(ShuffledLengthSampler(8, [3, 1, 2])) == [0, 1, 2]


def test_the_trainer_uses_it(tmp_path: Path) -> None:
    grouped = rows(12).add_column("length", list(range(12)))
    trainer = make_trainer(tmp_path, train_rows=grouped, train_sampling_strategy="group_by_length")
    sampler = trainer._get_train_sampler(grouped)
    assert isinstance(sampler, ShuffledLengthSampler)
    assert sampler.lengths == list(range(12))
