"""Shares, real rows and what is refused, with stand-ins for an accelerator that knows several processes."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from tiny_extractor import tiny_bart, tiny_encoder_decoder

from pess_hf import PessError
from pess_hf.processes import check_sharding, num_real_rows, share_of
from pess_hf.rollout import generation_ready, greedy_rollouts


def accelerator(rank=0, world=2, end=True, remainder=-1, **more):
    state = SimpleNamespace(end_of_dataloader=end, remainder=remainder)
    return SimpleNamespace(process_index=rank, num_processes=world, gradient_state=state, **more)


@pytest.mark.parametrize(
    ("remainder", "end", "real"),
    [
        (-1, True, [4, 4]),
        (0, True, [4, 4]),
        (5, True, [4, 1]),
        (3, True, [3, 0]),
        (3, False, [4, 4]),
        (7, True, [4, 3]),
    ],
)
def test_real_rows_are_the_first_over_all_processes(remainder, end, real):
    assert [num_real_rows(accelerator(rank, end=end, remainder=remainder), 4) for rank in (0, 1)] == real


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_are_of_one_length_and_each_part_counts_once(count, world):
    shares = [share_of(list(range(count)), accelerator(rank, world)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(part for share in shares for part, counts in share if counts) == list(range(count))


def zero3(model, lengths):
    return accelerator(
        distributed_type=DistributedType.DEEPSPEED, device="cpu", unwrap_model=lambda model: model,
        state=SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=3)), gather=lambda _: torch.tensor(lengths),
    )  # fmt: skip


def test_under_zero3_processes_generate_in_step_and_equally_often():
    """DeepSpeed is not there: what is tested is what `generate` is told and how often it is called."""
    model, asked = tiny_bart(), []

    def generate(synced_gpus, **inputs):
        asked.append(synced_gpus)
        return type(model).generate(model, **inputs)

    model.generate = generate
    sources = [torch.tensor([0, 9, 40, 2]), torch.tensor([0, 31, 2])]
    expected = [ids.tolist() for ids in greedy_rollouts(model, sources, 6, 1)]
    assert asked == [False, False]
    asked.clear()
    written = greedy_rollouts(model, sources, 6, 1, zero3(model, [2, 5]))
    assert [ids.tolist() for ids in written] == expected
    assert asked == [True] * 5


def test_mode_and_cache_flag_come_back_after_an_error():
    model = tiny_bart().train()
    model.config.use_cache = False
    with pytest.raises(KeyError), generation_ready(model) as ready:
        assert ready.model is model and not model.training and model.config.use_cache
        raise KeyError
    assert model.training and not model.config.use_cache


def test_fsdp_on_a_cpu_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(PessError, match=r"FSDP: expected several processes with an accelerator each.*cpu-2\.yaml"):
        check_sharding(accelerator(distributed_type=DistributedType.MULTI_CPU), tiny_bart())


def test_fsdp_1_is_refused():
    with pytest.raises(PessError, match="FSDP: expected version 2, found 1"):
        check_sharding(accelerator(distributed_type=DistributedType.FSDP, is_fsdp2=False), tiny_bart())


def test_a_cache_of_encoder_outputs_is_refused_under_sharding():
    model = tiny_encoder_decoder().freeze_encoder(cache_rows=4)
    with pytest.raises(PessError, match="encoder_cache_rows: expected 0 with a sharded model"):
        check_sharding(zero3(model, [1, 1]), model)
    check_sharding(accelerator(distributed_type=DistributedType.MULTI_GPU), model)
