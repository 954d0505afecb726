"""Raw FSDP2 on two gloo processes against the same model in one piece."""

import torch
from tiny_extractor import tiny_bart
from torch.distributed.fsdp import FSDPModule, fully_shard

from pess_hf.rollout import greedy_rollouts

#: Per process, so that one has more to write and stops elsewhere than the other.
SOURCES = [[[0, 9, 40, 2], [0, 31, 2], [0, 15, 6, 24, 8, 33, 2]], [[0, 12, 60, 17, 2]]]
LENGTHS = (12, 5)


def sharded_is_like_whole():
    """Rollouts before the first step and after it, the gradient of a step, and what generation leaves behind."""
    rank = torch.distributed.get_rank()
    whole, model = lively(), shard(lively())
    model.train()
    sources = [torch.tensor(ids) for ids in SOURCES[rank]]
    expected = tokens(greedy_rollouts(whole, sources, LENGTHS[rank], batch_size=1))
    first = tokens(greedy_rollouts(model, sources, LENGTHS[rank], batch_size=1))
    left = {
        "training": all(module.training for module in model.modules()),
        "sharded": all(hasattr(parameter, "to_local") for parameter in model.parameters()),
        "use_cache": model.config.use_cache,
    }
    difference = gradient_difference(whole, model)
    again = tokens(greedy_rollouts(model, sources, LENGTHS[rank], batch_size=1))
    return {
        "same rollouts": first == expected, "same again": again == expected, "lengths": [len(ids) for ids in first],
        "left behind": left, "gradient difference": difference,
    }  # fmt: skip


def lively():
    """A model that ends its personas at different places."""
    model = tiny_bart(seed=2, init_std=0.9, use_cache=False)
    model.config.use_cache = False  # as gradient checkpointing leaves it
    return model


def tokens(rollouts):
    return [ids.tolist() for ids in rollouts]


def shard(model):
    for module in [*model.model.encoder.layers, *model.model.decoder.layers, model]:
        fully_shard(module, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
    assert isinstance(model, FSDPModule)
    return model


def batch(rank):
    """Two dialogues and five decoder rows, others on each process."""
    draw = torch.Generator().manual_seed(rank)
    ids, targets = (torch.randint(4, 90, shape, generator=draw) for shape in ((2, 7), (5, 6)))
    rows = torch.tensor([0, 1, 0, 1, 1])
    return {"input_ids": ids, "decoder_input_ids": targets, "labels": targets, "encoder_rows": rows}


def loss(model, rank):
    inputs = batch(rank)
    outputs = model(**inputs)
    hidden = outputs.decoder_hidden_states.square().mean()
    return torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"].flatten()) + hidden


def gradient_difference(whole, model):
    """The largest between the sharded gradient and the mean of both processes' gradients of the whole model."""
    loss(model, torch.distributed.get_rank()).backward()
    ((loss(whole, 0) + loss(whole, 1)) / 2).backward()
    pairs = zip(whole.parameters(), model.parameters(), strict=True)
    return max((mine.grad - theirs.grad.full_tensor()).abs().max().item() for mine, theirs in pairs)
