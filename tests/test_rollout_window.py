"""The rollout window: what is generated when, and what a checkpoint keeps of it."""

from itertools import chain, islice

import numpy as np
import pytest
import torch

from pess_hf.decoder_batch import Rollout
from pess_hf.rollout_window import ROLLOUT_KEY, RolloutWindow, load_pending, save_pending
from pess_hf.similarity import PersonaMatch

CPU = torch.device("cpu")
NO_MATCH = PersonaMatch(np.zeros((0, 0)), consistent=[], inconsistent=[], missing=[])


class Recorder:
    """Makes rollouts that tell from which call they came, and remembers the calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, batches, token_ids):
        self.calls.append(([batch["row"] for batch in batches], token_ids))
        if token_ids is None:
            token_ids = [[torch.tensor([batch["row"], len(self.calls)])] for batch in batches]
        return [[Rollout([], NO_MATCH, ids) for ids in rollouts] for rollouts in token_ids]


def make_window(num_batches, size, is_active=lambda: True, restored=None):
    recorder = Recorder()
    source = iter([{"row": row} for row in range(num_batches)])
    return RolloutWindow(source, size, recorder, is_active, restored), recorder


def token_ids(batch):
    return [rollout.token_ids.tolist() for rollout in batch[ROLLOUT_KEY]]


def test_while_inactive_batches_pass_through_untouched():
    window, recorder = make_window(3, size=2, is_active=lambda: False)
    assert list(window) == [{"row": 0}, {"row": 1}, {"row": 2}]
    assert recorder.calls == []
    assert window.pending() == []


def test_inactive_batches_are_taken_one_by_one():
    window, _ = make_window(3, size=2, is_active=lambda: False)
    next(window)
    assert next(window.source) == {"row": 1}, "nothing was read ahead"


def test_rollouts_are_made_for_a_window_when_its_first_batch_is_asked_for():
    window, recorder = make_window(4, size=2)
    assert recorder.calls == []
    assert token_ids(next(window)) == [[0, 1]]
    assert recorder.calls == [([0, 1], None)]
    assert token_ids(next(window)) == [[1, 1]]
    assert len(recorder.calls) == 1
    assert token_ids(next(window)) == [[2, 2]]
    assert recorder.calls[1:] == [([2, 3], None)]


def test_the_last_window_of_an_epoch_may_be_partial():
    window, recorder = make_window(5, size=3)
    batches = list(window)
    assert [batch["row"] for batch in batches] == [0, 1, 2, 3, 4]
    assert [rows for rows, _ in recorder.calls] == [[0, 1, 2], [3, 4]]
    assert next(window, None) is None, "an exhausted window stays exhausted"
    assert len(recorder.calls) == 2, "and generates nothing for no batch"


def test_no_batch_gives_no_window():
    window, recorder = make_window(0, size=3)
    assert list(window) == []
    assert recorder.calls == []


def test_the_terms_can_switch_on_in_the_middle_of_an_epoch():
    seen = []
    window, recorder = make_window(6, size=3, is_active=lambda: len(seen) >= 2)
    for batch in window:
        seen.append(ROLLOUT_KEY in batch)
    assert seen == [False, False, True, True, True, True]
    assert [rows for rows, _ in recorder.calls] == [[2, 3, 4], [5]]


def test_rollouts_once_made_are_handed_out_even_if_the_terms_switch_off():
    active = iter([True, False, False, False])
    window, _ = make_window(3, size=2, is_active=lambda: next(active))
    assert [ROLLOUT_KEY in batch for batch in window] == [True, True, False]


def test_a_batch_of_the_source_is_not_changed():
    batch = {"row": 0}
    window = RolloutWindow(iter([batch]), 1, Recorder(), lambda: True)
    next(window)
    assert batch == {"row": 0}


def test_pending_are_the_rollouts_not_yet_handed_out():
    window, _ = make_window(4, size=3)
    next(window)
    assert [[ids.tolist() for ids in rollouts] for rollouts in window.pending()] == [[[1, 1]], [[2, 1]]]
    next(window), next(window)
    assert window.pending() == []


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5])
def test_a_resumed_window_hands_out_what_an_uninterrupted_one_does(tmp_path, steps):
    size, total = 3, 7
    window, _ = make_window(total, size)
    expected = [(batch["row"], token_ids(batch)) for batch in window]

    stopped, _ = make_window(total, size)
    seen = [(batch["row"], token_ids(batch)) for batch in islice(stopped, steps)]
    save_pending(stopped.pending(), tmp_path, rank=0)

    restored = load_pending(tmp_path, 0, CPU)
    recorder = Recorder()
    recorder.calls += [None] * (
        -(-steps // size) - bool(restored)
    )  # calls before the restart; the open one is made again
    source = iter([{"row": row} for row in range(steps, total)])
    resumed = RolloutWindow(source, size, recorder, lambda: True, restored)
    seen += [(batch["row"], token_ids(batch)) for batch in resumed]
    assert seen == expected


def test_restored_rollouts_are_used_although_the_terms_are_off():
    restored = [[torch.tensor([7, 8])]]
    window, recorder = make_window(2, size=3, is_active=lambda: False, restored=restored)
    assert token_ids(next(window)) == [[7, 8]]
    assert recorder.calls == [([0], restored)]
    assert ROLLOUT_KEY not in next(window)


PENDING = {
    "nothing": [],
    "one": [[[5, 0, 2]]],
    "ragged": [[[5, 0, 2], [1]], [[3], [4, 4, 4, 4]], [[0], [0]]],
    "empty rollouts": [[[], [7, 2]], [[7, 2], []], [[], []]],
    "large ids": [[[2**31, 2**40 + 1], []]],
    "many micro-batches": [[[index]] for index in range(12)],
}


@pytest.mark.parametrize("pending", PENDING.values(), ids=PENDING.keys())
def test_pending_rollouts_survive_a_checkpoint_bit_for_bit(tmp_path, pending):
    pending = [[torch.tensor(ids, dtype=torch.long) for ids in rollouts] for rollouts in pending]
    save_pending(pending, tmp_path / "checkpoint-3", rank=0)
    restored = load_pending(tmp_path / "checkpoint-3", 0, CPU)
    assert [len(rollouts) for rollouts in restored] == [len(rollouts) for rollouts in pending]
    for ours, theirs in zip(chain(*restored), chain(*pending), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_every_rank_keeps_its_own(tmp_path):
    for rank in range(3):
        save_pending([[torch.tensor([rank])]], tmp_path, rank)
    for rank in range(3):
        [[ids]] = load_pending(tmp_path, rank, CPU)
        assert ids.tolist() == [rank]
    assert load_pending(tmp_path, 3, CPU) == []


def test_a_later_save_replaces_an_earlier_one(tmp_path):
    save_pending([[torch.tensor([1])], [torch.tensor([2])]], tmp_path, 0)
    save_pending([], tmp_path, 0)
    assert load_pending(tmp_path, 0, CPU) == []


def test_a_checkpoint_without_the_file_restores_nothing(tmp_path):
    assert load_pending(tmp_path, 0, CPU) == []
