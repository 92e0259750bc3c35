"""The processes that train one network together; one process is a group of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Group:
    """Rank and size of this process's group; the default is a process alone.

    With more than one process `torch.distributed` must be initialised: gloo on CPU, nccl on GPU.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes checkpoints and reports."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module to call in training: averages gradients over the group."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the group, on every rank; `value` itself is left alone."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total

    def gather_ints(self, value: int) -> list[int]:
        """Each rank's number, in the order of ranks."""
        if self.size == 1:
            return [value]
        slots = torch.zeros(self.size, dtype=torch.int64)
        slots[self.rank] = value
        if dist.get_backend() == "nccl":
            slots = slots.cuda()
        return [int(number) for number in self.sum(slots).tolist()]

    def main_says(self, answer: bool) -> bool:
        """Rank 0's answer, on every rank: what depends on a clock or a file is asked of one."""
        return bool(self.gather_ints(int(answer))[0])

    def copy_from_main(self, tensors: list[Tensor]) -> None:
        """Overwrite tensors, in place, with those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)
