"""How one rank of a shared target leads the others.

Whoever plans a step on the leader plans it on all ranks: what the host knows of it goes through a pipe, what the device
knows travels between the devices, as do the tokens, in `forward`. So nothing above the network computes for ranks, and
a rank that waits for a step waits at a pipe, for as long as it takes, and not in a library that would give up.
"""

import enum
from collections.abc import Callable, Iterable, Sequence

import torch

from tandem.attention.base import AttentionBackend, AttentionMetadata, DevicePlanner
from tandem.attention.batch_message import to_numbers
from tandem.attention.device_batch import DeviceBatch
from tandem.attention.metadata import QueryBatch
from tandem.attention.round_message import to_tensor
from tandem.kv_cache.group import KvGroup
from tandem.kv_cache.scales import UNSCALED, KvScales
from tandem.models.gemma4.target import Gemma4Target
from tandem.models.ranks import ProcessRanks

Tell = Callable[[Sequence[int]], None]  # sends numbers to all other ranks


class Told(enum.IntEnum):
    """What the other ranks are to do: the first of the numbers that they are sent."""

    STEP = 0  # a step, which the others are
    CAPTURE = 1  # make a graph of rounds of a form, which the others are
    ROUND = 2  # a round of a form


class LeadingBackend:
    """The leader's `AttentionBackend`. What it plans must be computed, once, before it plans again."""

    def __init__(self, backend: AttentionBackend, ranks: ProcessRanks, tell: Tell) -> None:
        """Plans with `backend`, and tells the other ranks."""
        self._backend, self._ranks, self._tell = backend, ranks, tell

    def prepare(self, batch: QueryBatch, groups: Iterable[KvGroup], block_size: int) -> AttentionMetadata:
        """Plans a step on all ranks.

        Raises:
            EngineFault: the ranks have lost each other.
        """
        groups = tuple(groups)
        metadata = self._backend.prepare(batch, groups, block_size)
        self._ranks.begin()
        self._tell([Told.STEP, *to_numbers(batch, [group.name for group in groups])])
        return metadata

    def attend(
        self,
        query: torch.Tensor,  # [num_rows, num_heads, head_dim]
        kv: torch.Tensor,  # [num_slots, 2, num_kv_heads, head_dim]
        plan: object,
        scales: KvScales = UNSCALED,
    ) -> torch.Tensor:  # [num_rows, num_heads, head_dim]
        """This rank's heads."""
        return self._backend.attend(query, kv, plan, scales)


class LeadingPlanner(LeadingBackend):
    """The leader's `DevicePlanner`, and a `RoundLeader`: a graph of its rounds tells nobody anything by itself."""

    def __init__(self, backend: DevicePlanner, ranks: ProcessRanks, tell: Tell) -> None:
        """Plans with `backend`, and tells the other ranks."""
        super().__init__(backend, ranks, tell)
        self._planner = backend

    def announce(self, num_sequences: int, num_rows: int, max_position: int, to_capture: bool) -> None:
        """Before a round is launched, or captured: what the host knows of it, for all ranks.

        Raises:
            EngineFault: the ranks have lost each other.
        """
        self._ranks.check()
        self._tell([Told.CAPTURE if to_capture else Told.ROUND, num_sequences, num_rows, max_position])

    def prepare_on_device(self, batch: DeviceBatch, groups: Sequence[KvGroup], block_size: int) -> AttentionMetadata:
        """Plans a round on all ranks, which must know of it."""
        self._ranks.take(to_tensor(batch, [group.name for group in groups], block_size))
        return self._planner.prepare_on_device(batch, groups, block_size)


def lead(target: Gemma4Target, ranks: ProcessRanks, tell: Tell) -> None:
    """Makes a target that has the leader's share compute every step on all ranks."""
    backend = target.backend
    kind = LeadingPlanner if isinstance(backend, DevicePlanner) else LeadingBackend
    target.backend = kind(backend, ranks, tell)  # type: ignore[arg-type]  # of the kind that it is
