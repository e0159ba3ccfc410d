"""Run by `test_distributed.py` under torchrun: one step of a network on this process's share of a batch."""

from __future__ import annotations

import os
import sys

import torch
from torch import distributed
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from convrelu.torch import convert
from convrelu.torch.networks import small_cnn


def step(rank: int, world: int) -> dict[str, torch.Tensor]:
    """Loss and gradients of a share of 32 images, and the loss after a step of SGD."""
    torch.manual_seed(7)
    network = convert(small_cnn(), "all", threshold_init=("gaussian", 0.2)).model
    images, labels = torch.randn(32, 1, 8, 8), torch.randint(10, (32,))
    images, labels = images.chunk(world)[rank], labels.chunk(world)[rank]
    module = DistributedDataParallel(network) if world > 1 else network
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = functional.cross_entropy(module(images), labels)
    loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    optimiser.step()
    with torch.no_grad():
        losses = torch.stack([loss.detach(), functional.cross_entropy(module(images), labels)])
    if world > 1:
        distributed.all_reduce(losses)
        losses /= world
    return {**found, "losses": losses}


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    result = step(rank, world)
    torch.save(result, f"{sys.argv[1]}/rank{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
