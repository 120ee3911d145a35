"""Processes that compute one network together, each a share of every layer.

Heads of attention and columns of a feed-forward are split over the ranks, so that each computes a part of a sum over
all of them: the layer's output. `Ranks.sum` makes the whole of the parts, after attention and after the feed-forward.

Parts are gathered, and every rank adds them in the same order. So all ranks have the same bits, and a row rounds the
same however many others the step has, which a library's all-reduce does not promise: it picks the order by the size.
For two ranks a gather moves as many bytes, (N - 1) * size a rank against 2 (N - 1) / N * size.
"""

import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from tandem.core.errors import EngineFault

# A rank waits for the others only within a step that all have been told of: most where each compiles its kernels.
STEP_TIMEOUT = timedelta(minutes=5)
LEADER = 0  # the rank that has the token table's head, and decides what is computed


class Ranks:
    """One process that computes alone: what all ranks have in common."""

    def __init__(self, rank: int = LEADER, size: int = 1) -> None:
        """Rank `rank` of `size`."""
        assert 0 <= rank < size
        self.rank, self.size = rank, size

    @property
    def is_leader(self) -> bool:
        """Whether this is the rank that the others follow."""
        return self.rank == LEADER

    def share(self, count: int) -> range:
        """This rank's of `count` things in a row; as even as can be."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, rows: torch.Tensor) -> torch.Tensor:  # [T, size], this rank's part -> [T, size]
        """The sum of all ranks' parts."""
        return rows

    def sum_pair(
        self,
        first: torch.Tensor,
        second: torch.Tensor,  # [T, size] each
    ) -> tuple[torch.Tensor, torch.Tensor]:  # [T, size] each
        """`sum` of two of one shape, at the price of one."""
        return first, second

    def take(self, values: torch.Tensor) -> torch.Tensor:  # of any shape
        """What the leader has; `values` are overwritten on the other ranks."""
        return values

    def end(self, rows: torch.Tensor) -> torch.Tensor:  # [T, size] -> same
        """What a step came to: the ranks agree that it is over."""
        return rows


ALONE = Ranks()


class ProcessRanks(Ranks):
    """Ranks over `torch.distributed`'s default group: NCCL between GPUs, gloo between CPUs. Nothing is pickled.

    The libraries connect over the loopback interface, and ask nobody for a secret there: who runs programs on this
    machine is trusted. Where they meet is a file of this user's own.
    """

    def __init__(self, rank: int, size: int) -> None:
        """Rank `rank` of `size`, which have not met yet."""
        super().__init__(rank, size)
        self._is_under_way = False

    def join(self, meeting_point: Path, device: torch.device) -> None:
        """Meets the other ranks, which must be about to call this too.

        Args:
            meeting_point: a file that does not exist yet, in a folder that only this user can enter.
            device: where the tensors of this rank are.

        Raises:
            RuntimeError: not all of them came.
        """
        is_cuda = device.type == "cuda"
        for library in ("GLOO", "NCCL"):  # all ranks are on this machine, and nobody else is to reach them
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
        dist.init_process_group(
            "nccl" if is_cuda else "gloo",
            store=dist.FileStore(str(meeting_point), self.size),  # type: ignore[attr-defined]
            rank=self.rank,
            world_size=self.size,
            timeout=STEP_TIMEOUT,
            device_id=device if is_cuda else None,
        )

    def leave(self) -> None:
        """Ends the group. Captured programs that hold its operations must be gone: NCCL waits for them, for ever."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def abort(self) -> None:
        """Another rank is gone: ends what waits for it on the device. Between CPUs a wait ends by itself then."""
        if dist.is_initialized() and dist.get_backend() == "nccl":
            dist.distributed_c10d._abort_process_group()

    def begin(self) -> None:
        """The leader is about to tell the others of a step, which ends with `end`. Raises as `check` does."""
        self.check()
        self._is_under_way = True

    def check(self) -> None:
        """Whether a step can begin.

        Raises:
            EngineFault: the last one has not ended. Something failed in it, and the others wait for the rest of it.
        """
        if self._is_under_way:
            raise EngineFault("a step of the target's ranks failed, and they cannot compute another")

    def end(self, rows: torch.Tensor) -> torch.Tensor:  # [T, size] -> same
        """See `Ranks`."""
        self._is_under_way = False
        return rows

    def sum(self, rows: torch.Tensor) -> torch.Tensor:  # [T, size], this rank's part -> [T, size]
        """See `Ranks`."""
        parts = rows.new_empty(self.size * rows.shape[0], *rows.shape[1:])
        _gather(parts, rows.contiguous())
        total, *others = parts.view(self.size, *rows.shape).unbind()
        for part in others:
            total = total + part
        return total

    def sum_pair(
        self,
        first: torch.Tensor,
        second: torch.Tensor,  # [T, size] each
    ) -> tuple[torch.Tensor, torch.Tensor]:  # [T, size] each
        """See `Ranks`."""
        first, second = self.sum(torch.cat((first, second))).chunk(2)
        return first, second

    def take(self, values: torch.Tensor) -> torch.Tensor:  # of any shape
        """See `Ranks`."""
        dist.broadcast(values, LEADER)
        return values


# Renamed in torch 2.13, where the old name warns.
_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
